"""Waiting for a tool for so long and no longer: what has not ended by then is left behind, and never waited for."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, TypeVar

from fastcrew_async import deadlines, workers
from fastcrew_async.engine.drivers import abandonable, seen
from fastcrew_async.errors import ToolTimeoutError

T = TypeVar("T")

_left: set[asyncio.Future[Any]] = set()


def too_late(name: str, seconds: float) -> ToolTimeoutError:
    """The error of a tool that did not end in time."""
    return ToolTimeoutError(f"the tool '{name}' did not answer within {seconds:g} seconds")


async def within(name: str, seconds: float, work: Awaitable[T]) -> T:
    """What `work` gives within `seconds`; it is cancelled then, and by a cancellation of this.

    Raises:
        ToolTimeoutError: it had not ended.
    """
    with deadlines.within(seconds), abandonable() as abandoned:
        task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        abandoned.set()
        _leave(task)
        await asyncio.wait({task}, timeout=seconds)  # for what it does to end, as without a limit
        raise
    if task.done():
        return task.result()
    abandoned.set()
    _leave(task)
    raise too_late(name, seconds)


def _leave(task: asyncio.Future[Any]) -> None:
    task.cancel()
    _left.add(task)
    task.add_done_callback(_left.discard)
    task.add_done_callback(seen)


def within_in_place(name: str, seconds: float, call: Callable[[], T]) -> T:
    """What `call` gives within `seconds`, on a thread of its own with a copy of the context.

    Raises:
        ToolTimeoutError: it had not ended.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:
            outcome.set_exception(error)

    workers.check()
    with deadlines.within(seconds), abandonable() as abandoned:
        context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(run,), name="fastcrew-tool", daemon=True).start()
    try:
        return outcome.result(seconds)
    except FutureTimeoutError:  # not the builtin before Python 3.11
        if outcome.done():
            return outcome.result()  # its own
        abandoned.set()
        released = workers.pool().hold(seconds)
        outcome.add_done_callback(lambda _: released())
        raise too_late(name, seconds) from None
