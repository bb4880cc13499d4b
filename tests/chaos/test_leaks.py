"""What a finished kickoff leaves behind: no reference cycle of ours, and no thread for each run."""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
from collections import Counter
from types import CodeType
from typing import Any

import pytest

from fastcrew_async import AsyncCrew, workers
from fastcrew_async.engine.copies import IDLE_COPIES, Copies
from tests.chaos.scenarios import SCENARIOS, Scenario, crew
from tests.chaos.witness import OURS, Witness


@pytest.mark.parametrize("scenario", SCENARIOS[:9], ids=lambda scenario: scenario.name)
async def test_a_finished_kickoff_leaves_no_cycle_of_ours(scenario: Scenario):
    kickoff = AsyncCrew(made := scenario.make(Witness())).kickoff
    for topic in ("first", "second"):  # caches and prototypes are made by the first runs
        await kickoff(inputs={"topic": topic})
    assert await _cycles_of(kickoff) == {}
    del made


async def test_kickoffs_of_one_crew_at_once_leave_no_cycle_of_ours():
    kickoff = AsyncCrew(crew(Witness())).kickoff

    async def ten(inputs: dict[str, str]) -> Any:
        return await asyncio.gather(*(kickoff(inputs=inputs) for _ in range(10)))

    await ten({"topic": "warm-up"})
    assert await _cycles_of(ten) == {}


async def test_copies_beyond_those_that_are_kept_leave_no_cycle_of_ours():
    kickoff = AsyncCrew(crew(Witness())).kickoff

    async def many(inputs: dict[str, str]) -> Any:
        return await asyncio.gather(*(kickoff(inputs=inputs) for _ in range(IDLE_COPIES + 10)))

    await many({"topic": "warm-up"})
    assert await _cycles_of(many) == {}


async def test_the_probe_finds_a_cycle():
    async def make_one(inputs: dict[str, str]) -> None:
        copies = Copies()
        copies.idle.append(copies)

    assert await _cycles_of(make_one) == {"Copies": 1}


async def test_threads_do_not_grow_with_the_number_of_runs():
    few, many = await _most_threads(crew, 20), await _most_threads(crew, 200)
    assert many <= few


async def test_threads_of_sync_tools_stay_within_the_pool():
    from tests.chaos.scenarios import SyncPing

    def with_sync_tool(witness: Witness) -> Any:
        return crew(witness, SyncPing)

    base = await _most_threads(crew, 1)
    assert await _most_threads(with_sync_tool, 200) <= base + workers.pool().max_workers


async def _most_threads(make: Any, runs: int) -> int:
    """The most threads there were while `runs` kickoffs of one crew ran at once."""
    kickoff = AsyncCrew(make(Witness())).kickoff
    await kickoff(inputs={"topic": "warm-up"})
    most = 0
    done = asyncio.gather(*(kickoff(inputs={"topic": f"{run}"}) for run in range(runs)))
    while not done.done():
        # The event bus has ten of its own, which it starts when it first needs them.
        most = max(most, sum(not thread.name.startswith("CrewAISyncHandler") for thread in threading.enumerate()))
        await asyncio.sleep(0)
    assert [result.raw for result in done.result()] == [f"done {run}" for run in range(runs)]
    return most


async def _cycles_of(kickoff: Any) -> Counter[str]:
    """What of ours only the collector can free after one more run, whose result is dropped."""
    while gc.collect():  # what dies in one collection may free the next
        pass
    gc.disable()
    try:
        await kickoff(inputs={"topic": "last"})
        await asyncio.sleep(0)  # done callbacks let go
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found = Counter(name for thing in gc.garbage if (name := _of_ours(thing)))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    return found


def _of_ours(thing: Any) -> str | None:
    """Its name, if it is an object, a function or a frame of this package, or a part of a run."""
    kind = type(thing)
    if kind.__module__.startswith("fastcrew_async"):
        return kind.__qualname__
    code = getattr(thing, "__code__", None) or getattr(thing, "f_code", None) or getattr(thing, "cr_code", None)
    if isinstance(code, CodeType) and code.co_filename.startswith(OURS):
        return code.co_qualname if hasattr(code, "co_qualname") else code.co_name
    if kind.__name__ in {"Crew", "Agent", "Task", "AgentExecutor", "AgentExecutorState", "CrewOutput", "TaskOutput"}:
        return kind.__name__
    return "coroutine" if inspect.iscoroutine(thing) else None
