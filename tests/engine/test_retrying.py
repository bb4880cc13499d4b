from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from crewai.events import TaskCompletedEvent, TaskFailedEvent, TaskStartedEvent, crewai_event_bus

from fastcrew_async import AsyncCrew, Retry
from tests import crews
from tests.crews import storage

__all__ = ["storage"]

AT_ONCE = Retry(backoff=0.001)
TEA = {"topic": "tea"}


def failing(times: int, error: Exception) -> Any:
    """A script that fails so many times, and then answers; `asked` counts its calls."""
    calls = itertools.count(1)

    def script(request: Any) -> str:
        script.asked = next(calls)  # type: ignore[attr-defined]
        if script.asked <= times:  # type: ignore[attr-defined]
            raise error
        return "done"

    script.asked = 0  # type: ignore[attr-defined]
    return script


def crew_of(script: Any, tasks: int = 1, **fields: Any) -> Any:
    return crews.crew(script, tasks=tasks, max_retry_limit=0, **fields)


@pytest.mark.parametrize("order", ["listed", "graph"])
async def test_a_task_is_tried_again(order: Any) -> None:
    script = failing(2, ConnectionError("gone"))
    output = await AsyncCrew(crew_of(script), order=order, retry=AT_ONCE).kickoff(TEA)
    assert (output.raw, script.asked) == ("done", 3)


async def test_so_is_one_that_runs_beside_others() -> None:
    script = failing(1, ConnectionError("gone"))
    crew = crew_of(script)
    crew.tasks[0].async_execution = True
    assert (await AsyncCrew(crew, retry=AT_ONCE).kickoff(TEA)).raw == "done"
    assert script.asked == 2


async def test_without_a_policy_the_first_error_ends_the_run() -> None:
    script = failing(1, ConnectionError("gone"))
    with pytest.raises(ConnectionError, match="gone"):
        await AsyncCrew(crew_of(script)).kickoff(TEA)
    assert script.asked == 1


async def test_an_error_that_does_not_pass_ends_the_run() -> None:
    script = failing(1, ValueError("wrong"))
    with pytest.raises(ValueError, match="wrong"):
        await AsyncCrew(crew_of(script), retry=AT_ONCE).kickoff(TEA)
    assert script.asked == 1


async def test_the_last_attempt_gives_its_own_error() -> None:
    script = failing(9, ConnectionError("gone"))
    with pytest.raises(ConnectionError, match="gone"):
        await AsyncCrew(crew_of(script), retry=AT_ONCE).kickoff(TEA)
    assert script.asked == 3


async def test_the_budget_is_that_of_the_run() -> None:
    script = failing(99, ConnectionError("gone"))
    crew = AsyncCrew(crew_of(script, tasks=3), retry=Retry(attempts=9, backoff=0.001, budget=4))
    for asked in (5, 10):  # each run has one of its own
        with pytest.raises(ConnectionError):
            await crew.kickoff(TEA)
        assert script.asked == asked


async def test_each_attempt_has_its_own_events() -> None:
    seen: list[str] = []
    with crewai_event_bus.scoped_handlers():
        for kind in (TaskStartedEvent, TaskFailedEvent, TaskCompletedEvent):
            crewai_event_bus.on(kind)(lambda source, event: seen.append(event.type))
        await AsyncCrew(crew_of(failing(1, ConnectionError("gone"))), retry=AT_ONCE).kickoff(TEA)
        await asyncio.to_thread(crewai_event_bus.flush)
    assert seen == ["task_started", "task_failed", "task_started", "task_completed"]


async def test_a_cancel_ends_the_wait() -> None:
    script = failing(9, ConnectionError("gone"))
    run = AsyncCrew(crew_of(script), retry=Retry(backoff=60, longest=60)).start(TEA)
    while not script.asked:
        await asyncio.sleep(0.001)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(run, 10)
    assert script.asked == 1


def test_a_policy_of_another_kind_is_refused() -> None:
    with pytest.raises(TypeError, match=r"retry=3 must be a fastcrew_async\.Retry"):
        AsyncCrew(crews.crew(), retry=3)  # type: ignore[arg-type]
