"""The order "graph" beside "listed": a diamond of 8 tasks, and what the task graph costs per task.

    python benchmarks/scheduler.py [--latency 0.5] [--tasks 10000]

The diamond has 1, 4, 2 and 1 tasks in a row, so the critical path is four model calls; a scripted model answers each
after `--latency` seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import statistics
import time

from crewai import Agent, Crew, Task

from fastcrew_async import AsyncCrew, _native
from fastcrew_async._fallback.task_graph import TaskGraph as InPython
from fastcrew_async.engine.run import Order
from fastcrew_async.testing import ScriptedLLM

SHAPE = ([], [0], [0], [0], [0], [1, 2], [3, 4], [5, 6])
PATH = 4


def diamond(latency: float) -> Crew:
    llm = ScriptedLLM(["Thought: done\nFinal Answer: 42"], latency=latency)
    agent = Agent(role="analyst", goal="find", backstory="an analyst", llm=llm)
    tasks: list[Task] = []
    for number, context in enumerate(SHAPE):
        given = {"context": [tasks[other] for other in context]} if context else {}
        tasks.append(Task(description=f"step {number}", expected_output="a number", agent=agent, **given))
    return Crew(agents=[agent], tasks=tasks)


async def wall_of(order: Order, latency: float) -> float:
    crew = AsyncCrew(diamond(latency), order=order)
    began = time.perf_counter()
    output = await crew.kickoff()
    assert len(output.tasks_output) == len(SHAPE)
    return time.perf_counter() - began


def microseconds_per_task(graph: type, count: int) -> float:
    """Made, worked off layer by layer, and gone; each task waits for three of the layer before."""
    dependencies = [[max(0, task - step) for step in (1, 7, 50)] if task >= 50 else [] for task in range(count)]
    times = []
    for _ in range(5):
        began = time.perf_counter()
        made = graph(dependencies)
        while made.left:
            for task in made.take(64):
                made.finish(task)
        times.append(time.perf_counter() - began)
    return statistics.median(times) / count * 1e6


async def main(latency: float, count: int) -> None:
    logging.disable(logging.WARNING)
    await AsyncCrew(diamond(0.0)).kickoff()
    print(f"a diamond of {len(SHAPE)} tasks, {latency} s each; the critical path takes {PATH * latency:.2f} s")
    for order in ("listed", "graph"):
        wall = await wall_of(order, latency)
        print(f"  {order:8} {wall:6.2f} s   {(wall / (PATH * latency) - 1) * 100:+6.1f} % of the critical path")
    print(f"a graph of {count} tasks, microseconds a task (median of 5)")
    names = {"rust": "TaskGraph, compiled"} if _native.backend == "rust" else {}
    for backend, title in {**names, "python": "TaskGraph, Python"}.items():
        graph = _native.TaskGraph if backend == "rust" else InPython
        print(f"  {title:20} {microseconds_per_task(graph, count):6.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency", type=float, default=0.5, help="seconds of one model call")
    parser.add_argument("--tasks", type=int, default=10_000, help="size of the large graph")
    arguments = parser.parse_args()
    asyncio.run(main(arguments.latency, arguments.tasks))
