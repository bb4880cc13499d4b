"""When Python's garbage collector may walk everything.

A full collection walks every object of the process with the loop stopped: 190 ms after ``import crewai`` alone. So what
exists at the start is frozen once (it lives as long as the process anyway), young generations are collected as usual,
and full collections happen while nothing runs, or when the process has grown by a bound since the last one.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from dataclasses import dataclass

from fastcrew_async.config import settings

GROWTH_BYTES = 512 * 1024 * 1024
"""Growth of resident memory after which a full collection runs even while kickoffs are in flight."""

_NEVER = 1_000_000
_CHECK_EVERY = 256


@dataclass
class _State:
    running: int = 0
    started: bool = False
    thresholds: tuple[int, int, int] = (0, 0, 0)
    resident: int = 0
    checks: int = 0


_lock = threading.Lock()
_state = _State()


def start() -> None:
    """Put the policy in force, once per process. Does nothing where the setting ``collector_policy`` is off."""
    with _lock:
        if _state.started or not settings().collector_policy:
            return
        _state.started = True
        _state.thresholds = gc.get_threshold()
        gc.freeze()
        _state.resident = _resident_bytes()


def stop() -> None:
    """Undo it: what was frozen takes part in collections again, with the thresholds there were."""
    with _lock:
        if not _state.started:
            return
        _state.started = False
        gc.set_threshold(*_state.thresholds)
        gc.unfreeze()


class _Busy:
    def __enter__(self) -> None:
        _enter()

    def __exit__(self, *_: object) -> None:
        _leave()


BUSY = _Busy()
"""While any run is inside (``with BUSY:``), full collections are held back."""


def running() -> int:
    """How many runs are inside."""
    return _state.running


def _enter() -> None:
    with _lock:
        _state.running += 1
        if not _state.started:
            return
        if _state.running == 1:
            young, middle, _ = _state.thresholds
            gc.set_threshold(young, middle, _NEVER)
        _state.checks += 1
        grown = _state.checks % _CHECK_EVERY == 0 and _resident_bytes() - _state.resident > GROWTH_BYTES
    if grown:
        gc.collect()
        _state.resident = _resident_bytes()


def _leave() -> None:
    with _lock:
        _state.running = max(_state.running - 1, 0)  # a forked child may drop a run of its parent
        if _state.started and _state.running == 0:
            gc.set_threshold(*_state.thresholds)


def _after_fork_in_child() -> None:
    # The parent's runs do not end here.
    global _lock
    _lock = threading.Lock()
    if _state.started and _state.running:
        gc.set_threshold(*_state.thresholds)
    _state.running = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _resident_bytes() -> int:
    if sys.platform == "linux":
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * 4096
    if sys.platform == "win32":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
