"""What the engine asks of the world.

The engine's coroutines contain decisions only. Whatever waits, blocks or is the user's own code is an effect that the
coroutine yields by ``await``; a driver (:mod:`fastcrew_async.engine.drivers`) performs it and sends the result back.
Every effect knows two ways: ``perform`` in place, ``aperform`` on the running event loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import Future, wait
from typing import Any, ClassVar, Generic, TypeVar

from fastcrew_async import workers

T = TypeVar("T")
_UNSET = object()


class Effect:
    """One request of the engine; awaiting it yields it to the driver."""

    __slots__ = ()

    starts: ClassVar[bool] = True
    """Whether it begins something; an abandoned run performs only what ends or waits for what has begun."""

    def __await__(self) -> Generator[Effect, Any, Any]:
        return (yield self)

    def perform(self) -> Any:
        """Do it in place, on this thread."""
        raise NotImplementedError

    async def aperform(self) -> Any:
        """Do it on the running loop, without blocking it."""
        raise NotImplementedError


class Either(Effect, Generic[T]):
    """Two ways of the same thing that CrewAI, or the user, already has: a sync and an async one."""

    __slots__ = ("asynchronous", "sync")

    def __init__(self, sync: Callable[[], T], asynchronous: Callable[[], Awaitable[T]]) -> None:
        self.sync = sync
        self.asynchronous = asynchronous

    def perform(self) -> T:
        return self.sync()

    async def aperform(self) -> T:
        return await self.asynchronous()


class Blocking(Effect):
    """A sync piece that may block: on a worker thread when a loop is to be kept free.

    Context variables it sets are seen by what follows, as if it had been called in place.
    """

    __slots__ = ("args", "function", "kwargs")

    def __init__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self.function = function
        self.args = args
        self.kwargs = kwargs

    def perform(self) -> Any:
        return self.function(*self.args, **self.kwargs)

    async def aperform(self) -> Any:
        context = contextvars.copy_context()
        try:
            result = await workers.pool().run(context.run, self.function, *self.args, **self.kwargs)
        except Exception:
            _adopt(context)
            raise
        _adopt(context)
        return result


class Closing(Blocking):
    """A sync piece that closes or removes what the run has opened, however it ends."""

    __slots__ = ()

    starts = False


class CallUser(Blocking):
    """A callback of the user: a sync one on a worker thread, an async one awaited on the caller's loop."""

    __slots__ = ()

    def perform(self) -> Any:
        result = self.function(*self.args, **self.kwargs)
        return asyncio.run(_awaited(result)) if inspect.isawaitable(result) else result

    async def aperform(self) -> Any:
        if inspect.iscoroutinefunction(self.function):
            return await self.function(*self.args, **self.kwargs)
        result = await super().aperform()
        return await result if inspect.isawaitable(result) else result


class Handled(Effect):
    """Wait until the handlers of events have run, at most for `timeout` seconds; what they raise was reported by the
    event bus."""

    __slots__ = ("futures", "timeout")

    starts = False

    def __init__(self, *futures: Future[Any] | None, timeout: float | None = None) -> None:
        self.futures = [future for future in futures if future is not None and not future.done()]
        self.timeout = timeout

    def perform(self) -> None:
        wait(self.futures, self.timeout)

    async def aperform(self) -> None:
        if self.futures:
            await asyncio.wait([asyncio.wrap_future(future) for future in self.futures], timeout=self.timeout)


async def _awaited(awaitable: Awaitable[T]) -> T:
    return await awaitable


def _adopt(context: contextvars.Context) -> None:
    """Take over the context variables that a call on another thread has set."""
    for variable, value in context.items():
        if variable.get(_UNSET) is not value:
            variable.set(value)
