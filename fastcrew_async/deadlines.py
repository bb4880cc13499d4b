"""The nearest of the deadlines that code runs under: its run's, those of the runs around it, its task's, its tool's."""

from __future__ import annotations

import contextvars
from contextlib import suppress
from time import monotonic

_nearest: contextvars.ContextVar[float | None] = contextvars.ContextVar("fastcrew_async_deadline", default=None)


def time_left() -> float | None:
    """The seconds until the nearest deadline around this code, 0 past it; None where there is no deadline.

    The deadlines are the ``timeout`` of a kickoff and the ``max_execution_time`` of an agent, those around an enclosing
    tool call among them. It goes with the context variables into async tools and the threads of sync ones, which cannot
    be stopped from outside: give it to what they wait for, as in ``requests.get(url, timeout=time_left())``.
    """
    nearest = _nearest.get()
    return None if nearest is None else max(nearest - monotonic(), 0.0)


class within:
    """``with within(seconds):`` what runs inside is to end in that time; an earlier deadline around it stays.

    It ends nothing by itself.
    """

    __slots__ = ("_seconds", "_token")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        around = _nearest.get()
        own = monotonic() + self._seconds
        self._token = _nearest.set(own if around is None else min(own, around))

    def __exit__(self, *_: object) -> None:
        with suppress(ValueError):  # where the collector closes a forgotten coroutine, in any context
            _nearest.reset(self._token)
