"""What a run waits for, and what it makes others wait for: 8, 16, 23."""

from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from crewai import Crew
from crewai.events.event_bus import crewai_event_bus
from crewai.events.types.llm_events import LLMCallCompletedEvent
from crewai.events.types.task_events import TaskCompletedEvent
from crewai.utilities import rpm_controller

from fastcrew_async.engine import rate

from ..cases.building import solo
from ..models import final
from ..recorder import Recorder
from ..ways import Way
from .roads import Kickoff, handling, ours, run, stock


def answering() -> Crew:
    return solo(Recorder(), lambda messages: final("done"))


# 8
class Clock:
    """Time that passes only where somebody sleeps; notes the sleeps, and whether a limiter was locked meanwhile."""

    def __init__(self, crew: Crew) -> None:
        self.now = 1000.0
        self.sleeps: list[float] = []
        self.locked: list[bool] = []
        self._crew = crew

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.locked.append(self._crew.agents[0]._rpm_controller._lock.locked())
        self.now += seconds

    async def asleep(self, seconds: float) -> None:
        self.sleep(seconds)


async def _nine_kickoffs(kickoff: Kickoff, crew: Crew, clock: Clock, pause: float) -> None:
    for _ in range(9):
        await kickoff(crew, {"topic": "tea"})
        clock.now += pause


def _limited() -> Crew:
    return solo(Recorder(), lambda messages: final("done"), crew_options={"max_rpm": 3})


@stock()
@pytest.mark.parametrize("pause", [0.0, 100.0], ids=["at once", "minutes apart"])
def test_stock_sleeps_regardless_of_the_time_with_its_limiter_locked(way: Way, pause: float) -> None:
    crew = _limited()
    clock = Clock(crew)
    with mock.patch.object(rpm_controller, "time", clock):
        run(way, lambda kickoff: _nine_kickoffs(kickoff, crew, clock, pause))
    assert clock.sleeps == [60, 60]
    assert clock.locked == [True, True]


@ours()
@pytest.mark.parametrize(("pause", "sleeps"), [(0.0, 2), (5.0, 2), (100.0, 0)])
def test_the_limit_is_a_rolling_minute(way: Way, pause: float, sleeps: int) -> None:
    crew = _limited()
    clock = Clock(crew)
    rate._minutes.of(crew._rpm_controller)._clock = lambda: clock.now
    with (
        mock.patch.object(rate, "time", clock),
        mock.patch.object(rate, "asyncio", SimpleNamespace(sleep=clock.asleep)),
    ):
        run(way, lambda kickoff: _nine_kickoffs(kickoff, crew, clock, pause))
    assert len(clock.sleeps) == sleeps
    assert sum(clock.sleeps) == pytest.approx(sleeps * max(0.0, 60 - 3 * pause))
    assert not any(clock.locked)


# 16
async def _beside_a_slow_handler(kickoff: Kickoff) -> bool:
    """Whether a kickoff could end while a handler of another one was still at work."""
    entered, release = threading.Event(), threading.Event()

    def handler(source: Any, event: TaskCompletedEvent) -> None:
        if source.description.endswith("slow"):
            entered.set()
            release.wait(0.5)

    with handling(handler, TaskCompletedEvent):
        first = asyncio.create_task(kickoff(answering(), {"topic": "slow"}))
        while not entered.is_set():
            await asyncio.sleep(0.001)
        await kickoff(answering(), {"topic": "quick"})
        handled_first = not first.done()
        release.set()
        await first
    return handled_first


@stock("akickoff")  # on the loop it stalls all; the others only their own thread
def test_stock_waits_for_the_handlers_of_others(way: Way) -> None:
    assert run(way, _beside_a_slow_handler) is False


@ours()
def test_a_kickoff_waits_for_its_own_handlers_only(way: Way) -> None:
    assert run(way, _beside_a_slow_handler) is True


# 23
async def _most_usage_handlers(kickoff: Kickoff) -> int:
    """How many handlers of one event type ten kickoffs at once add to the bus."""
    most = 0
    usual = len(crewai_event_bus._sync_handlers.get(LLMCallCompletedEvent, ()))

    def answer(messages: Any) -> str:
        nonlocal most
        time.sleep(0.1)
        most = max(most, len(crewai_event_bus._sync_handlers.get(LLMCallCompletedEvent, ())) - usual)
        return final("done")

    await asyncio.gather(*(kickoff(solo(Recorder(), answer), {"topic": "tea"}) for _ in range(10)))
    return most


@stock()
def test_stock_adds_a_handler_for_each_running_agent(way: Way) -> None:
    assert run(way, _most_usage_handlers) > 1


@ours()
def test_running_agents_add_no_handlers(way: Way) -> None:
    assert run(way, _most_usage_handlers) == 0
