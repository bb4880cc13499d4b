"""Runs with random deadlines beside tools that take longer, and cancels of model calls.

1,000 kickoffs start, each with a `timeout` drawn at random; half wait in an async tool, half in a sync one, each on
a thread of its own, which goes on for half a second: how late each comes free. Then 10,000 wait for a server on the
loopback device, 50 at a time, through CrewAI's OpenAI model and through the core's, under limits, and are cancelled at
random: how long after its cancel each connection was closed, as the server sees it, and what is left of them.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import random
import tempfile
import threading
import time
from typing import Any

QUIET = {"CREWAI_DISABLE_TELEMETRY": "true", "OTEL_SDK_DISABLED": "true", "CREWAI_TRACING_ENABLED": "false"}


def percentiles(late: list[float]) -> str:
    late = sorted(late)
    p50, p99 = late[len(late) // 2], late[int(len(late) * 0.99)]
    return f"p50 {p50 * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms, most {late[-1] * 1000:.1f} ms"


def crew(tool: Any, **options: Any) -> Any:
    from crewai import Agent, Crew, Task

    agent = Agent(role="r", goal="g", backstory="b", tools=[tool] if tool else [], **options)
    return Crew(agents=[agent], tasks=[Task(description="about {topic}", expected_output="e", agent=agent)])


async def deadlines(n: int, spread: float) -> None:
    from crewai.tools import tool

    from fastcrew_async import AsyncCrew, time_left, workers
    from fastcrew_async.errors import RunTimeoutError
    from fastcrew_async.testing import ScriptedLLM, ToolCall

    release = threading.Event()

    @tool("wait")
    async def wait() -> str:
        """Waits on the loop."""
        await asyncio.sleep(600)
        return "late"

    @tool("wait")
    def wait_in_thread() -> str:
        """Waits in a thread, half a second longer than the run has."""
        release.wait((time_left() or 600) + 0.5)
        return "late"

    crews = [AsyncCrew(crew(found, llm=ScriptedLLM(ToolCall("wait"), native=True))) for found in (wait, wait_in_thread)]
    late: list[float] = []

    async def one(number: int) -> None:
        seconds = 1 + random.random() * spread
        started = time.perf_counter()
        try:
            await crews[number % 2].kickoff({"topic": str(number)}, timeout=seconds)
        except RunTimeoutError:
            late.append(time.perf_counter() - started - seconds)

    await asyncio.gather(*(one(number) for number in range(n)))
    print(f"{len(late)} of {n} runs past their deadline, free after it: {percentiles(late)}")
    print(f"worker pool: {workers.pool().stats()}", flush=True)
    release.set()


async def cancels(n: int, at_once: int, core: bool) -> None:
    from crewai import LLM

    import fastcrew_async
    from fastcrew_async import AsyncCrew, Limit, Limits, configure, stats, workers
    from fastcrew_async._native import CallFrame
    from fastcrew_async.llm import few_idle_connections
    from fastcrew_async.testing import ModelServer

    closed: list[float] = []
    noted: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: noted.append(context))
    configure(limits=Limits(kickoffs=10 * at_once, model=Limit(concurrent=10 * at_once, tokens=10**9)))
    with ModelServer("late", latency=600) as server:
        llm: Any
        if core:
            llm = fastcrew_async.LLM(model="openai/gpt-4o-mini", base_url=server.base_url, api_key="unused")
        else:
            llm = LLM(model="openai/gpt-4o-mini", base_url=server.base_url, api_key="unused")
            few_idle_connections(llm)
        kickoff = AsyncCrew(crew(None, llm=llm)).kickoff
        before: tuple[int, ...] | None = None
        done = 0
        while done < n:
            runs = [asyncio.create_task(kickoff({"topic": str(number)})) for number in range(at_once)]
            while server.in_flight < at_once:  # noqa: ASYNC110  # on the server's thread
                await asyncio.sleep(0.01)
            seen = len(server.closed_at)
            random.shuffle(runs)
            cancelled = []
            for run in runs:
                await asyncio.sleep(random.random() * 0.01)
                run.cancel()
                cancelled.append(time.monotonic())
            await asyncio.wait(runs)
            while server.connections:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            # Which connection was whose is not seen here; in order of time, no pairing has a smaller worst case.
            closed += [end - start for start, end in zip(cancelled, sorted(server.closed_at[seen:]), strict=True)]
            done += at_once
            gc.collect()
            permits = sum(found.used + found.waiting + found.reserved for found in stats().limits.values())
            frames = sum(1 for found in gc.get_objects() if type(found) is CallFrame)
            threads = threading.active_count()
            left = (len(asyncio.all_tasks()), permits, frames, threads, len(os.listdir("/proc/self/fd")))
            before = before or left
    configure(limits=None)
    name = "the core's" if core else "CrewAI's"
    print(f"{done} cancels of calls of {name} model, connection closed after: {percentiles(closed)}")
    print(f"tasks, permits, frames, threads, open files after the first {at_once}: {before}, after all: {left}")
    print(f"messages of the loop: {noted}; pool: {workers.pool().stats()}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the runs")
    parser.add_argument("--cancels", action="store_true", help="the second part only")
    arguments = parser.parse_args()
    os.environ.update(QUIET)
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as storage:
        os.environ["CREWAI_STORAGE_DIR"] = storage
        scale = 10 if arguments.quick else 1
        os.environ["FASTCREW_ASYNC_MAX_WORKERS"] = "700"  # of which one tool gets three quarters
        if not arguments.cancels:
            asyncio.run(deadlines(1_000 // scale, 10.0))
        for core in (False, True):
            asyncio.run(cancels(10_000 // scale, 50, core), debug=False)
            gc.collect()  # whatever is thrown away with the loop says so now


if __name__ == "__main__":
    main()
