"""What one await of the core costs, beside pyo3-async-runtimes in the same process.

    python benchmarks/bridge.py [--awaits 2000] [--passes 3]

Both sides run the same tokio future (`echo`: ready at once; `sleep`: half a millisecond) and are awaited alike. CPU is
that of the whole process, tokio's threads included. Passes alternate; the table shows medians. The baseline is built
with cargo at the first run.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.machinery
import importlib.util
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType

from fastcrew_async import _native, runtime

HERE = Path(__file__).parent
TARGET = HERE.parent / "target" / "bridge_baseline"
Operation = Callable[[int], Awaitable[int]]


def baseline() -> ModuleType:
    """The module of `bridge_baseline/`, built if need be."""
    command = ["cargo", "build", "--release", "--quiet", "--target-dir", str(TARGET)]
    subprocess.run(command, cwd=HERE / "bridge_baseline", check=True)
    endings = {"darwin": "libbridge_baseline.dylib", "win32": "bridge_baseline.dll"}
    library = TARGET / "release" / endings.get(sys.platform, "libbridge_baseline.so")
    loader = importlib.machinery.ExtensionFileLoader("bridge_baseline", str(library))
    spec = importlib.util.spec_from_file_location("bridge_baseline", library, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


async def gathered(operation: Operation, awaits: int) -> tuple[float, float]:
    """CPU and wall seconds of one await, all gathered, each inside a coroutine of the caller."""

    async def one(number: int) -> int:
        return await operation(number)

    cpu, wall = time.process_time(), time.perf_counter()
    answers = await asyncio.gather(*(one(number) for number in range(awaits)))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    assert answers == list(range(awaits))
    return cpu / awaits, wall / awaits


async def handed(operation: Operation, awaits: int) -> tuple[float, float]:
    """The same, with what the operation returns handed to ``gather`` as it is."""
    cpu, wall = time.process_time(), time.perf_counter()
    answers = await asyncio.gather(*(operation(number) for number in range(awaits)))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    assert answers == list(range(awaits))
    return cpu / awaits, wall / awaits


async def in_turn(operation: Operation, awaits: int) -> tuple[float, float]:
    """CPU and wall seconds of one await, one after another."""
    cpu, wall = time.process_time(), time.perf_counter()
    for number in range(awaits):
        await operation(number)
    return (time.process_time() - cpu) / awaits, (time.perf_counter() - wall) / awaits


async def asyncio_alone(number: int) -> int:
    await asyncio.sleep(0)
    return number


async def beside_busy_loop(operation: Operation, awaits: int, slice_seconds: float) -> list[float]:
    """Each await's wall time in slices of a coroutine that keeps the loop busy, slice after slice."""
    slices = 0
    done = False

    async def busy() -> None:
        nonlocal slices
        while not done:
            end = time.perf_counter() + slice_seconds
            while time.perf_counter() < end:
                pass
            slices += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(busy())
    await asyncio.sleep(0)
    taken = []
    for number in range(awaits):
        before = slices
        await operation(number)
        taken.append(slices - before)
    done = True
    await task
    return taken


async def main(awaits: int, passes: int) -> None:
    theirs = baseline()
    ours = runtime.get()
    operations: dict[str, Operation] = {"ours": ours.echo, "pyo3-async-runtimes": theirs.echo}
    print(f"backend {_native.backend}, Python {sys.version.split()[0]}, {awaits} awaits, median of {passes} passes")
    print(f"{'microseconds per await':34} {'CPU':>8} {'wall':>8}")
    for title, measure, count in (
        ("gathered, in a coroutine each", gathered, awaits),
        ("gathered, handed over as they are", handed, awaits),
        ("one after another", in_turn, awaits // 10),
    ):
        print(title)
        cost: dict[str, list[tuple[float, float]]] = {name: [] for name in operations}
        for operation in operations.values():
            await measure(operation, count // 10)
        for _ in range(passes):
            for name, operation in operations.items():
                cost[name].append(await measure(operation, count))
        cpu = {}
        for name, samples in cost.items():
            cpu[name] = statistics.median(sample[0] for sample in samples) * 1e6
            wall = statistics.median(sample[1] for sample in samples) * 1e6
            print(f"  {name:32} {cpu[name]:8.1f} {wall:8.1f}")
        print(f"  {'times less CPU':32} {cpu['pyo3-async-runtimes'] / cpu['ours']:8.1f}")
    alone = [await gathered(asyncio_alone, awaits) for _ in range(passes)]
    print("for scale: gathered coroutines that only sleep(0)")
    print(f"  {'asyncio alone':32} {statistics.median(s[0] for s in alone) * 1e6:8.1f}", end=" ")
    print(f"{statistics.median(s[1] for s in alone) * 1e6:8.1f}")

    print("\nbeside a busy loop of 5 ms slices, one await after another: slices until the answer")
    for name, operation in {
        "ours, echo": ours.echo,
        "pyo3-async-runtimes, echo": theirs.echo,
        "ours, sleep 0.5 ms": lambda _: ours.sleep(0.0005),
        "pyo3-async-runtimes, sleep 0.5 ms": lambda _: theirs.sleep(0.0005),
    }.items():
        taken = await beside_busy_loop(operation, 100, 0.005)
        print(f"  {name:34} median {statistics.median(taken):5.1f}   longest {max(taken):4d}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--awaits", type=int, default=2_000)
    parser.add_argument("--passes", type=int, default=3)
    arguments = parser.parse_args()
    asyncio.run(main(arguments.awaits, arguments.passes))
