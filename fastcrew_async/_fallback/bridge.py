"""Awaitables that start when they are awaited, and operations that any thread may complete."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from fastcrew_async._fallback.runtime import Runtime

T = TypeVar("T")


class Awaitable(Coroutine[Any, Any, T]):
    """An operation of the core. Await it once; it does nothing until then."""

    def __init__(
        self, start: Callable[[], Coroutine[Any, Any, T]], unused: Callable[[], object] = lambda: None
    ) -> None:
        """``unused`` is called when it ends without having been awaited."""
        self._start: Callable[[], Coroutine[Any, Any, T]] | None = start
        self._unused = unused
        self._steps: Coroutine[Any, Any, T] | None = None
        self._yielded: Any = None

    def __await__(self) -> Generator[Any, Any, T]:
        # A coroutine does here: the interpreter only steps it.
        return self

    def __iter__(self) -> Generator[Any, Any, T]:
        return self

    def __next__(self) -> Any:
        return self.send(None)

    def send(self, value: Any, /) -> Any:
        """One step, as of a coroutine; ``value`` is ignored."""
        if self._steps is None:
            if self._start is None:
                raise RuntimeError("this operation was awaited before: call the method again for a second one")
            start, self._start = self._start, None
            self._steps = start()
        elif self._yielded is not None and not self._yielded.done():
            raise RuntimeError("this operation is being awaited already: call the method again for a second one")
        try:
            self._yielded = self._steps.send(None)
        except BaseException:
            self._steps = self._yielded = None
            raise
        return self._yielded

    def throw(
        self,
        typ: type[BaseException] | BaseException,
        val: BaseException | object = None,
        tb: TracebackType | None = None,
        /,
    ) -> Any:
        """Abort the work, then raise the exception given."""
        self.close()
        if isinstance(val, BaseException):
            exception = val
        elif isinstance(typ, BaseException):
            exception = typ
        elif isinstance(typ, type) and issubclass(typ, BaseException):
            exception = typ() if val is None else typ(val)
        else:
            raise TypeError(f"throw() takes an exception, not {typ!r}")
        raise exception if tb is None else exception.with_traceback(tb)

    def close(self) -> None:
        """Abort the work."""
        start, steps = self._start, self._steps
        self._start = self._steps = self._yielded = None
        if start is not None:
            self._unused()
        if steps is not None:
            steps.close()

    def __del__(self) -> None:
        self.close()


class Operation(Generic[T]):
    """One operation in flight: a future of the running loop, which any thread may complete.

    Raises:
        RuntimeClosedError: the runtime is closed.
        ForkedProcessError: the runtime belongs to another process.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.loop = asyncio.get_running_loop()
        # It carries the error as a value: a future that nobody asks for its exception would report it.
        self._future: asyncio.Future[tuple[T | None, BaseException | None]] = self.loop.create_future()
        runtime.enter(self)

    def complete(self, value: T | None = None, error: BaseException | None = None) -> None:
        """Give the answer; a loop that has closed is left in peace."""
        self._runtime.leave(self)
        try:
            self.loop.call_soon_threadsafe(self._resolve, value, error)
        except RuntimeError:
            if not self.loop.is_closed():
                raise

    def _resolve(self, value: T | None, error: BaseException | None) -> None:
        if not self._future.done():
            self._future.set_result((value, error))

    async def wait(self) -> T:
        """The answer."""
        try:
            value, error = await self._future
        finally:
            self._runtime.leave(self)
        if error is not None:
            raise error
        return value  # type: ignore[return-value]
