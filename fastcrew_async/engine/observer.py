"""Runs, tasks, agents, model and tool calls as who observes them sees them; nothing where nobody does."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any, Literal, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
Kind = Literal["run", "task", "agent", "model", "tool"]


class Observer(Protocol):
    """Who is told of each call."""

    def call(self, kind: Kind, name: str) -> AbstractContextManager[None]:
        """Entered as the call begins, and left as it ends, in the context of the call."""


current: Observer | None = None
"""The one observer of this process (:mod:`fastcrew_async.telemetry`)."""


def reported(
    kind: Kind, name: Callable[..., str]
) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], Callable[P, Coroutine[Any, Any, T]]]:
    """Marks a coroutine function as a call of that kind; `name` gets its arguments."""

    def mark(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
            return function(*args, **kwargs) if current is None else within(current, *args, **kwargs)

        async def within(by: Observer, *args: P.args, **kwargs: P.kwargs) -> T:
            with by.call(kind, name(*args, **kwargs)):
                return await function(*args, **kwargs)

        return call

    return mark


def reported_in_place(kind: Kind, name: Callable[..., str]) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """The same for a function."""

    def mark(function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            if current is None:
                return function(*args, **kwargs)
            with current.call(kind, name(*args, **kwargs)):
                return function(*args, **kwargs)

        return call

    return mark
