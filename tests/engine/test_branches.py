from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from typing import Any

import pytest

from fastcrew_async.engine.branches import Together
from fastcrew_async.engine.drivers import drive, drive_in_place
from fastcrew_async.engine.effects import Effect

variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)


class Halt(Exception):
    """One of the errors that end the whole."""


class Counted(Effect):
    """Counts how many are inside at once; `meet` of them wait for one another there."""

    def __init__(self, meet: int) -> None:
        self.lock = threading.Lock()
        self.meet = meet
        self.inside = self.most = 0
        self.met = threading.Event()

    def _enter(self, by: int) -> None:
        with self.lock:
            self.inside += by
            self.most = max(self.most, self.inside)
            if self.inside == self.meet:
                self.met.set()

    def perform(self) -> None:
        self._enter(1)
        assert self.met.wait(10)
        self._enter(-1)

    async def aperform(self) -> None:
        self._enter(1)
        while not self.met.is_set():
            await asyncio.sleep(0.001)
        self._enter(-1)


class Value(Effect):
    def __init__(self, value: Any) -> None:
        self.value = value

    def perform(self) -> Any:
        if isinstance(self.value, BaseException):
            raise self.value
        return self.value

    async def aperform(self) -> Any:
        return self.perform()


async def run(on_loop: bool, works: list[Any], limit: int = 8) -> Any:
    async def whole() -> Any:
        return await Together(works, limit, (Halt,))

    return await (drive(whole()) if on_loop else asyncio.to_thread(drive_in_place, whole()))


@pytest.fixture(params=[False, True], ids=["in place", "on the loop"])
def on_loop(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


async def test_results_come_in_the_order_of_the_works(on_loop: bool) -> None:
    last_is_done = Counted(meet=1)

    async def first() -> str:
        while not last_is_done.met.is_set():
            await Pause()
        return "first"

    async def last() -> str:
        await last_is_done
        return "last"

    assert await run(on_loop, [first(), last()]) == ["first", "last"]


class Pause(Effect):
    def perform(self) -> None:
        threading.Event().wait(0.001)

    async def aperform(self) -> None:
        await asyncio.sleep(0.001)


async def test_as_many_as_the_limit_at_once_and_no_more(on_loop: bool) -> None:
    counted = Counted(meet=3)

    async def work(index: int) -> int:
        await counted
        return index

    assert await run(on_loop, [work(index) for index in range(9)], limit=3) == list(range(9))
    assert counted.most == 3


async def test_each_has_a_copy_of_the_context(on_loop: bool) -> None:
    token = variable.set(7)

    async def work(index: int) -> int:
        before = variable.get()
        variable.set(index)
        await Pause()
        return before * 10 + variable.get()

    try:
        assert await run(on_loop, [work(1), work(2)]) == [71, 72]
        assert variable.get() == 7
    finally:
        variable.reset(token)


async def test_an_error_that_stops_lets_nothing_more_start(on_loop: bool) -> None:
    started: list[int] = []

    async def stopping() -> None:
        await Value(Halt("enough"))

    async def work(index: int) -> None:
        started.append(index)
        await Value(None)

    works = [stopping(), *(work(index) for index in range(200))]
    with pytest.raises(Halt, match="enough"):
        await run(on_loop, works, limit=1)
    assert len(started) < 200
    del works
    gc.collect()  # a coroutine that was left unstarted would warn now


async def test_an_error_that_stops_cancels_the_others_on_the_loop() -> None:
    entered = asyncio.Event()
    log: list[str] = []

    class Forever(Effect):
        async def aperform(self) -> None:
            entered.set()
            await asyncio.Event().wait()

    class Entered(Effect):
        async def aperform(self) -> None:
            await entered.wait()

    async def waiting() -> None:
        try:
            await Forever()
        except asyncio.CancelledError:
            log.append("cancelled")
            await Pause()
            log.append("cleaned up")
            raise

    async def stopping() -> None:
        await Entered()
        raise Halt

    with pytest.raises(Halt):
        await asyncio.wait_for(run(True, [waiting(), stopping()]), 10)
    assert log == ["cancelled", "cleaned up"]


async def test_cancelling_the_whole_cancels_each_and_the_unstarted_never_start(until: Any) -> None:
    started: list[int] = []
    cancelled: list[int] = []

    class Forever(Effect):
        async def aperform(self) -> None:
            await asyncio.Event().wait()

    async def work(index: int) -> None:
        started.append(index)
        try:
            await Forever()
        except asyncio.CancelledError:
            cancelled.append(index)
            raise

    task = asyncio.create_task(run(True, [work(index) for index in range(4)], limit=2))
    await until(lambda: len(started) == 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 10)
    assert started == [0, 1]
    assert sorted(cancelled) == [0, 1]
    assert asyncio.all_tasks() == {asyncio.current_task()}
    gc.collect()
