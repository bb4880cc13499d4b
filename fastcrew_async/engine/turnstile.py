"""A share of each loop iteration for the engine, and no more.

asyncio runs every ready task before it looks at timers and sockets again, so a thousand engine steps that become ready
together stop the host's own callbacks for as long as all of them take. Each step passes the turnstile of its loop: once
the engine has used its slice of the current iteration, the step waits for a later one. Of equal priority the
oldest run goes first: of a thousand that start together the first is at its model when the last begins, so their waits
overlap their work.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import weakref
from contextvars import ContextVar
from dataclasses import dataclass
from heapq import heappop, heappush
from time import perf_counter

from fastcrew_async.config import settings

Rank = tuple[int, int]
rank: ContextVar[Rank | None] = ContextVar("fastcrew_async_rank", default=None)
"""The place of the current run among all runs: those of a higher priority first, then the oldest. What runs inside a
run has that run's place."""
_next_age = itertools.count().__next__


def new_rank(priority: int = 0) -> Rank:
    """The place of a run that begins now."""
    return -priority, _next_age()


@dataclass(frozen=True)
class TurnstileStats:
    """Seconds of CPU used by engine steps and seconds they waited for their turn, since the loop's first step."""

    steps: int
    used_seconds: float
    waited_seconds: float
    waiting: int


class Turnstile:
    """The turnstile of one event loop."""

    __slots__ = (
        "__weakref__",
        "_admitted",
        "_armed",
        "_arrivals",
        "_inside",
        "_places",
        "_spent",
        "_step",
        "_waiting",
        "loop",
        "slice",
        "steps",
        "used",
        "waited",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, slice_seconds: float) -> None:
        self.loop = loop
        self.slice = slice_seconds
        self._spent = 0.0
        self._step = slice_seconds  # running mean of what one step takes
        self._armed = False
        self._admitted = False
        self._inside = False
        self._places: set[object] = set()  # of those who wait, and of those who are let through and have yet to go
        self._waiting: list[tuple[Rank, int, asyncio.Future[None]]] = []  # a heap: rank of the run, arrival
        self._arrivals = itertools.count()
        self.steps = 0
        self.used = 0.0
        self.waited = 0.0

    @property
    def closed(self) -> bool:
        """Whether the next step has to wait."""
        if not self.slice or self._inside:
            return False
        return self._spent >= self.slice or bool(self._places)

    def enter(self) -> float:
        """Begin a step that may contain others, whose first needs no turn of its own; give the result to `leave`."""
        self._inside = True
        return perf_counter() - self.used

    def is_place(self, future: object) -> bool:
        """Whether who waited for `future` waited for a turn."""
        return future in self._places

    def leave(self, entered: float) -> None:
        """Account for the step that began at `entered`, without those inside it, which have done so themselves."""
        self.spend(max(perf_counter() - self.used - entered, 0.0))

    def spend(self, seconds: float) -> None:
        """Account for a step that took `seconds`."""
        self.steps += 1
        self._inside = False
        self.used += seconds
        self._spent += seconds
        self._step += (seconds - self._step) * 0.05
        if 0 < self.slice <= self._spent and not self._armed:
            self._arm()  # only now: to be told of every iteration would cost an iteration more for each

    async def turn(self) -> None:
        """Wait for a place in a coming iteration."""
        since = perf_counter()
        place = rank.get() or new_rank(), next(self._arrivals)
        try:
            while True:
                future: asyncio.Future[None] = self.loop.create_future()
                heappush(self._waiting, (*place, future))
                if not self._armed:
                    self._arm()
                self._places.add(future)
                try:
                    await future
                finally:
                    self._places.discard(future)
                # How many are admitted goes by the mean of all steps; those that ran first may have been longer ones.
                if self._spent < self.slice:
                    return
        finally:
            self.waited += perf_counter() - since

    def stats(self) -> TurnstileStats:
        """Time used and time waited so far."""
        return TurnstileStats(self.steps, self.used, self.waited, len(self._waiting))

    def _arm(self) -> None:
        self._armed = True
        self.loop.call_soon(self._iteration)

    def _iteration(self) -> None:
        """Comes after the steps that the one before has admitted: what they have spent is of this iteration."""
        self._armed = False
        if not self._admitted:
            self._begin()
        self._admitted = bool(self._waiting)
        if self._waiting:
            self.loop.call_soon(self._begin)  # of the next iteration, ahead of those who are woken here
        places = max(1, int(self.slice / self._step)) if self._step > 0 else 1
        while places and self._waiting:
            future = heappop(self._waiting)[2]
            if not future.done():  # a cancelled step gives its place away
                future.set_result(None)
                places -= 1
        if self._waiting or self._spent >= self.slice:
            self._arm()

    def _begin(self) -> None:
        self._spent = 0.0


_lock = threading.Lock()
_turnstiles: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Turnstile] = weakref.WeakKeyDictionary()


def turnstile() -> Turnstile:
    """The turnstile of the running loop."""
    loop = asyncio.get_running_loop()
    found = _turnstiles.get(loop)
    if found is None:
        with _lock:
            found = _turnstiles.setdefault(loop, Turnstile(loop, settings().slice_seconds))
    return found


def all_stats() -> list[TurnstileStats]:
    """The stats of the turnstiles of all loops that there are."""
    with _lock:
        found = list(_turnstiles.values())
    return [one.stats() for one in found]
