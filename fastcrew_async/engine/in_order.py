"""The order in which steps that run beside each other begin.

CrewAI hands each sync step to a thread that has just been made, and such a thread has the interpreter at once and for
a switch interval. So what a start method writes first is in the state before the next one begins, and the event of that
one shows it. Workers that have been waiting for jobs do not get the interpreter at once; here the next step waits for
them instead, and the loop goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any, TypeVar

from fastcrew_async import workers

T = TypeVar("T")
_MOST_S = 0.1  # for which a sync step may wait for a worker before the next step begins without it
_own: ContextVar[Lead | None] = ContextVar("fastcrew_async_lead", default=None)


class Lead:
    """A step's lead over the next one: it is over when the step waits for something, or when its sync code has ended or
    had its share of time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._on_worker = False

    async def run(self, step: Coroutine[Any, Any, T], after: Lead | None) -> T:
        """`step`, in a task of its own, once the lead of the one before it is over."""
        try:
            if after is not None:
                await after._ended
            _own.set(self)
            self._loop.call_soon(self._waits)  # which is called when the step first waits
            return await step
        finally:
            self._end()

    async def run_in_worker(self, call: Callable[[], T]) -> T:
        def told() -> T:
            with contextlib.suppress(RuntimeError):  # the loop has closed since
                self._loop.call_soon_threadsafe(self._loop.call_later, sys.getswitchinterval(), self._end)
            return call()

        self._on_worker = True
        at_most = self._loop.call_later(_MOST_S, self._end)
        try:
            return await workers.pool().run_in("flow", told)
        finally:
            at_most.cancel()
            self._end()

    @property
    def is_open(self) -> bool:
        """Whether the step has neither waited nor gone to a worker yet."""
        return not self._on_worker and not self._ended.done()

    def _waits(self) -> None:
        if not self._on_worker:
            self._end()

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)


async def step_in_worker(call: Callable[[], T]) -> T:
    """``call()`` of a flow's step on a worker; the step that is to begin after that step waits for its first moment."""
    lead = _own.get()
    if lead is not None and lead.is_open:
        return await lead.run_in_worker(call)
    return await workers.pool().run_in("flow", call)


def in_order(steps: list[Coroutine[Any, Any, Any]]) -> list[Coroutine[Any, Any, Any]]:
    """`steps`, each to be run as a task; each begins after the one before it has begun."""
    if len(steps) < 2:
        return steps
    leads = [Lead() for _ in steps]
    return [lead.run(step, after) for step, lead, after in zip(steps, leads, [None, *leads], strict=False)]
