"""What CrewAI's flow engine puts around a flow: context variables, event scopes, traces.

Source: ``crewai/flow/runtime/__init__.py: Flow._flow_post_init`` and ``Flow.kickoff_async`` of CrewAI 1.15.30.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
from collections.abc import Callable, Iterator
from typing import Any

from crewai.events.base_events import BaseEvent
from crewai.events.event_bus import crewai_event_bus
from crewai.events.listeners.tracing.trace_listener import TraceCollectionListener
from crewai.events.listeners.tracing.utils import set_tracing_enabled, should_enable_tracing
from crewai.events.types.flow_events import FlowFailedEvent, FlowFinishedEvent, FlowStartedEvent
from crewai.flow.flow_context import (
    current_flow_defer_trace_finalization,
    current_flow_id,
    current_flow_method_name,
    current_flow_name,
    current_flow_request_id,
)
from crewai.utilities.env import get_env_context
from opentelemetry import baggage
from opentelemetry.context import attach, detach

from fastcrew_async.engine import events
from fastcrew_async.engine.drivers import Apart, Work
from fastcrew_async.engine.effects import Handled

Entered = list[tuple[contextvars.ContextVar[Any], contextvars.Token[Any]]]


async def kickoff_internal(flow: Any, inputs: dict[str, Any], steps: Callable[[Any], Work[Any]]) -> Any:
    """``flow.kickoff(inputs)`` of a flow of CrewAI's own that tells of no methods; `steps` stands for them.

    Interception points are not for such flows. A cancellation is told as a failure.
    """
    runtime_scope = crewai_event_bus._enter_runtime_scope()
    try:
        return await Apart(_run(flow, inputs, steps))
    finally:
        crewai_event_bus._exit_runtime_scope(runtime_scope)


async def _run(flow: Any, inputs: dict[str, Any], steps: Callable[[Any], Work[Any]]) -> Any:
    with_inputs = baggage.set_baggage("flow_inputs", inputs)
    attached = attach(baggage.set_baggage("flow_input_files", {}, context=with_inputs))
    entered = enter(flow)
    runtime_scope = crewai_event_bus._enter_runtime_scope()
    execution_token = None
    mark = events.scope()
    pending = events.begin_run()
    try:
        execution_token = flow._begin_trace_execution()
        flow._initialize_state(inputs)
        events.reset_order()
        await _tell(flow, FlowStartedEvent, lambda: {"type": "flow_started", "inputs": inputs})
        get_env_context()
        result = await steps(flow)
        await events.wait_for_handlers()
        state = flow._copy_and_serialize_state
        await _tell(flow, FlowFinishedEvent, lambda: {"type": "flow_finished", "result": result, "state": state()})
        return result
    except (Exception, asyncio.CancelledError) as error:
        opened = events.scope()[len(mark) : len(mark) + 1]
        if opened:  # otherwise it failed before it began
            events.close_scopes((*mark, *opened), error, flow._llm)
            await events.wait_for_handlers()
            failure = error if isinstance(error, Exception) else RuntimeError("cancelled")
            await _tell(flow, FlowFailedEvent, lambda: {"type": "flow_failed", "error": failure})
        raise
    finally:
        events.end_run(pending)
        leave(entered)
        flow._end_trace_execution(execution_token)
        detach(attached)
        crewai_event_bus._exit_runtime_scope(runtime_scope)


@contextlib.contextmanager
def method(name: str) -> Iterator[None]:
    """The name of the method that runs, for those who ask."""
    token = current_flow_method_name.set(name)
    try:
        yield
    finally:
        current_flow_method_name.reset(token)


def enter(flow: Any) -> Entered:
    """Set what crews, agents and models that run inside read of the flow around them."""
    entered: Entered = []

    def put(variable: contextvars.ContextVar[Any], value: Any) -> None:
        entered.append((variable, variable.set(value)))

    if current_flow_id.get() is None:
        put(current_flow_id, flow.flow_id)
        put(current_flow_name, flow.name or type(flow).__name__)
        put(current_flow_defer_trace_finalization, flow._should_defer_trace_finalization())
    if current_flow_request_id.get() is None:
        put(current_flow_request_id, flow.flow_id)
    return entered


def leave(entered: Entered) -> None:
    """Undo :func:`enter`."""
    for variable, token in reversed(entered):
        variable.reset(token)


_traced: dict[str, bool] = {}  # by the setting: whether CrewAI's answer was to trace


def follow_traces(tracing: bool | None) -> None:
    """What CrewAI's flows do as they are made: switch tracing, and let its listener decide whether to listen.

    Without a choice of the run's own, the answer is in a file; it is read once per process and setting.
    """
    if tracing is None:
        setting = os.environ.get("CREWAI_TRACING_ENABLED", "")
        if setting not in _traced:
            _traced[setting] = should_enable_tracing()
            TraceCollectionListener().setup_listeners(crewai_event_bus)
        set_tracing_enabled(_traced[setting])
    else:
        set_tracing_enabled(should_enable_tracing(override=tracing))
        TraceCollectionListener().setup_listeners(crewai_event_bus)


async def _tell(flow: Any, kind: type[BaseEvent], body: Callable[[], dict[str, Any]]) -> None:
    """Emit an event of the flow and wait for its handlers."""
    _, future = events.tell(flow, kind, lambda: {"flow_name": flow._definition.name, **body()})
    if future is not None:
        await Handled(future)
