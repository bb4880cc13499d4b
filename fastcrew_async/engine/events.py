"""Emitting CrewAI's events, and waiting for the handlers of the events of one run only.

Two differences from ``crewai_event_bus``, neither of which an observer can see. CrewAI waits with ``flush()``, which
blocks the loop until the handlers of every run of the process are done; here each run remembers the futures of its own
events, those that CrewAI's code and the user's emit among them. And an event that nobody can observe is not built: its
id, its place in the order and in the tree of scopes are what they would have been, so that the observed events are the
same. Who cannot observe: CrewAI's console and telemetry listener while both are off, or of a model call that is not
streamed; and its older trace listener inside a kickoff, where it returns at once (the newer tracing brings handlers of
its own, which count).
"""

from __future__ import annotations

import contextvars
import os
import random
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from crewai.events.base_events import BaseEvent, _get_or_create_counter, _last_emitted, reset_emission_counter
from crewai.events.event_bus import CrewAIEventsBus, _registered_entity_ids_var, crewai_event_bus
from crewai.events.event_context import (
    SCOPE_ENDING_EVENTS,
    SCOPE_STARTING_EVENTS,
    _event_id_stack,
    _last_event_id,
    get_current_parent_id,
    push_event_scope,
    reset_last_event_id,
)
from crewai.events.event_listener import EventListener, event_listener
from crewai.events.stream_context import _stream_sinks
from crewai.events.types.llm_events import (
    LLMCallCompletedEvent,
    LLMCallFailedEvent,
    LLMCallStartedEvent,
    LLMStreamChunkEvent,
)
from crewai.execution import get_execution_uuid
from crewai.task import Task

from fastcrew_async.engine import checkpoints
from fastcrew_async.engine.effects import Handled

Scope = tuple[tuple[str, str], ...]

_STOCK_EMIT = CrewAIEventsBus.emit
_CONSOLE, _TRACER = "crewai.events.event_listener", "crewai.events.listeners.tracing.trace_listener"
# Of these the console only notes that nothing is streamed any more, verbose or not; telemetry takes none of them.
_OF_STREAMS = frozenset({LLMCallStartedEvent, LLMCallCompletedEvent})

_pending: contextvars.ContextVar[set[Future[Any]] | None] = contextvars.ContextVar(
    "fastcrew_async_pending_handlers", default=None
)
_LONG, _KEPT = 32, 8  # open scopes, in the body of a tool
_FLUSH_S = 30.0  # as long as CrewAI's flush() waits: a handler that starts a run of its own is waited for by that run
# Per event class: its name, and the last set of handlers with what they are: listeners that may be idle, the tracer
# among them or not, or others.
_names: dict[type[BaseEvent], str] = {}
_own_handlers: dict[type[BaseEvent], tuple[Any, bool, bool]] = {}
_random = random.Random()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.seed)  # a fork's ids are its own


class _Pending(set[Any]):
    """The bus's handlers under way. Each is added in the context of its emitter, whose run remembers it too."""

    def add(self, future: Future[Any], /) -> None:
        super().add(future)
        pending = _pending.get()
        if pending is not None:
            pending.add(future)
            future.add_done_callback(pending.discard)


def _put(kind: type[set[Any]]) -> None:
    bus = crewai_event_bus
    with bus._futures_lock:
        if type(bus._pending_futures) is not kind:
            bus._pending_futures = kind(bus._pending_futures)


def release() -> None:
    """Leave the bus as it was."""
    _put(set)


def tell(
    source: Any, kind: type[BaseEvent], body: Callable[[], dict[str, Any]], verbose: bool = False
) -> tuple[str, Future[None] | None]:
    """Emit an event of `kind` with `body()`, or pass it over where nobody can observe it; its id and its handlers.

    `verbose` says that CrewAI's console shows this event even though the crew is not verbose.
    """
    if verbose or observed(kind):
        event = kind(**body())
        return event.event_id, crewai_event_bus.emit(source, event)
    return _pass_over(source, kind), None


def passed_over(source: Any, kind: type[BaseEvent]) -> bool:
    """Whether nobody can observe an event of `kind`; then it has been passed over, as by :func:`tell`."""
    if observed(kind):
        return False
    _pass_over(source, kind)
    return True


def observed(kind: type[BaseEvent]) -> bool:
    """Whether anything can see an event of `kind` that is emitted here and now."""
    bus = crewai_event_bus
    if kind in bus._async_handlers or _stream_sinks.get() or "emit" in bus.__dict__:
        return True
    handlers = bus._sync_handlers.get(kind)
    if handlers:
        known = _own_handlers.get(kind)
        if known is None or known[0] is not handlers:
            modules = {getattr(handler, "__module__", None) for handler in handlers}
            known = _own_handlers[kind] = (handlers, modules <= {_CONSOLE, _TRACER}, _TRACER in modules)
        _, may_be_idle, traced = known
        if (
            not may_be_idle
            or (traced and get_execution_uuid() is None)
            or EventListener._instance is not event_listener  # another one's handlers are not known to be idle
            or _at_work(kind)
        ):
            return True
    return CrewAIEventsBus.emit is not _STOCK_EMIT


def _at_work(kind: type[BaseEvent]) -> bool:
    """Whether CrewAI's console or telemetry does anything with an event of `kind`."""
    console = event_listener.formatter
    if kind in _OF_STREAMS:
        return bool(
            event_listener.next_chunk
            or console._is_streaming
            or console._streaming_live
            or console._last_stream_call_type
            or console._just_streamed_final_answer
        )
    if console.verbose:
        return True
    return kind is not LLMStreamChunkEvent and event_listener._telemetry._should_execute_telemetry()


def _pass_over(source: Any, kind: type[BaseEvent]) -> str:
    """What ``CrewAIEventsBus._prepare_event`` does to the context, without an event."""
    name = _names.get(kind)
    if name is None:
        name = _names[kind] = str(kind.model_fields["type"].default)
    if type(source) is not Task:  # a task is none of the entities that a checkpoint holds by itself
        registered = _registered_entity_ids_var.get()
        if registered is None or id(source) not in registered:
            crewai_event_bus._register_source(source)
    # get_next_emission_sequence() and set_last_event_id(), in place: this runs ten times and more in a kickoff.
    number = next(_get_or_create_counter())
    _last_emitted.set(number)
    event_id = new_id()
    if name in SCOPE_ENDING_EVENTS:
        stack = _event_id_stack.get()
        if stack:
            _event_id_stack.set(stack[:-1])
    elif name in SCOPE_STARTING_EVENTS:
        push_event_scope(event_id, name)
    _last_event_id.set(event_id)
    return event_id


def new_id() -> str:
    """A random UUID's text (RFC 9562, version 4)."""
    text = f"{_random.getrandbits(122) | 2 << 122:031x}"  # the first digit carries the variant: 8, 9, a or b
    return f"{text[1:9]}-{text[9:13]}-4{text[13:16]}-{text[0]}{text[16:19]}-{text[19:31]}"


def reset_order() -> None:
    """Number events from 1 again, unless this run is part of another one."""
    if get_current_parent_id() is None:
        reset_emission_counter()
        reset_last_event_id()


def begin_run() -> contextvars.Token[set[Future[Any]] | None]:
    """Start to remember the handlers of a run; nested runs are part of the outer one's."""
    if type(crewai_event_bus._pending_futures) is not _Pending:
        _put(_Pending)
    checkpoints.LOAN.take()
    current = _pending.get()
    return _pending.set(set() if current is None else current)


def end_run(token: contextvars.Token[set[Future[Any]] | None]) -> None:
    """Forget the run."""
    checkpoints.LOAN.give_back()
    _pending.reset(token)


def in_run() -> bool:
    """Whether the handlers of what is emitted here are remembered."""
    return _pending.get() is not None


async def wait_for_handlers() -> None:
    """Wait until the handlers of this run's events so far are done, up to 30 s."""
    pending = list(_pending.get() or ())  # at once: handlers that end on their threads take themselves out of the set
    futures = [future for future in pending if not future.done()]
    if futures:
        await Handled(*futures, timeout=_FLUSH_S)


def scope() -> Scope:
    """The open event scopes, to be handed to :func:`close_scopes`."""
    return _event_id_stack.get()


def restore(opened: Scope) -> None:
    """Make `opened` the open scopes again, whatever was opened or closed since."""
    if _event_id_stack.get() is not opened:
        _event_id_stack.set(opened)


def shorten_scope() -> None:
    """Keep the innermost of many open scopes, in the context of a tool's body.

    Events find their parents there, the innermost two. CrewAI copies the whole of it for each event, which crews nested
    in each other pay for with the square of their depth, and at 100 scopes (some twenty crews) it refuses to go on.
    """
    opened = _event_id_stack.get()
    if len(opened) > _LONG:
        _event_id_stack.set(opened[-_KEPT:])


def close_scopes(mark: Scope, error: BaseException, source: Any = None) -> None:
    """Close what was opened since `mark` and left open by an error or a cancellation.

    A model call gets its ``llm_call_failed``; other scopes are dropped, so that the closing events of the enclosing
    ones find their own openers again.
    """
    while len(stack := _event_id_stack.get()) > len(mark):
        if stack[-1][1] == "llm_call_started" and source is not None:
            crewai_event_bus.emit(
                source, LLMCallFailedEvent(error=str(error) or type(error).__name__, call_id=stack[-1][0])
            )
        else:
            _event_id_stack.set(stack[:-1])
