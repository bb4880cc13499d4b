"""Checkpoints that CrewAI writes while runs are under way.

Source: ``crewai/state/checkpoint_listener.py`` of CrewAI 1.15.30. A handler turns the whole state of a run into JSON,
some ten milliseconds of Python, on any of the event bus's ten threads. Ten at once make the event loop wait for the GIL
for tens of milliseconds and more, so one at a time is written: in the same time, as they share the GIL. And while the
run goes on its record of events grows, over which pydantic panics; so what is written is a copy of it.
"""

from __future__ import annotations

import asyncio
import os
import threading
from copy import copy
from typing import Any

from fastcrew_async.engine.lent import Loan
from fastcrew_async.engine.seams import is_crewais

_writing = threading.RLock()


def _do_checkpoint(state: Any, cfg: Any, event: Any = None) -> None:
    # A store of the user's own may wait for something, so it is not waited for; nor is anything on a loop.
    if not is_crewais(type(cfg.provider).checkpoint) or asyncio._get_running_loop() is not None:
        _write(state, cfg, event)
        return
    with _writing:
        _write(state, cfg, event)


def _write(state: Any, cfg: Any, event: Any) -> None:
    still = type(state)([])
    still.root = state.root
    still._event_record = _copied(state._event_record)
    still._provider, still._branch, still._parent_id = state._provider, state._branch, state._parent_id
    try:
        LOAN.stock(still, cfg, event)
    finally:
        if still._checkpoint_id is not None:  # it is written, and the next one comes after it
            state._checkpoint_id, state._parent_id = still._checkpoint_id, still._parent_id


def _copied(record: Any) -> Any:
    """The same nodes. To some of them events that come meanwhile are tied, which CrewAI looks for in vain."""
    still = copy(record)
    with record._lock.r_locked():
        still.nodes = dict(record.nodes)
    return still


def _renew_lock() -> None:
    global _writing
    _writing = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)

LOAN = Loan(
    "_do_checkpoint",
    "crewai.state.checkpoint_listener",
    stand_in=_do_checkpoint,
    reason="lent while a run is under way, in an AsyncCrew too: checkpoints are written one at a time, so that the "
    "loop does not wait for ten threads",
)
