"""Waiting for the limits of the process: on any number of event loops and threads.

The core (:class:`fastcrew_async._native.Limiter`) decides; here are the clock, the timers and the ways to be woken.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from types import MappingProxyType
from typing import Any

from fastcrew_async import limits as public
from fastcrew_async import rate_headers
from fastcrew_async._native import Limiter

Turn = tuple[list[int], float | None]
Rank = tuple[int, int]

_POLL = 0.25  # seconds after which a thread that waits looks by itself
_MOST = 2**62


class Permit:
    """Leave to go on, until :meth:`end`."""

    __slots__ = ("_permits", "keys", "open", "ticket", "tokens")

    def __init__(self, permits: Permits, ticket: int, keys: Sequence[str], tokens: int) -> None:
        self._permits = permits
        self.ticket = ticket
        self.keys = keys
        self.tokens = tokens
        self.open = True

    def end(self, tokens: int | None = None) -> None:
        """It is over, and took so many tokens; as many as reserved where that is not known."""
        if self.open:
            self.open = False
            self._permits.release(self.ticket, tokens)

    def forget(self) -> None:
        """The same from wherever the collector happens to run, soon."""
        if self.open:
            self.open = False
            self._permits.forget(self.ticket)


held: ContextVar[tuple[Permit, ...]] = ContextVar("fastcrew_async_permits", default=())
"""The permits inside of which this runs: what is asked for inside needs none of the same key."""


def needed(keys: Sequence[str]) -> list[str]:
    """Those of `keys` that are not held already."""
    around = held.get()
    return [key for key in keys if not any(permit.open and key in permit.keys for permit in around)]


class _OnLoop:
    """Waits on an event loop."""

    __slots__ = ("_future", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._future: asyncio.Future[None] = loop.create_future()

    async def wait(self) -> None:
        await self._future

    def wake(self) -> bool:
        """Whether there is still somebody to wake."""
        if asyncio._get_running_loop() is self._loop:
            self._resolve()
            return True
        try:
            self._loop.call_soon_threadsafe(self._resolve)
        except RuntimeError:  # the loop has closed
            return False
        return True

    def _resolve(self) -> None:
        if not self._future.done():
            self._future.set_result(None)


class _OnThread:
    """Waits in place."""

    __slots__ = ("event",)

    def __init__(self) -> None:
        self.event = threading.Event()

    def wake(self) -> bool:
        self.event.set()
        return True


class _Loop:
    """An event loop on which somebody waits, and its timer."""

    __slots__ = ("loop", "timer", "waiting", "when")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.waiting = 0
        self.when = float("inf")
        self.timer: asyncio.TimerHandle | None = None


class Permits:
    """The permits of this process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._limiter = Limiter()
        self._tickets = itertools.count(1)
        self._waiters: dict[int, _OnLoop | _OnThread] = {}
        self._loops: dict[int, _Loop] = {}
        self._left: deque[Callable[[], None]] = deque()  # by the collector, to be done soon
        self.kinds: frozenset[str] = frozenset()
        self.rules: frozenset[str] = frozenset()
        self.counts_tokens = False
        self.learns = False
        self.refused: Counter[str] = Counter()
        self.limits: public.Limits | None = None
        self.tools: Mapping[str, int] = {}

    def configure(self, limits: public.Limits | None, tools: Mapping[str, int] = MappingProxyType({})) -> None:
        """Put other limits in force, and how many calls of single `tools` may run at once."""
        self.limits = limits
        self.tools = tools
        rules = {} if limits is None else limits.rules()
        for name, concurrency in tools.items():
            given = rules.get(f"tool:{name}") or rules.get("tool") or (None, None, None, 60.0)
            rules[f"tool:{name}"] = (min(concurrency, given[0] or concurrency), *given[1:])
        self.rules = frozenset(rules)
        self.kinds = frozenset(key.partition(":")[0] for key in rules)
        self.learns = limits is not None and limits.learn
        self.counts_tokens = self.learns or any(rule[2] is not None for rule in rules.values())
        ageing = 0.0 if limits is None else float(limits.ageing)
        self._follow(self._limiter.configure(rules, ageing, self._clock()))

    async def acquire(self, keys: list[str], tokens: int, rank: Rank) -> Permit:
        """Wait for `tokens` under all of `keys`. Whoever is cancelled meanwhile leaves nothing behind."""
        self._take_back()
        loop = asyncio.get_running_loop()
        ticket = next(self._tickets)
        waiter = self._waiters[ticket] = _OnLoop(loop)
        around = self._loops.get(id(loop))
        if around is None or around.loop is not loop:
            around = self._loops[id(loop)] = _Loop(loop)
        around.waiting += 1
        try:
            self._follow(self._limiter.acquire(ticket, keys, tokens, _bounded(rank), self._clock()))
            await waiter.wait()
        except GeneratorExit:
            # Thrown away by the collector, at any place in anybody's code, perhaps in the midst of the limiter's.
            self._left.append(partial(self._cancel, ticket))
            self._soon()
            raise
        except BaseException:
            self._cancel(ticket)
            raise
        finally:
            around.waiting -= 1
            if not around.waiting:
                self._loops.pop(id(loop), None)
                if around.timer is not None:
                    around.timer.cancel()
        return Permit(self, ticket, keys, tokens)

    def acquire_in_place(
        self, keys: list[str], tokens: int, rank: Rank, stop: Callable[[], bool] | None = None
    ) -> Permit:
        """The same on this thread, which it holds up; `stop` is asked now and then whether to give up.

        Raises:
            TimeoutError: `stop` said so.
        """
        self._take_back()
        ticket = next(self._tickets)
        waiter = self._waiters[ticket] = _OnThread()
        try:
            turn = self._limiter.acquire(ticket, keys, tokens, _bounded(rank), self._clock())
            self._follow(turn)
            while not waiter.event.wait(self._patience(turn[1], stop)):
                if stop is not None and stop():
                    raise TimeoutError("the run was abandoned: it was cancelled, or is past its deadline")
                self._take_back()
                turn = self._limiter.wake(self._clock())
                self._follow(turn)
        except BaseException:
            self._cancel(ticket)
            raise
        return Permit(self, ticket, keys, tokens)

    def release(self, ticket: int, tokens: int | None) -> None:
        """A permit has ended; see :meth:`Permit.end`."""
        self._follow(self._limiter.release(ticket, tokens, self._clock()))

    def forget(self, ticket: int) -> None:
        """The same; see :meth:`Permit.forget`."""
        self._left.append(partial(self.release, ticket, None))
        self._soon()

    def sent(self, ticket: int) -> None:
        """The request of a ticket goes out now: the provider's window begins no earlier."""
        self._limiter.sent(ticket, self._clock())

    def observe(self, key: str, headers: Mapping[str, str], status: int = 200, ticket: int = 0) -> None:
        """Learn from an answer of a provider; see :func:`fastcrew_async.limits.observe`."""
        if status == 429:
            self.refused[key] += 1
            self._follow(self._limiter.pause(key, rate_headers.retry_after(headers), self._clock()))
        if not self.learns:
            return
        for of_tokens, word in rate_headers.limits(headers):
            self._follow(self._limiter.observe(key, ticket, of_tokens, word, self._clock()))

    def stats(self) -> list[Any]:
        """The rows of the core; see :mod:`fastcrew_async.stats`."""
        return self._limiter.stats(self._clock())

    def _patience(self, following: float | None, stop: Callable[[], bool] | None) -> float:
        most = _POLL if stop is None else _POLL / 5
        return most if following is None else min(most, max(following - self._clock(), 0.0))

    def _cancel(self, ticket: int) -> None:
        self._waiters.pop(ticket, None)
        self._follow(self._limiter.cancel(ticket, self._clock()))

    def _soon(self) -> None:
        for around in list(self._loops.values()):
            with suppress(RuntimeError):  # it has closed
                around.loop.call_soon_threadsafe(self._take_back)

    def _take_back(self) -> None:
        while self._left:
            with suppress(IndexError):  # another thread was quicker
                self._left.popleft()()

    def _follow(self, turn: Turn) -> None:
        """Wake those that may go, and see to it that somebody asks again in time."""
        granted, following = turn
        for ticket in granted:
            waiter = self._waiters.pop(ticket, None)
            if waiter is None or not waiter.wake():
                self._cancel(ticket)
        if following is not None:
            here = asyncio._get_running_loop()
            for around in list(self._loops.values()):
                if following >= around.when:
                    continue
                if around.loop is here:
                    self._arm(around, following)
                else:
                    try:
                        around.loop.call_soon_threadsafe(self._arm, around, following)
                    except RuntimeError:  # it has closed
                        self._loops.pop(id(around.loop), None)

    def _arm(self, around: _Loop, when: float) -> None:
        if when >= around.when or not around.waiting:
            return
        if around.timer is not None:
            around.timer.cancel()
        around.when = when
        around.timer = around.loop.call_later(max(when - self._clock(), 0.0), self._tick, around)

    def _tick(self, around: _Loop) -> None:
        around.when = float("inf")
        around.timer = None
        self._follow(self._limiter.wake(self._clock()))


def _bounded(rank: Rank) -> Rank:
    return max(-_MOST, min(rank[0], _MOST)), rank[1]


def _after_fork_in_child() -> None:
    fresh = None
    if public.active is not None:
        fresh = Permits()
        fresh.configure(public.active.limits, public.active.tools)
    public.after_fork(fresh)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
