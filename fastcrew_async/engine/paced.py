"""A coroutine that is not ours, such as a model's ``acall``, stepped through the turnstile.

When a hundred answers arrive together, asyncio runs all hundred clients before it looks at anything else. Here each of
their steps waits its turn like a step of the engine.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any, Generic, TypeVar

from fastcrew_async.engine.turnstile import turnstile

T = TypeVar("T")


class Paced(Generic[T]):
    """``await Paced(coroutine)`` gives what ``await coroutine`` gives; what it waits for goes to the loop unchanged."""

    __slots__ = ("_coroutine",)

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, T]:
        gate = turnstile()
        coroutine = self._coroutine
        error: BaseException | None = None
        waits_for: Any = None
        try:
            while True:
                if gate.closed and not gate.is_place(waits_for):
                    try:
                        yield from gate.turn().__await__()
                    except BaseException as cancelled:
                        error = cancelled
                entered = gate.enter()
                try:
                    waits_for = coroutine.send(None) if error is None else coroutine.throw(error)
                except StopIteration as stop:
                    result: T = stop.value
                    return result
                finally:
                    gate.leave(entered)
                    error = None
                try:
                    yield waits_for
                except BaseException as raised:
                    error = raised
        finally:
            coroutine.close()
