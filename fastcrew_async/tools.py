"""How tools are called: what may be set for each of them, and what was counted."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import Any

from fastcrew_async.environment import LONGEST, MOST, is_seconds, is_whole


@dataclass(frozen=True)
class ToolPolicy:
    """What is set for one tool, by its name: ``configure(tools={"search": ToolPolicy(timeout=10, cache_ttl=60)})``.

    Args:
        timeout: seconds that a call may take, the wait for a worker thread included; then it ends as one that raised
            ``TimeoutError``. None takes the setting ``tool_timeout``, 0 sets no limit.
        cache_ttl: seconds for which a result serves every call with the same arguments, of any run of this process.
            0 keeps nothing. Only for tools whose answer depends on nothing but their arguments.
        concurrency: calls at the same time, of all runs of this process; None sets no limit. Beside a limit of
            :class:`~fastcrew_async.Limits` for the tool the lower one holds.

    Raises:
        ValueError: a number is negative, or none.
    """

    timeout: float | None = None
    cache_ttl: float = 0.0
    concurrency: int | None = None

    def __post_init__(self) -> None:
        if self.timeout is not None:
            check_seconds("timeout", self.timeout, "None to take the setting tool_timeout, 0 for no limit")
        check_seconds("cache_ttl", self.cache_ttl, "0 to keep no result")
        if self.concurrency is not None and not is_whole(self.concurrency, 1):
            raise ValueError(
                f"concurrency={self.concurrency!r} is not a whole number of 1 or more; use None for no limit"
                f" (at most {MOST})"
            )


def check_seconds(name: str, value: object, other: str) -> None:
    """Refuse what is no number of seconds.

    Raises:
        ValueError: it is none.
    """
    if not is_seconds(value):
        raise ValueError(
            f"{name}={value!r} is not a number of seconds; use a number above 0, or {other} (at most {LONGEST})"
        )


_MOST_NAMES = 10_000


class Tally:
    """What was counted of one tool."""

    __slots__ = ("abandoned", "cache_hits", "calls", "errors", "seconds", "timeouts")

    def __init__(self) -> None:
        self.calls = self.errors = self.timeouts = self.cache_hits = self.abandoned = 0
        self.seconds = 0.0


_tallies: dict[str, Tally] = {}
_lock = threading.Lock()


def count(
    name: str,
    seconds: float,
    *,
    error: bool = False,
    timeout: bool = False,
    cache_hit: bool = False,
    abandoned: bool = False,
) -> None:
    """One call has ended, or is waited for no longer."""
    with _lock:
        tally = _tallies.get(name)
        if tally is None:
            if len(_tallies) >= _MOST_NAMES:  # names made up at run time must not fill the memory
                del _tallies[next(iter(_tallies))]
            tally = _tallies[name] = Tally()
        tally.calls += 1
        tally.seconds += seconds
        if error:
            tally.errors += 1
        if timeout:
            tally.timeouts += 1
        if cache_hit:
            tally.cache_hits += 1
        if abandoned:
            tally.abandoned += 1


def stats() -> dict[str, dict[str, Any]]:
    """Of each tool called so far in this process, by its name:

    ``calls`` (a tool that CrewAI tries again counts again), ``errors`` (it raised), ``timeouts``, ``cache_hits`` (calls
    answered by an earlier result), ``abandoned`` (sync calls that went on after their timeout or a cancellation), and
    ``seconds`` in all calls together, waiting for a worker thread included.
    """
    with _lock:
        return {
            name: {field: getattr(tally, field) for field in (*_FIELDS, "seconds")} for name, tally in _tallies.items()
        }


_FIELDS = ("calls", "errors", "timeouts", "cache_hits", "abandoned")


def _forget() -> None:
    # The lock may have been held by a thread of the parent.
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
