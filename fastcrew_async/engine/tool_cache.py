"""Results of tools that serve later calls with the same arguments, in whatever run and driver.

Several calls at the same time are one: the first makes it, the others wait for its result. An error is not kept; those
who waited then make the call themselves, at once. Who leads and what is kept is the core's
(:class:`fastcrew_async._native.ResultCache`). Results are kept as pickles, so that each call gets one of its own.
"""

from __future__ import annotations

import contextvars
import os
import pickle
import threading
import types
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from itertools import count
from typing import Any

from crewai.tools.base_tool import Tool
from crewai.tools.tool_failure import ToolFailure

from fastcrew_async._native import ResultCache, canonical
from fastcrew_async.config import settings

_LEAD: Any = object()
_ALONE: Any = object()
_PATIENCE_S = 60.0
"""How long a call waits for another one's result before it is made itself: the other may wait for this one, on a
thread that knows nothing of it."""

_leading: contextvars.ContextVar[frozenset[str]] = contextvars.ContextVar("fastcrew_async_leading", default=frozenset())


class Shared:
    """The cache of this process and those who wait in it."""

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self.limits = (max_entries, max_bytes)
        self._cache = ResultCache(max_entries, max_bytes)
        # By ticket: what a waiting caller is told, a pickle, to lead, or to go alone.
        self._answers: dict[int, Future[Any]] = {}
        self._lock = threading.Lock()

    def claim(self, key: str) -> tuple[str, Any, Future[Any] | None]:
        """``hit`` and a pickle; ``lead`` and a ticket; or ``wait``, a ticket, and what will be told."""
        with self._lock:
            state, found = self._cache.claim(key)
            if state != "wait":
                return state, found, None
            answer = self._answers[found] = Future()  # type: ignore[index]
            return state, found, answer

    def settle(self, key: str, leader: int, packed: bytes | None, ttl: float) -> None:
        """The leader's call has ended."""
        with self._lock:
            answers = [self._answers.pop(ticket) for ticket in self._cache.settle(key, leader, packed, ttl)]
        for answer in answers:
            _tell(answer, _ALONE if packed is None else packed)

    def leave(self, key: str, ticket: int) -> None:
        """A caller gives up. When it led, the one that has waited longest leads now."""
        with self._lock:
            self._answers.pop(ticket, None)
            following = self._cache.leave(key, ticket)
            answer = None if following is None else self._answers.pop(following)
        if answer is not None:
            _tell(answer, _LEAD)


def _tell(answer: Future[Any], what: Any) -> None:
    # One that has been cancelled meanwhile leaves, and hands over then what it was given.
    if answer.set_running_or_notify_cancel():
        answer.set_result(what)


async def cached(
    key: str,
    ttl: float,
    call: Callable[[], Awaitable[Any]],
    keep: Callable[[Any], Awaitable[bool]],
    told: Callable[[Future[Any], float], Awaitable[Any]],
) -> tuple[Any, bool]:
    """What `call` gives or an earlier one gave, and whether it was an earlier one.

    `keep` decides whether a result is kept. `told` waits for a future, for so many seconds at most, and then raises
    TimeoutError.
    """
    if key in _leading.get():  # inside the very call that would be waited for
        return await call(), False
    shared = _shared()
    state, found, answer = shared.claim(key)
    if answer is not None:
        state, found = await _wait(shared, key, found, answer, told)
    if state == "hit":
        with suppress(Exception):  # there are objects that can be pickled, and not be made of it again
            return pickle.loads(found), True
        state = "alone"
    if state == "alone":
        return await call(), False
    token = _leading.set(_leading.get() | {key})
    try:
        result = await call()
        packed = _packed(result, shared) if await keep(result) else None
    except Exception:
        shared.settle(key, found, None, ttl)
        raise
    except BaseException:
        shared.leave(key, found)
        raise
    finally:
        _leading.reset(token)
    shared.settle(key, found, packed, ttl)
    return result, False


async def _wait(
    shared: Shared,
    key: str,
    ticket: int,
    answer: Future[Any],
    told: Callable[[Future[Any], float], Awaitable[Any]],
) -> tuple[str, Any]:
    try:
        what = await told(answer, _PATIENCE_S)
    except BaseException as error:
        answer.cancel()
        shared.leave(key, ticket)
        if isinstance(error, TimeoutError):
            return "alone", None
        raise
    if what is _LEAD:
        return "lead", ticket
    return ("alone", None) if what is _ALONE else ("hit", what)


def _packed(result: Any, shared: Shared) -> bytes | None:
    """The result as bytes; None for one that is not to be kept: a failure, or what has no copy, as a generator."""
    if isinstance(result, ToolFailure) or (
        isinstance(result, (str, bytes, bytearray)) and len(result) > shared.limits[1]
    ):
        return None
    try:
        return pickle.dumps(result, pickle.HIGHEST_PROTOCOL)
    except Exception:
        return None


_numbers = count(1)
_known: dict[int, tuple[Any, int]] = {}


def key_of(name: str, tool: Any, arguments: Any) -> str | None:
    """What tells this call from others; None where it cannot be told.

    A function made into a tool is the same tool wherever it is used. Of a class, each object is a tool of its own: two
    of one name may well be set up differently.
    """
    owner = tool
    if type(tool) is Tool and isinstance(tool.func, types.FunctionType):
        owner = tool.func
    number = _number(owner)
    text = canonical(arguments) if number else None
    return None if text is None else f"{number} {name} {text}"


def _number(owner: Any) -> int:
    """One for each object that lives; 0 for one that cannot be watched."""
    identity = id(owner)
    found = _known.get(identity)
    if found is not None and found[0]() is owner:
        return found[1]
    try:
        watch = weakref.ref(owner, lambda _: _known.pop(identity, None))
    except TypeError:
        return 0
    number = next(_numbers)
    _known[identity] = (watch, number)
    return number


_lock = threading.Lock()
_current: Shared | None = None


def _shared() -> Shared:
    global _current
    limits = settings()
    wanted = (limits.tool_cache_entries, limits.tool_cache_bytes)
    shared = _current
    if shared is None or shared.limits != wanted:
        with _lock:
            if _current is None or _current.limits != wanted:
                _current = Shared(*wanted)
            shared = _current
    return shared


def _forget() -> None:
    # Threads of the parent that lead or hold a lock do not exist here.
    global _current, _lock
    _current, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
