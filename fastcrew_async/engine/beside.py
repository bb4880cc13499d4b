"""Data of ours beside an object that is not ours, for as long as that object lives."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Beside(Generic[T]):
    """A table by identity: CrewAI's models compare by value and cannot be keys of a weak dictionary."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._entries: dict[int, tuple[weakref.ref[object], T]] = {}

    def of(self, owner: object) -> T:
        """What belongs to `owner`, made at the first call."""
        key = id(owner)
        found = self._entries.get(key)
        if found is not None and found[0]() is owner:
            return found[1]
        with self._lock:
            found = self._entries.get(key)
            if found is None or found[0]() is not owner:
                found = (weakref.ref(owner, lambda gone: self._forget(key, gone)), self._make())
                self._entries[key] = found
            return found[1]

    def __len__(self) -> int:
        return len(self._entries)

    def _forget(self, key: int, gone: weakref.ref[object]) -> None:
        found = self._entries.get(key)
        if found is not None and found[0] is gone:
            del self._entries[key]
