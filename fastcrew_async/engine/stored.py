"""Calls to the store of a memory: awaited where it is ours, on a worker thread where it is another's."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from fastcrew_async.engine.effects import Effect, Either
from fastcrew_async.engine.lane import Lane, OnLane

STORES = Lane(2)  # CrewAI's own, which are files: a search is Python, and so holds up the loop, and native code
SERVERS = Lane(16)  # stores of the user's own
TOUCHES = Lane(1)  # a store has one lock for what is written, and those who wait for it poll

_OURS = "fastcrew_async.memory.store"


def stored(storage: Any, name: str, *args: Any, **kwargs: Any) -> Effect:
    """``storage.name(*args, **kwargs)``."""
    if _is_ours(storage):
        method, twin = getattr(storage, name), getattr(storage, f"a{name}")
        return Either(partial(method, *args, **kwargs), partial(twin, *args, **kwargs))
    return OnLane(TOUCHES if name == "touch_records" else lane_of(storage), _call, storage, name, *args, **kwargs)


def _call(storage: Any, name: str, *args: Any, **kwargs: Any) -> Any:
    return getattr(storage, name)(*args, **kwargs)  # which may open the store


def lane_of(storage: Any) -> Lane:
    """Where what is not awaited goes."""
    return STORES if type(storage).__module__.startswith(("crewai.", "fastcrew_async.")) else SERVERS


def _is_ours(storage: Any) -> bool:
    """A subclass may have replaced one half only."""
    module = sys.modules.get(_OURS)
    return module is not None and type(storage) is module.MemoryStore
