"""Emitting CrewAI's events, and waiting for the handlers of the events of one run only.

CrewAI waits with ``crewai_event_bus.flush()``, which blocks the loop until the handlers of every run of the process are
done. Here each run remembers the futures of its own events.
"""

from __future__ import annotations

import contextvars
from concurrent.futures import Future
from typing import Any

from crewai.events.base_events import BaseEvent, reset_emission_counter
from crewai.events.event_bus import crewai_event_bus
from crewai.events.event_context import _event_id_stack, get_current_parent_id, reset_last_event_id
from crewai.events.types.llm_events import LLMCallFailedEvent

from fastcrew_async.engine.effects import Handled

Scope = tuple[tuple[str, str], ...]

_pending: contextvars.ContextVar[set[Future[Any]] | None] = contextvars.ContextVar(
    "fastcrew_async_pending_handlers", default=None
)


def emit(source: Any, event: BaseEvent) -> Future[None] | None:
    """``crewai_event_bus.emit`` that remembers the handlers' future for :func:`handled`."""
    future = crewai_event_bus.emit(source, event)
    pending = _pending.get()
    if future is not None and pending is not None and not future.done():
        pending.add(future)
        future.add_done_callback(pending.discard)
    return future


def reset_order() -> None:
    """Number events from 1 again, unless this run is part of another one."""
    if get_current_parent_id() is None:
        reset_emission_counter()
        reset_last_event_id()


def begin_run() -> contextvars.Token[set[Future[Any]] | None]:
    """Start to remember the handlers of a run; nested runs are part of the outer one's."""
    current = _pending.get()
    return _pending.set(set() if current is None else current)


def end_run(token: contextvars.Token[set[Future[Any]] | None]) -> None:
    """Forget the run."""
    _pending.reset(token)


def handled() -> Handled:
    """An effect: wait until the handlers of this run's events so far are done."""
    return Handled(*list(_pending.get() or ()))


def scope() -> Scope:
    """The open event scopes, to be handed to :func:`close_scopes`."""
    return _event_id_stack.get()


def close_scopes(mark: Scope, error: BaseException, source: Any = None) -> None:
    """Close what was opened since `mark` and left open by an error or a cancellation.

    A model call gets its ``llm_call_failed``; other scopes are dropped, so that the closing events of the enclosing
    ones find their own openers again.
    """
    while len(stack := _event_id_stack.get()) > len(mark):
        if stack[-1][1] == "llm_call_started" and source is not None:
            emit(source, LLMCallFailedEvent(error=str(error) or type(error).__name__, call_id=stack[-1][0]))
        else:
            _event_id_stack.set(stack[:-1])
