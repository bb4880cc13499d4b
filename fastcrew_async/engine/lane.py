"""Blocking calls of one kind, and how many of them may be under way at once.

A thread that runs Python holds up the event loop for up to one switch interval (5 ms) at a time, so a hundred of them
make it wait for half a second. What holds the GIL is therefore let through a few at a time; the others wait on the
loop, without a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastcrew_async.engine.branches import Together
from fastcrew_async.engine.drivers import Work, drive_in_place
from fastcrew_async.engine.effects import Blocking, Effect


class Lane:
    """At most `limit` calls at once on each event loop."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._places: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore]
        self._places = weakref.WeakKeyDictionary()

    def places(self) -> asyncio.Semaphore:
        """Those of the running loop."""
        loop = asyncio.get_running_loop()
        found = self._places.get(loop)
        if found is None:
            with self._lock:
                found = self._places.setdefault(loop, asyncio.Semaphore(self.limit))
        return found


class OnLane(Blocking):
    """A blocking call that waits for its place first."""

    __slots__ = ("lane",)

    def __init__(self, lane: Lane, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        super().__init__(function, *args, **kwargs)
        self.lane = lane

    async def aperform(self) -> Any:
        async with self.lane.places():
            return await super().aperform()


class Abreast(Effect):
    """Run `works` beside each other, at most `limit` at once, each in a copy of the context; their results, in order.

    The first error, in that order, is raised; what has not started never starts. In place they run on `threads`, which
    stay, or on threads of their own.
    """

    __slots__ = ("limit", "threads", "works")
    starts = False  # the works may

    def __init__(self, works: Sequence[Work[Any]], limit: int, threads: ThreadPoolExecutor | None = None) -> None:
        self.works = works
        self.limit = limit
        self.threads = threads

    def perform(self) -> list[Any]:
        if len(self.works) == 1:
            return [contextvars.copy_context().run(drive_in_place, self.works[0])]
        own = contextlib.nullcontext(self.threads) if self.threads else ThreadPoolExecutor(self.limit)
        with own as threads:
            futures = [threads.submit(contextvars.copy_context().run, drive_in_place, work) for work in self.works]
            try:
                return [future.result() for future in futures]
            finally:
                for future, work in zip(futures, self.works, strict=True):
                    if future.cancel():
                        work.close()

    async def aperform(self) -> list[Any]:
        return await Together(self.works, self.limit, ()).aperform()


async def performed(effect: Effect) -> Any:
    """A piece of work that is one effect."""
    return await effect
