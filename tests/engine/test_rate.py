from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from crewai.utilities.rpm_controller import RPMController

from fastcrew_async.engine import rate
from fastcrew_async.engine.rate import RollingMinute, WithinRate


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self.locked: list[bool] = []
        self.minute = RollingMinute(self.__call__)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.locked.append(self.minute._lock.locked())
        self.slept.append(seconds)
        self.now += seconds

    async def asleep(self, seconds: float) -> None:
        self.sleep(seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(rate, "_minutes", type("Table", (), {"of": lambda self, owner: clock.minute})())
    return clock


def test_the_minute_rolls() -> None:
    clock = Clock()
    minute = clock.minute
    assert minute.admit(2) == 0
    clock.now += 30
    assert minute.admit(2) == 0
    assert minute.admit(2) == 30  # until the first one is a minute old
    clock.now += 29.5
    assert minute.admit(2) == 0.5
    clock.now += 0.5
    assert minute.admit(2) == 0
    assert minute.admit(2) == 30  # until the second one is: no burst at the turn of a minute


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_lets_one_go_a_minute(limit: int) -> None:
    clock = Clock()
    assert clock.minute.admit(limit) == 0
    assert clock.minute.admit(limit) == 60
    clock.now += 60
    assert clock.minute.admit(limit) == 0


def test_a_refused_request_does_not_count() -> None:
    clock = Clock()
    assert clock.minute.admit(1) == 0
    for _ in range(5):
        assert clock.minute.admit(1) == 60
    clock.now += 60
    assert clock.minute.admit(1) == 0


def test_clear_starts_a_new_minute() -> None:
    minute = Clock().minute
    minute.admit(1)
    minute.clear()
    assert minute.admit(1) == 0


async def test_both_drivers_wait_with_no_lock_held(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    controller = RPMController(max_rpm=1)
    monkeypatch.setattr(time, "sleep", clock.sleep)
    effect = WithinRate(controller.check_or_wait)
    effect.perform()
    effect.perform()
    monkeypatch.setattr(asyncio, "sleep", clock.asleep)
    await effect.aperform()
    assert clock.slept == [60, 60]
    assert clock.locked == [False, False]
    assert not controller._lock.locked()
    controller.stop_rpm_counter()


async def test_one_who_waits_holds_up_nobody_with_another_limit() -> None:
    waiting = RPMController(max_rpm=1)
    await WithinRate(waiting.check_or_wait).aperform()
    held = asyncio.create_task(WithinRate(waiting.check_or_wait).aperform())
    await asyncio.sleep(0)
    await asyncio.wait_for(WithinRate(RPMController(max_rpm=1).check_or_wait).aperform(), 10)
    await asyncio.wait_for(WithinRate(RPMController(max_rpm=None).check_or_wait).aperform(), 10)
    assert not held.done()
    held.cancel()
    with pytest.raises(asyncio.CancelledError):
        await held


async def test_a_limiter_of_the_users_own_runs_on_a_worker() -> None:
    threads: list[threading.Thread] = []

    def check() -> bool:
        threads.append(threading.current_thread())
        return True

    await WithinRate(check).aperform()
    WithinRate(check).perform()
    assert threads[0] is not threading.main_thread()
    assert threads[1] is threading.main_thread()


async def test_a_subclass_with_a_check_of_its_own_is_called() -> None:
    class Own(RPMController):
        def check_or_wait(self) -> bool:
            calls.append("check")
            return True

    calls: list[str] = []
    own: Any = Own(max_rpm=1)
    for _ in range(3):
        await WithinRate(own.check_or_wait).aperform()
    assert calls == ["check"] * 3


async def test_a_wait_that_was_replaced_is_used_and_starts_a_new_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[bool] = []
    monkeypatch.setattr(
        RPMController,
        "_wait_for_next_minute",
        lambda self: waits.append(threading.current_thread() is threading.main_thread()),
    )
    controller = RPMController(max_rpm=1)
    for _ in range(2):
        await WithinRate(controller.check_or_wait).aperform()
    WithinRate(controller.check_or_wait).perform()
    assert waits == [False, True]
