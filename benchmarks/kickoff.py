"""Measures kickoffs: stock CrewAI, AsyncCrew and install(), in processes of their own, one after another.

    python benchmarks/kickoff.py [--quick] [--rounds 3] [--only NAME ...]

Every measurement prints a JSON line; a table of medians and the ratios to stock follow. All answers are checked.

stock       Crew.akickoff (or kickoff) as CrewAI ships it
adapter     fastcrew_async.AsyncCrew(crew).kickoff
installed   Crew.akickoff (or kickoff) after fastcrew_async.install()

cpu_ms      process CPU, all threads, per kickoff
wall_s      from the first start to the last end
stall_ms    the longest time the event loop did not run a 1 ms ticker; only of runs at once
rss_kib     growth of resident memory per kickoff at its peak; only of runs at once
threads     most threads seen; only of runs at once
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import statistics
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from _own_process import figures

ENGINES = ("stock", "adapter", "installed")
WARM_UP = 3


@dataclass(frozen=True)
class Case:
    """One situation; `n` kickoffs, of which stock runs only `stock_n` where it would take minutes."""

    name: str
    n: int
    stock_n: int
    at_once: bool = False
    latency: float = 0.0
    tool_rounds: int = 0
    native: bool = False
    shared_crew: bool = False
    without_loop: bool = False


CASES = (
    Case("one task", 100, 100),
    Case("three ReAct rounds", 100, 60, tool_rounds=3),
    Case("three native rounds", 100, 60, tool_rounds=3, native=True),
    Case("kickoff() without a loop", 100, 100, without_loop=True),
    Case("100 at once, 1 s model", 100, 60, at_once=True, latency=1.0),
    Case("1,000 at once, 1 s model", 1000, 60, at_once=True, latency=1.0),
    Case("one crew, 100 at once", 100, 0, at_once=True, latency=0.2, shared_crew=True),  # stock: one answer, 99 errors
)


def quick(case: Case) -> Case:
    """The same with less of it: for a look, not for figures."""
    return Case(**asdict(case) | {"n": min(case.n, 30 * (10 if case.n > 100 else 1)), "stock_n": min(case.stock_n, 20)})


def kickoff_of(engine: str) -> Callable[[Any, str], Awaitable[Any]]:
    import fastcrew_async

    if engine == "adapter":
        return lambda crew, topic: fastcrew_async.AsyncCrew(crew).kickoff(inputs={"topic": topic})
    if engine == "installed":
        fastcrew_async.install()
    return lambda crew, topic: crew.akickoff(inputs={"topic": topic})


class Probe:
    """What happens on and around the loop while kickoffs run."""

    def __init__(self) -> None:
        import psutil

        self._process = psutil.Process()
        self._before = self._process.memory_info().rss
        self.stall = self.rss = 0.0
        self.threads = 0

    async def watch(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            self.stall = max(self.stall, time.perf_counter() - before - 0.001)
            self.rss = max(self.rss, self._process.memory_info().rss - self._before)
            self.threads = max(self.threads, threading.active_count())

    def figures(self, n: int) -> dict[str, float]:
        kib = max(0.0, self.rss) / 1024 / n
        return {"stall_ms": round(self.stall * 1e3, 1), "rss_kib": round(kib, 1), "threads": self.threads}


@contextlib.contextmanager
def clock(figures: dict[str, Any], n: int) -> Iterator[None]:
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    figures["cpu_ms"] = round((time.process_time() - cpu) / n * 1e3, 3)
    figures["wall_s"] = round(time.perf_counter() - wall, 3)


def measure(engine: str, case: Case, n: int) -> dict[str, Any]:
    """The figures of `n` kickoffs in this process."""
    from _scripted import expected, make_crew

    logging.disable(logging.WARNING)
    kickoff = kickoff_of(engine)
    options = {"tool_rounds": case.tool_rounds, "native": case.native}
    warm = [make_crew(**options) for _ in range(WARM_UP)]
    one = make_crew(latency=case.latency, **options)
    crews = [one if case.shared_crew else make_crew(latency=case.latency, **options) for _ in range(n)]
    topics = [f"topic {index}" for index in range(n)]
    figures: dict[str, Any] = {"engine": engine, "case": case.name, "n": n}

    async def one_after_another() -> list[Any]:
        for crew in warm:
            await kickoff(crew, "warm-up")
        with clock(figures, n):
            return [await kickoff(crew, topic) for crew, topic in zip(crews, topics, strict=True)]

    async def at_once() -> list[Any]:
        for crew in warm:
            await kickoff(crew, "warm-up")
        await asyncio.gather(*(kickoff(make_crew(**options), "warm-up") for _ in range(WARM_UP)))
        probe = Probe()
        watching = asyncio.create_task(probe.watch())
        with clock(figures, n):
            results = await asyncio.gather(*(kickoff(crew, topic) for crew, topic in zip(crews, topics, strict=True)))
        watching.cancel()
        figures.update(probe.figures(n))
        return results

    if case.without_loop:
        for crew in warm:
            crew.kickoff(inputs={"topic": "warm-up"})
        with clock(figures, n):
            results = [crew.kickoff(inputs={"topic": topic}) for crew, topic in zip(crews, topics, strict=True)]
    else:
        results = asyncio.run(at_once() if case.at_once else one_after_another())
    for topic, result in zip(topics, results, strict=True):
        if result.raw != expected(topic, case.tool_rounds):
            raise AssertionError(f"{case.name}, {engine}: {topic!r} was answered {result.raw!r}")
    return figures


def in_own_process(engine: str, case: Case, n: int) -> dict[str, Any]:
    row = figures(__file__, json.dumps([engine, asdict(case), n]))
    print(json.dumps(row), flush=True)
    return row


def median(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of the figures; the worst of the stalls and thread counts."""
    row = dict(runs[0])
    for name in ("cpu_ms", "wall_s", "rss_kib"):
        if name in row:
            row[name] = round(statistics.median(run[name] for run in runs), 3)
    for name in ("stall_ms", "threads"):
        if name in row:
            row[name] = max(run[name] for run in runs)
    return row


def table(rows: list[dict[str, Any]]) -> str:
    columns = ("case", "engine", "n", "cpu_ms", "wall_s", "stall_ms", "rss_kib", "threads")
    lines = [
        [str(row.get(column, "")) for column in columns] for row in [dict(zip(columns, columns, strict=True)), *rows]
    ]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def ratios(rows: list[dict[str, Any]]) -> list[str]:
    """Per case: how many times stock's CPU each engine saves."""
    lines = []
    by = {(row["case"], row["engine"]): row for row in rows}
    for case, engine in by:
        stock = by.get((case, "stock"))
        if stock is None or engine == "stock":
            continue
        row = by[case, engine]
        line = f"{case}: stock / {engine} CPU = {stock['cpu_ms'] / row['cpu_ms']:.1f}"
        if stock["n"] != row["n"]:
            line += f" per kickoff, stock with n={stock['n']} only"
        lines.append(line)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller numbers and one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="cases whose name contains one of these")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        engine, case, n = json.loads(arguments.measure)
        print(json.dumps(measure(engine, Case(**case), n)))
        return

    cases = [quick(case) for case in CASES] if arguments.quick else list(CASES)
    if arguments.only:
        cases = [case for case in cases if any(name in case.name for name in arguments.only)]
    rows = []
    for case in cases:
        engines = [engine for engine in ENGINES if not (engine == "adapter" and case.without_loop)]
        runs: dict[str, list[dict[str, Any]]] = {engine: [] for engine in engines}
        for _ in range(1 if arguments.quick else arguments.rounds):
            for engine in engines:
                if n := case.stock_n if engine == "stock" else case.n:
                    runs[engine].append(in_own_process(engine, case, n))
        rows += [median(of_engine) for of_engine in runs.values() if of_engine]
    print(f"\n{table(rows)}\n")
    print("\n".join(ratios(rows)))


if __name__ == "__main__":
    main()
