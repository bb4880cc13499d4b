"""Many runs at once, and what is seen of them: their results and the threads they started."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from crewai import Crew
from crewai.utilities.rpm_controller import RPMController

from fastcrew_async import AsyncCrew

RUNS = 50
FEW = 5
_OF_CREWAI = "CrewAISyncHandler"  # the event bus's ten, started when they are first needed


@dataclass
class Seen:
    """The results in the order of the topics, and the names of the threads that the runs started."""

    results: list[Any] = field(default_factory=list)
    threads: list[str] = field(default_factory=list)

    @property
    def texts(self) -> list[str]:
        return [result.raw for result in self.results]


def topics(runs: int = RUNS) -> list[str]:
    return [f"topic {run:02}" for run in range(runs)]


async def at_once(
    start: Callable[[str], Awaitable[Any]], runs: int = RUNS, beside: Collection[asyncio.Task[Any]] = ()
) -> Seen:
    """``start(topic)`` for every topic, all on this loop; no task is left at the end but those `beside` them.

    A few runs before are to start what a process starts once.
    """
    await asyncio.gather(*(start(f"warm-up {number}") for number in range(FEW)))
    before = asyncio.all_tasks()
    with started_threads() as threads:
        results = await asyncio.gather(*(start(topic) for topic in topics(runs)))
    await asyncio.sleep(0)
    assert asyncio.all_tasks() <= before.union(beside), "tasks that outlive their runs"
    return Seen(results, threads)


@contextlib.contextmanager
def started_threads() -> Iterator[list[str]]:
    """The names of the threads that start inside, those of CrewAI's event bus aside, and the timers that stock rate
    limiters of other tests leave running."""
    names: list[str] = []
    start = threading.Thread.start

    def noting(thread: threading.Thread) -> None:
        if not thread.name.startswith(_OF_CREWAI) and not resets_a_rate(thread):
            names.append(thread.name)
        start(thread)

    threading.Thread.start = noting  # type: ignore[method-assign]
    try:
        yield names
    finally:
        threading.Thread.start = start  # type: ignore[method-assign]


def resets_a_rate(thread: threading.Thread) -> bool:
    """Whether it is the timer of a rate limiter of stock CrewAI, which goes on after its test."""
    called = getattr(getattr(thread, "function", None), "__func__", None)
    return isinstance(thread, threading.Timer) and called is RPMController._reset_request_count


def of(crew: Crew, **more: Any) -> Callable[[str], Awaitable[Any]]:
    """A kickoff of this one crew for each topic."""
    kickoff = AsyncCrew(crew).kickoff
    return lambda topic: kickoff(inputs={"topic": topic}, **more)


def each(make: Callable[[], Crew], **more: Any) -> Callable[[str], Awaitable[Any]]:
    """A crew of its own for each topic."""
    return lambda topic: AsyncCrew(make()).kickoff(inputs={"topic": topic}, **more)


def answers(runs: int = RUNS) -> list[str]:
    """What the scripted models of these tests answer."""
    return [f"done <{topic}>" for topic in topics(runs)]
