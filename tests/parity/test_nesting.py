"""Crews inside tools inside crews, deeper and more of them than there are workers: nothing waits for itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from crewai import Crew
from crewai.tools import tool

from fastcrew_async import AsyncCrew, workers

from .cases.building import solo
from .cases.native import native
from .defects.roads import INPUTS, Kickoff, ours, run
from .models import action, call, final
from .recorder import Recorder
from .tools import ping
from .ways import Way

DEPTH = 5
AT_ONCE = 10


@pytest.fixture(autouse=True)
def _few_workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    few = workers.WorkerPool(2)
    monkeypatch.setattr(workers, "_pool", few)
    yield
    few.close()


def asking(inner: Callable[[int], Any], depth: int) -> Crew:
    """A crew whose sync tool asks `inner`."""
    recorder = Recorder()
    found = ping(recorder, lambda x: f"{depth} {inner(depth - 1)}" if depth else "bottom")
    return solo(recorder, [action("ping", x=1), final("done")] * AT_ONCE, tools=[found])


def by_kickoff(depth: int) -> Crew:
    return asking(lambda below: by_kickoff(below).kickoff(inputs=INPUTS), depth)


def by_a_loop_of_its_own(depth: int) -> Crew:
    return asking(lambda below: asyncio.run(by_a_loop_of_its_own(below).akickoff(inputs=INPUTS)), depth)


def by_kickoff_async(depth: int) -> Crew:
    return asking(lambda below: asyncio.run(by_kickoff_async(below).kickoff_async(inputs=INPUTS)), depth)


def by_async_crew(depth: int) -> Crew:
    return asking(lambda below: asyncio.run(AsyncCrew(by_async_crew(below)).kickoff(INPUTS)), depth)


def by_for_each(depth: int) -> Crew:
    return asking(lambda below: by_for_each(below).kickoff_for_each([INPUTS])[0], depth)


def by_an_async_tool(depth: int) -> Crew:
    @tool("ping")
    async def found(x: int) -> str:
        """Answers what a crew says."""
        return f"{depth} {await by_an_async_tool(depth - 1).akickoff(inputs=INPUTS)}" if depth else "bottom"

    return solo(Recorder(), [action("ping", x=1), final("done")], tools=[found])


def by_turns(depth: int) -> Crew:
    """An async tool's crew has a sync tool, whose crew has an async tool."""
    return by_an_async_tool_of(depth) if depth % 2 else asking(lambda b: by_turns(b).kickoff(inputs=INPUTS), depth)


def by_an_async_tool_of(depth: int) -> Crew:
    @tool("ping")
    async def found(x: int) -> str:
        """Answers what a crew says."""
        return f"{depth} {await by_turns(depth - 1).akickoff(inputs=INPUTS)}"

    return solo(Recorder(), [action("ping", x=1), final("done")], tools=[found])


def by_parallel_calls(depth: int) -> Crew:
    """Two calls of each answer; the bottom is reached by 2 ** depth of them."""
    recorder = Recorder()

    def inner(x: int) -> Any:
        return by_parallel_calls(depth - 1).kickoff(inputs=INPUTS) if depth else "bottom"

    script = [[call("ping", "c1", x=1), call("second", "c2", x=2)], "done"]
    return native(recorder, script, tools=[ping(recorder, inner), ping(recorder, inner, name="second")])


@ours()
@pytest.mark.parametrize(
    "make",
    [by_kickoff, by_a_loop_of_its_own, by_kickoff_async, by_async_crew, by_for_each, by_an_async_tool, by_turns],
)
def test_deep_and_many(way: Way, make: Callable[[int], Crew]) -> None:
    async def many(kickoff: Kickoff) -> list[str]:
        results = await asyncio.gather(*(kickoff(make(DEPTH), INPUTS) for _ in range(AT_ONCE)))
        return [result.raw for result in results]

    assert run(way, many) == ["done"] * AT_ONCE


@ours()
def test_parallel_calls_that_ask_crews(way: Way) -> None:
    assert run(way, lambda kickoff: kickoff(by_parallel_calls(3), INPUTS)).raw == "done"


@ours("installed akickoff", "installed kickoff", "installed kickoff_async")  # the inner one is `crew.kickoff()`
def test_a_crew_that_asks_itself(way: Way) -> None:
    """In CrewAI its agent is running already; here the inner runs take copies."""
    below = iter(range(DEPTH))

    def inner(x: int) -> str:
        return str(crew.kickoff(inputs=INPUTS)) if next(below, None) is not None else "bottom"

    recorder = Recorder()

    def answer(messages: Any) -> str:
        return final("done") if "Observation: heard" in str(messages) else action("ping", x=1)

    crew = solo(recorder, answer, tools=[ping(recorder, lambda x: f"heard {inner(x)}")])
    assert run(way, lambda kickoff: kickoff(crew, INPUTS)).raw == "done"
    assert next(below, None) is None
