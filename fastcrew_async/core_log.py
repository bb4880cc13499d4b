"""What the core has to say, in Python's ``logging``: loggers ``fastcrew_async.core.<topic>``.

The compiled core keeps its lines in a buffer of its own, and one thread hands them over, many at once: none of the
core's threads waits for the interpreter, and a handler that writes to a file holds up no event loop. The plain-Python
twins log at once, in the thread where it happens.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import traceback
from typing import Any

TOPICS = ("database", "http", "limits", "runtime")

database, http, limits, runtime = _loggers = [logging.getLogger(f"fastcrew_async.core.{topic}") for topic in TOPICS]

_CHUNK = 0.1
"""Seconds between the first line of a chunk and its hand-over."""
_LOOK = 1.0
"""Seconds after which a level that was set is noticed."""
_LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)
_OFF = 255

_by_name = {logger.name: logger for logger in _loggers}
_starting = threading.Lock()
_handing = threading.RLock()  # a handler may close the runtime
_thread: threading.Thread | None = None
_ending = False


def start() -> None:
    """Hand the core's lines over from now on; where the core is not compiled there is nothing to do."""
    global _thread
    core: Any = sys.modules.get("fastcrew_async._core")
    if core is None or _ending:
        return
    with _starting:
        _tell_levels(core)
        if _thread is None:
            _thread = threading.Thread(target=_run, args=(core,), name="fastcrew-log", daemon=True)
            _thread.start()


def flush() -> None:
    """Hand over what has been said so far. Blocks the calling thread for as long as the handlers take."""
    core: Any = sys.modules.get("fastcrew_async._core")
    if core is not None:
        _hand_over(core)


def _run(core: Any) -> None:
    while not _ending:
        core.log_wait(_LOOK, False)
        if not _ending:
            core.log_wait(_CHUNK, True)
        _hand_over(core)
        _tell_levels(core)


def _tell_levels(core: Any) -> None:
    core.log_levels([next(filter(logger.isEnabledFor, _LEVELS), _OFF) for logger in _loggers])


def _hand_over(core: Any) -> None:
    with _handing:
        lines, dropped = core.log_take()
        if dropped:
            runtime.warning("%d lines of the core's log were dropped: more came than could be handed over", dropped)
        for name, level, at, thread, text in lines:
            logger = _by_name[name]
            if not logger.isEnabledFor(level):
                continue
            record = logger.makeRecord(name, level, "core", 0, text, (), None)
            record.relativeCreated += (at - record.created) * 1e3
            record.created, record.msecs = at, at % 1 * 1e3
            record.threadName = thread or record.threadName
            try:
                logger.handle(record)
            except Exception:  # of a filter: what a handler raises is its own affair already
                if logging.raiseExceptions:
                    traceback.print_exc()


def _end() -> None:
    """The interpreter exits: the last lines are handed over while there are handlers."""
    global _ending
    core: Any = sys.modules.get("fastcrew_async._core")
    _ending = True
    if core is not None and _thread is not None:
        core.log_hurry()
        _thread.join(1.0)
        _hand_over(core)
        core.log_levels([_OFF] * len(_loggers))


def _forget() -> None:
    # The parent's thread is not here, and its locks may have been held by it.
    global _starting, _handing, _thread
    _starting, _handing, _thread = threading.Lock(), threading.RLock(), None


atexit.register(_end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
