"""Many kickoffs at once, measured the same way on this engine and on stock CrewAI.

Each engine runs in a fresh process, ``python -m fastcrew_async.demo.compare ENGINE ...``, so that neither warms the
other.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fastcrew_async.demo.crew import expected, make_crew, order

if TYPE_CHECKING:
    from crewai import Crew

OURS, STOCK = "fastcrew-async", "stock CrewAI"
_MARK = "fastcrew-async-demo "


@dataclass(frozen=True)
class Outcome:
    """What one engine did.

    ``wall_s`` is seconds from the first start to the last end; ``cpu_ms`` milliseconds of CPU per kickoff, all threads;
    ``stall_ms`` the longest time in milliseconds that the event loop did not run a 1 ms ticker; ``threads`` the most
    seen; ``core`` what carried the runs.
    """

    engine: str
    core: str
    kickoffs: int
    right: int
    wall_s: float
    cpu_ms: float
    stall_ms: float
    threads: int
    answer: str
    errors: list[str] = field(default_factory=list)


def compare(
    engines: Sequence[str], kickoffs: int, model: str, base_url: str | None = None, api_key: str | None = None
) -> Iterator[Outcome]:
    """Runs the engines one after another and yields what each did; raises ``RuntimeError`` when one fails.

    Without ``base_url`` the model is a real one, reached with ``OPENAI_API_KEY``, and any answer counts as right.
    """
    for engine in engines:
        with tempfile.TemporaryDirectory() as folder:
            environment = os.environ | {
                "CREWAI_DISABLE_TELEMETRY": "true",
                "OTEL_SDK_DISABLED": "true",
                "CREWAI_TRACING_ENABLED": "false",
                "CREWAI_STORAGE_DIR": folder,
                "NO_PROXY": ",".join(filter(None, ["127.0.0.1", os.environ.get("NO_PROXY")])),
                "OPENAI_API_KEY": api_key or os.environ.get("OPENAI_API_KEY", ""),
            }
            command = [sys.executable, "-m", __name__, engine, str(kickoffs), model, base_url or ""]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        lines = [line for line in done.stdout.splitlines() if line.startswith(_MARK)]
        if done.returncode or not lines:
            raise RuntimeError(f"{engine} failed:\n{done.stdout[-1000:]}\n{done.stderr[-4000:]}")
        yield Outcome(**json.loads(lines[-1].removeprefix(_MARK)))


def starter(engine: str, crew: Callable[[], Crew]) -> Callable[[dict[str, Any]], Awaitable[Any]]:
    """Starts one kickoff: on one crew object, or on one each for stock CrewAI, whose crews cannot run twice at once."""
    if engine == STOCK:
        return lambda inputs: crew().akickoff(inputs=inputs)
    from fastcrew_async import AsyncCrew

    shared = AsyncCrew(crew())
    return lambda inputs: shared.kickoff(inputs=inputs)


async def measure(engine: str, kickoffs: int, model: str, base_url: str | None, api_key: str | None) -> Outcome:
    """One warm-up kickoff, then ``kickoffs`` at once."""
    # Crews are made beforehand: what is measured is running them.
    crews = iter([make_crew(model, base_url, api_key) for _ in range(kickoffs + 1 if engine == STOCK else 1)])
    kickoff = starter(engine, lambda: next(crews))
    answer = (await kickoff(order(0))).raw
    stall = 0.0
    threads = 0

    async def ticker() -> None:
        nonlocal stall, threads
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            stall = max(stall, time.perf_counter() - before - 0.001)
            threads = max(threads, threading.active_count())

    ticking = asyncio.create_task(ticker())
    await asyncio.sleep(0.05)
    stall = 0.0
    wall, cpu = time.perf_counter(), time.process_time()
    inputs = [order(number) for number in range(1, kickoffs + 1)]
    results = await asyncio.gather(*(kickoff(each) for each in inputs), return_exceptions=True)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    ticking.cancel()
    scripted = base_url is not None
    raws = [result if isinstance(result, BaseException) else result.raw for result in results]
    wrong = [
        repr(raw)
        for raw, each in zip(raws, inputs, strict=True)
        if isinstance(raw, BaseException) or (scripted and raw != expected(each))
    ]
    right, cpu_ms = kickoffs - len(wrong), cpu / kickoffs * 1e3
    return Outcome(engine, core(engine), kickoffs, right, wall, cpu_ms, stall * 1e3, threads, answer, wrong[:3])


def core(engine: str) -> str:
    """What carries the runs of an engine."""
    if engine == STOCK:
        return f"crewai {version('crewai')}"
    from fastcrew_async import _native

    return f"{_native.backend} core"


def main() -> None:
    """The measuring process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("engine", choices=(OURS, STOCK))
    parser.add_argument("kickoffs", type=int)
    parser.add_argument("model")
    parser.add_argument("base_url")
    given = parser.parse_args()
    key = os.environ.get("OPENAI_API_KEY") or None
    logging.disable(logging.WARNING)  # CrewAI warns at each model call that it estimates tokens
    outcome = asyncio.run(measure(given.engine, given.kickoffs, given.model, given.base_url or None, key))
    print(_MARK + json.dumps(asdict(outcome)), flush=True)


if __name__ == "__main__":
    main()
