"""Crews, agents and tool calls inside each other: their limit, and stacks that do not grow with it.

A tool may kick a crew off whose agents call tools, and so on. Each crew, each tool call, and each agent that works
alone or by delegation is a frame on the heap (:class:`fastcrew_async._native.CallFrame`), found through a context
variable. The body of a deeper tool runs in a task of its own, or in place every few levels on a thread of its own, so
that neither the interpreter's recursion limit nor the native stack sees more than a few of them.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from crewai.tools.tool_failure import ToolExecutionFailedError, ToolFailure, ToolFailureRecord

from fastcrew_async._native import CallFrame
from fastcrew_async.calls import innermost
from fastcrew_async.config import settings
from fastcrew_async.engine import events
from fastcrew_async.engine.drivers import seen
from fastcrew_async.errors import ToolRecursionError

T = TypeVar("T")

_TASK_FROM = 3
"""The depth from which on an async tool has a task of its own; the tools of an outermost crew are at 2."""
_THREAD_EVERY = 8
"""In place, how many levels one thread's stack carries; a crew and its tool are some hundred of the thousand frames
that Python allows."""


class ToolCallRefused(ToolRecursionError, ToolExecutionFailedError):
    """The error in the form that CrewAI takes for a deliberate stop: it is not told to the model, and not retried."""

    def __init__(self, message: str, name: str, arguments: Any) -> None:
        failure = ToolFailure(message=message)
        ToolExecutionFailedError.__init__(self, ToolFailureRecord(tool_name=name, failure=failure, tool_args=arguments))
        self.args = (message,)


class entered:
    """``with entered("tool", name, arguments) as frame``: a call is under way.

    Raises:
        ToolCallRefused: it is nested deeper than the setting ``max_depth``, or, with ``refuse_repeats``, a call of the
            same name and arguments is further up.
    """

    __slots__ = ("_arguments", "_frame", "_kind", "_name", "_token")

    def __init__(self, kind: str, name: str, arguments: Any = None) -> None:
        self._kind = kind
        self._name = name
        self._arguments = arguments

    def __enter__(self) -> CallFrame:
        limits = settings()
        same = None
        if limits.refuse_repeats and self._arguments is not None:
            same = json.dumps(self._arguments, sort_keys=True, default=str)
        try:
            frame = CallFrame(innermost.get(), self._kind, self._name, same, limits.max_depth)
        except ToolRecursionError as error:
            raise ToolCallRefused(str(error), self._name, self._arguments) from None
        self._frame = frame
        self._token = innermost.set(frame)
        return frame

    def __exit__(self, *_: object) -> None:
        self._frame.end()
        with suppress(ValueError):  # where the collector closes a forgotten coroutine, in any context
            innermost.reset(self._token)


class working:
    """``with working(role)``: an agent is at work; a call of its own where it is not the crew that has called it."""

    __slots__ = ("_entered",)

    def __init__(self, role: str) -> None:
        outer = innermost.get()
        of_crew = outer is not None and outer.kind == "crew"
        self._entered = None if of_crew else entered("agent", role)

    def __enter__(self) -> None:
        if self._entered is not None:
            self._entered.__enter__()

    def __exit__(self, *_: object) -> None:
        if self._entered is not None:
            self._entered.__exit__()


async def awaited(frame: CallFrame, work: Coroutine[Any, Any, T], *, apart: bool = False) -> T:
    """The result of a tool's body; a deep one gets a task of its own, so the chain of awaits stays short.

    With `apart` any does: what it sets in the context stays there.
    """
    if frame.depth < _TASK_FROM and not apart:
        return await work
    task = asyncio.create_task(_deeper(work))
    ended = asyncio.get_running_loop().create_future()
    task.add_done_callback(lambda _: None if ended.done() else ended.set_result(None))
    task.add_done_callback(lambda _: work.close())  # of one that was cancelled before its start
    try:
        # Not the task itself: a cancellation would go down the whole chain of tasks on one native stack.
        await ended
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait({task})
        seen(task)
        raise
    return task.result()


async def _deeper(work: Coroutine[Any, Any, T]) -> T:
    events.shorten_scope()
    return await work


def called(frame: CallFrame, work: Callable[[], T]) -> T:
    """The result of a tool's body, in a copy of the context; every few levels on a thread, and a stack, of its own."""
    context = contextvars.copy_context()
    if frame.depth % _THREAD_EVERY:
        return context.run(shortened, work)
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(context.run(shortened, work))
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, name="fastcrew-nested", daemon=True).start()
    return outcome.result()


def shortened(work: Callable[[], T]) -> T:
    """The result of a tool's body, with what it needs of the open event scopes."""
    events.shorten_scope()
    return work()
