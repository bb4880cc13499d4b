"""Measures what one round of an agent with a tool costs: the model asks for the tool, the tool answers.

    python benchmarks/tool_rounds.py [--turns 3]

CPU of the process, all threads, of a kickoff with three rounds less that of one without, by three; one kickoff at a
time, no latency, events kept. Stock CrewAI and this engine take turns, each in a process of its own, where the forms
take turns in parts of some kickoffs; told are the medians of the parts of all turns, and the least ones, as the load
of a machine comes and goes.

sync tool    a function, which is called on a worker thread
async tool   a coroutine function, which is awaited on the loop
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import statistics
import time
from typing import Any

from _own_process import figures
from _scripted import expected, make_crew
from crewai.tools import tool

ROUNDS = 3
PARTS = 10
KICKOFFS = {"stock": 6, "here": 40}
"""Of one part."""
FORMS = {
    "none": (0, False, False),
    "ReAct, sync tool": (ROUNDS, False, False),
    "ReAct, async tool": (ROUNDS, False, True),
    "native, sync tool": (ROUNDS, True, False),
    "native, async tool": (ROUNDS, True, True),
}


@tool("ping")
async def awaited_ping(x: int) -> str:
    """Sends the number back."""
    return f"pong {x}"


async def part(engine: str, rounds: int, native: bool, awaited: bool) -> float:
    """Milliseconds of CPU a kickoff; each has a crew of its own."""
    crews = [make_crew(0.0, rounds, native) for _ in range(KICKOFFS[engine])]
    if awaited:
        for crew in crews:
            crew.agents[0].tools = [awaited_ping]
    starts: list[Any] = [crew.akickoff for crew in crews]
    if engine == "here":
        from fastcrew_async import AsyncCrew  # stock is measured without it

        starts = [AsyncCrew(crew).kickoff for crew in crews]
    began = time.process_time()
    results: list[Any] = [await start(inputs={"topic": f"topic {number}"}) for number, start in enumerate(starts)]
    took = time.process_time() - began
    for number, result in enumerate(results):
        if result.raw != expected(f"topic {number}", rounds):
            raise AssertionError(f"a wrong answer: {result.raw!r}")
    return took / len(crews) * 1e3


async def measured(engine: str) -> dict[str, list[float]]:
    took: dict[str, list[float]] = {form: [] for form in FORMS}
    for turn in range(PARTS + 1):
        for form, shape in FORMS.items():
            cpu = await part(engine, *shape)
            if turn:  # the first one warms up
                took[form].append(cpu)
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        logging.disable(logging.WARNING)
        print(json.dumps(asyncio.run(measured(arguments.measure))))
        return
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    took: dict[str, dict[str, list[float]]] = {engine: {form: [] for form in FORMS} for engine in KICKOFFS}
    for _ in range(arguments.turns):
        for engine, forms in took.items():
            for form, cpu in figures(__file__, engine).items():
                forms[form] += cpu
    print(f"{'CPU of a round':20}{'stock: median, least':>24}{'here: median, least':>24}   times less")
    for form in FORMS:
        if form != "none":
            by = {e: [(p(f[form]) - p(f["none"])) / ROUNDS for p in (statistics.median, min)] for e, f in took.items()}
            cells = "".join(f"{f'{middle:.2f}, {least:.2f} ms':>24}" for middle, least in by.values())
            print(f"{form:20}{cells}   {by['stock'][0] / by['here'][0]:.0f}")
    print("a kickoff without:", ", ".join(f"{e} {statistics.median(f['none']):.2f} ms" for e, f in took.items()))


if __name__ == "__main__":
    main()
