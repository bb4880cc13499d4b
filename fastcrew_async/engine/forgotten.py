"""Runs whose event loop was closed while they were under way.

The collector would end their coroutines one by one, in any order and any context, so that neither CrewAI nor the engine
could put back what they put back at their ends, context variables above all. So tasks that drive runs are held here,
and those of closed loops are ended as a whole, from the inside out, each in its own context: when another loop begins
to drive something, or at exit.
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import gc
import os
import sys
import threading
from typing import Any

_lock = threading.Lock()
_held: dict[asyncio.AbstractEventLoop, set[asyncio.Task[Any]]] = {}


class held:
    """The current task is held while it is inside."""

    __slots__ = ("_loop", "_task")
    _task: asyncio.Task[Any] | None

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def __enter__(self) -> None:
        task = asyncio.current_task()
        self._task = task if task is not None and hold(self._loop, task) else None

    def __exit__(self, *_: object) -> None:
        if self._task is not None:
            let_go(self._loop, self._task)


def hold(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> bool:
    """Hold a task of `loop` until it is let go; False where it is held already."""
    closed = None
    with _lock:
        tasks = _held.get(loop)
        if tasks is None:
            closed = _closed()
            tasks = _held[loop] = set()
        new = task not in tasks
        tasks.add(task)
    if closed:
        _end(closed)
    return new


def let_go(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
    """A task has ended."""
    with _lock:
        tasks = _held.get(loop)  # None where the loop was closed, or the process forked
        if tasks is not None:
            tasks.discard(task)
            if not tasks:
                del _held[loop]


def end_all() -> None:
    """End the runs of all loops that are closed."""
    with _lock:
        closed = _closed()
    _end(closed)


def _closed() -> list[asyncio.Task[Any]]:
    loops = [loop for loop in _held if loop.is_closed()]
    return [task for loop in loops for task in _held.pop(loop)]


def _end(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        coroutine: Any = task.get_coro()
        try:
            _context_of(task).run(coroutine.close)
        except Exception as error:
            told = {"message": "A run could not be ended after its event loop was closed", "task": task}
            task.get_loop().call_exception_handler({**told, "exception": error})


def _context_of(task: Any) -> contextvars.Context:
    """The task's context itself, in which alone its variables can be put back."""
    if sys.version_info >= (3, 12):
        context: contextvars.Context = task.get_context()
        return context
    found = (getattr(task, "_context", None), *gc.get_referents(task))  # a task written in Python has it by name
    return next((one for one in found if type(one) is contextvars.Context), contextvars.copy_context())


def _after_fork_in_child() -> None:
    global _held, _lock
    _lock = threading.Lock()
    _inherited.append(_held)  # the parent's: they must not end here
    _held = {}


_inherited: list[Any] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(end_all)
