"""The runtime of a process, in plain asyncio."""

from __future__ import annotations

import math
import os
import threading
from typing import Any, TypeVar
from weakref import WeakSet

from fastcrew_async import core_log
from fastcrew_async._fallback.bridge import Awaitable, Operation
from fastcrew_async.errors import ForkedProcessError, RuntimeClosedError

Scalar = TypeVar("Scalar", None, bool, int, float, str, bytes)

_CLOSED = "the runtime is closed; fastcrew_async.runtime.get() makes a new one"


class Runtime:
    """The runtime of this process. ``fastcrew_async.runtime.get()`` is the usual way to it.

    Args:
        threads: what the compiled core takes; this one needs no threads of its own.

    Raises:
        ValueError: ``threads`` is less than 1.
    """

    def __init__(self, threads: int = 1) -> None:
        if threads < 1:
            raise ValueError(f"threads must be at least 1, not {threads}")
        self._pid = os.getpid()
        self._closed = False
        # Weak: what nobody awaits any more, because its loop has gone, is not in flight.
        self._operations: WeakSet[Operation[Any]] = WeakSet()
        self._changed = threading.Condition()
        core_log.runtime.debug("started in process %d", self._pid)

    @property
    def pid(self) -> int:
        """The process that this runtime belongs to."""
        return self._pid

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def in_flight(self) -> int:
        """How many operations have begun and not ended."""
        return len(self._operations)

    def sleep(self, seconds: float) -> Awaitable[None]:
        """Sleep on the loop's clock."""
        _check_duration("seconds", seconds)

        async def start() -> None:
            operation: Operation[None] = Operation(self)
            timer = operation.loop.call_later(seconds, operation.complete)
            try:
                await operation.wait()
            finally:
                timer.cancel()

        return Awaitable(start)

    def echo(self, value: Scalar) -> Awaitable[Scalar]:
        """Answer ``value`` through the loop."""
        _check_scalar(value)

        async def start() -> Scalar:
            operation: Operation[Scalar] = Operation(self)
            operation.complete(value)
            return await operation.wait()

        return Awaitable(start)

    def ready(self, value: Scalar) -> Awaitable[Scalar]:
        """Answer ``value`` at once."""
        _check_scalar(value)

        async def start() -> Scalar:
            return value

        return Awaitable(start)

    def close(self, timeout: float = 5.0) -> bool:
        """Close the runtime: refuse new work, wait at most ``timeout`` seconds for what is in flight, then fail it with
        ``RuntimeClosedError``. Blocks the calling thread. Says whether all work had ended in time."""
        self.check_process("runtime")
        _check_duration("timeout", timeout)
        with self._changed:
            first, self._closed = not self._closed, True
            drained = self._changed.wait_for(lambda: not self._operations, timeout)
            left = list(self._operations)
        if first and left:
            core_log.runtime.info("closed after %ss with operations in flight, which fail: %d", timeout, len(left))
        elif first:
            core_log.runtime.debug("closed")
        for operation in left:
            operation.complete(error=RuntimeClosedError(_CLOSED))
        return drained

    def check_process(self, what: str) -> None:
        """Raise ``ForkedProcessError`` in any process but the one that made this runtime."""
        current = os.getpid()
        if current != self._pid:
            raise ForkedProcessError(
                f"this {what} belongs to process {self._pid}, and this is process {current}: "
                "make a new one after the fork"
            )

    def enter(self, operation: Operation[Any]) -> None:
        """Count an operation as in flight, until :meth:`leave`."""
        self.check_process("runtime")
        with self._changed:
            if self._closed:
                raise RuntimeClosedError(_CLOSED)
            self._operations.add(operation)

    def leave(self, operation: Operation[Any]) -> None:
        with self._changed:
            self._operations.discard(operation)
            if self._closed and not self._operations:
                self._changed.notify_all()


def _check_duration(name: str, seconds: float) -> None:
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{name} must be a number from 0 on, not {seconds}")


def _check_scalar(value: object) -> None:
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise OverflowError(f"{value} does not fit 64 bits")
    if value is not None and not isinstance(value, (bool, int, float, str, bytes)):
        raise TypeError(f"expected None, bool, int, float, str or bytes, not {type(value).__name__}")
