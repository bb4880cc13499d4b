"""Callbacks that are async, or that fail: 2, 3, 21, 22."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from crewai.events.types.crew_events import CrewKickoffCompletedEvent, CrewKickoffFailedEvent

from ..cases.building import solo
from ..cases.tools import TEXT
from ..models import final
from ..recorder import Recorder
from ..tools import ping
from ..ways import Way
from .roads import INPUTS, ON_THE_LOOP, Kickoff, handling, once, ours, run, stock


# 2, 3
async def _async_before(inputs: dict[str, Any]) -> dict[str, Any]:
    await asyncio.sleep(0)
    return {"topic": "changed"}


async def _async_after(result: Any) -> Any:
    await asyncio.sleep(0)
    return result.model_copy(update={"raw": "changed"})


def _with_callbacks(**callbacks: Any) -> Any:
    return solo(Recorder(), [final("x")], crew_options=callbacks)


@stock()
def test_stock_does_not_await_before_kickoff(way: Way) -> None:
    crew = _with_callbacks(before_kickoff_callbacks=[_async_before])
    with pytest.warns(RuntimeWarning, match="never awaited"):
        _fails(way, crew)


def _fails(way: Way, crew: Any) -> None:
    with pytest.raises(ValueError, match="validation error"):
        once(way, crew)
    gc.collect()  # what was never awaited says so now


@ours()
def test_before_kickoff_is_awaited(way: Way) -> None:
    crew = _with_callbacks(before_kickoff_callbacks=[_async_before])
    once(way, crew)
    assert crew.tasks[0].description == "Job 0 about changed"


@stock()
def test_stock_does_not_await_after_kickoff(way: Way) -> None:
    unawaited = once(way, _with_callbacks(after_kickoff_callbacks=[_async_after]))
    assert asyncio.iscoroutine(unawaited)
    unawaited.close()


@ours()
def test_after_kickoff_is_awaited(way: Way) -> None:
    assert once(way, _with_callbacks(after_kickoff_callbacks=[_async_after])).raw == "changed"


# 21
async def _steps_on_the_callers_loop(kickoff: Kickoff) -> list[bool]:
    """For each call of an async step callback: whether it ran on the loop of its caller."""
    calls: list[bool] = []
    caller = asyncio.get_running_loop()

    async def step(value: Any) -> None:
        calls.append(asyncio.get_running_loop() is caller)

    recorder = Recorder()
    await kickoff(solo(recorder, TEXT, tools=[ping(recorder)], step_callback=step), INPUTS)
    return calls


@stock()
def test_stock_runs_an_async_step_callback_on_a_foreign_loop(way: Way) -> None:
    assert run(way, _steps_on_the_callers_loop) == [False, False]


@ours(*ON_THE_LOOP)
def test_an_async_step_callback_runs_on_the_callers_loop(way: Way) -> None:
    assert run(way, _steps_on_the_callers_loop) == [True, True]


@ours("installed kickoff")
def test_an_async_step_callback_runs_to_its_end_without_a_loop(way: Way) -> None:
    assert run(way, _steps_on_the_callers_loop) == [False, False]


# 22
def _ends_when_after_kickoff_fails(way: Way) -> list[str]:
    seen: list[str] = []
    crew = _with_callbacks(after_kickoff_callbacks=[lambda result: 1 / 0])
    kinds = (CrewKickoffCompletedEvent, CrewKickoffFailedEvent)
    with handling(lambda source, event: seen.append(event.type), *kinds), pytest.raises(ZeroDivisionError):
        once(way, crew)
    return sorted(seen)


@stock()
def test_stock_ends_twice_when_after_kickoff_raises(way: Way) -> None:
    assert _ends_when_after_kickoff_fails(way) == ["crew_kickoff_completed", "crew_kickoff_failed"]


@ours()
def test_a_kickoff_ends_once(way: Way) -> None:
    assert _ends_when_after_kickoff_fails(way) == ["crew_kickoff_completed"]
