"""Results of tool calls, kept for a while, and the calls under way that others wait for.

Bounded by entries and by bytes, the least recently used goes first. Of several callers with the same key one leads and
the others wait; who waits for what is decided here, the waiting itself is the caller's.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections import OrderedDict, deque
from typing import Any, Literal

_DEEPEST = 100


class ResultCache:
    """Results as bytes, by key."""

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        if max_entries < 0 or max_bytes < 0:
            raise OverflowError("can't convert negative int to unsigned")
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        # The least recently used first.
        self._entries: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self._bytes = self._evicted = self._tickets = 0
        # By key: the leader, and those who wait in their order.
        self._flights: dict[str, tuple[int, deque[int]]] = {}
        self._lock = threading.Lock()

    def claim(self, key: str) -> tuple[Literal["hit"], bytes] | tuple[Literal["lead", "wait"], int]:
        """The result of ``key`` as ``("hit", bytes)``; or ``("lead", ticket)``: make the call and settle it; or
        ``("wait", ticket)``: another one makes it."""
        with self._lock:
            found = self._entries.get(key)
            if found is not None:
                value, expires = found
                if time.monotonic() < expires:
                    self._entries.move_to_end(key)
                    return "hit", value
                self._remove(key)
            self._tickets += 1
            if key in self._flights:
                self._flights[key][1].append(self._tickets)
                return "wait", self._tickets
            self._flights[key] = (self._tickets, deque())
            return "lead", self._tickets

    def settle(self, key: str, leader: int, value: bytes | None, ttl: float) -> list[int]:
        """The leader's call has ended; ``value`` is kept for ``ttl`` seconds, None is not. Gives the tickets of those
        who wait."""
        if not 0 <= ttl < float("inf"):
            raise ValueError(f"ttl={ttl} is not a number of seconds")
        with self._lock:
            if key not in self._flights or self._flights[key][0] != leader:
                return []
            if value is not None:
                self._put(key, value, time.monotonic() + ttl)
            return list(self._flights.pop(key)[1])

    def leave(self, key: str, ticket: int) -> int | None:
        """A caller gives up. When it led, gives the ticket of the one that leads now, if any waits."""
        with self._lock:
            if key not in self._flights:
                return None
            leader, waiters = self._flights[key]
            if leader != ticket:
                if ticket in waiters:
                    waiters.remove(ticket)
                return None
            if not waiters:
                del self._flights[key]
                return None
            following = waiters.popleft()
            self._flights[key] = (following, waiters)
            return following

    def clear(self) -> None:
        """Forget the results; calls under way go on and are kept."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0

    def stats(self) -> dict[str, int]:
        """Entries and bytes now; entries put out so far to make room."""
        with self._lock:
            return {"entries": len(self._entries), "bytes": self._bytes, "evicted": self._evicted}

    def _put(self, key: str, value: bytes, expires: float) -> None:
        self._remove(key)
        size = len(key.encode()) + len(value)
        if size > self._max_bytes or self._max_entries == 0:
            return
        while len(self._entries) >= self._max_entries or self._bytes + size > self._max_bytes:
            self._remove(next(iter(self._entries)))
            self._evicted += 1
        self._entries[key] = (value, expires)
        self._bytes += size

    def _remove(self, key: str) -> None:
        found = self._entries.pop(key, None)
        if found is not None:
            self._bytes -= len(key.encode()) + len(found[0])


def canonical(arguments: Any) -> str | None:
    """The arguments as JSON with sorted keys, the same for the same arguments only; None where they are not plain
    JSON."""
    if not _is_plain(arguments, 0):
        return None
    try:
        return json.dumps(arguments, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    except ValueError:  # an integer of more digits than Python writes
        return None


def _is_plain(value: Any, depth: int) -> bool:
    if depth > _DEEPEST:
        return False
    kind = type(value)
    if kind is str:
        return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)
    if kind is dict:
        return all(type(key) is str and _is_plain(key, 0) and _is_plain(value[key], depth + 1) for key in value)
    if kind is list:
        return all(_is_plain(item, depth + 1) for item in value)
    return value is None or kind in (bool, int) or (kind is float and math.isfinite(value))
