from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from fastcrew_async.engine.drivers import drive, drive_in_place
from fastcrew_async.engine.lane import Abreast, Lane, OnLane, performed


class Counted:
    """Counts how many calls of it are under way at once."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.lock = threading.Lock()

    def __call__(self, number: int) -> int:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.01)
        with self.lock:
            self.now -= 1
        if number < 0:
            raise ValueError(number)
        return number


def works(call: Counted, numbers: Any, limit: int = 2) -> list[Any]:
    lane = Lane(limit)
    return [performed(OnLane(lane, call, number)) for number in numbers]


async def test_so_many_at_once() -> None:
    call = Counted()
    found = await asyncio.gather(*(drive(work) for work in works(call, range(8))))
    assert found == list(range(8))
    assert call.most == 2


async def test_an_error_gives_the_place_back() -> None:
    call = Counted()
    found = await asyncio.gather(*(drive(work) for work in works(call, [-1, -2, 3], 1)), return_exceptions=True)
    assert [type(result) for result in found] == [ValueError, ValueError, int]


async def test_who_is_cancelled_while_waiting_never_runs() -> None:
    call = Counted()
    first, second = (asyncio.create_task(drive(work)) for work in works(call, [1, 2], 1))
    await asyncio.sleep(0)
    second.cancel()
    assert await asyncio.wait_for(first, 10) == 1
    with pytest.raises(asyncio.CancelledError):
        await second
    assert call.most == 1


def test_in_place_there_is_nobody_to_wait_for() -> None:
    assert [drive_in_place(work) for work in works(Counted(), [1, 2])] == [1, 2]


@pytest.mark.parametrize("shared", [True, False])
def test_abreast_in_place(shared: bool) -> None:
    call = Counted()
    with ThreadPoolExecutor(3) as threads:
        found = drive_in_place(performed(Abreast(works(call, range(6)), 3, threads if shared else None)))
    assert found == list(range(6))
    assert 1 < call.most <= 3


def test_one_alone_needs_no_thread() -> None:
    seen: list[str] = []
    work = performed(OnLane(Lane(1), lambda: seen.append(threading.current_thread().name)))
    drive_in_place(performed(Abreast([work], 3)))
    assert seen == [threading.current_thread().name]


def test_abreast_in_place_raises_the_first_error() -> None:
    with pytest.raises(ValueError, match="-2"):
        drive_in_place(performed(Abreast(works(Counted(), [1, -2, -3]), 3)))


async def test_abreast_on_the_loop() -> None:
    call = Counted()
    assert await drive(performed(Abreast(works(call, range(6), 9), 3))) == list(range(6))
    assert call.most <= 3
