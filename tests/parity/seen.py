"""What the context variables of a run look like from inside a model, tool, hook or callback."""

from __future__ import annotations

import contextvars
from typing import Any

from crewai import context as crewai_context
from crewai import execution
from crewai.events import event_bus
from crewai.events.event_context import _event_id_stack, _triggering_event_id
from crewai.flow import flow_context
from crewai.hooks.llm_hooks import model_call_hooks_already_dispatched
from crewai.llms import base_llm
from crewai.tools import tool_failure
from opentelemetry import baggage

from .plain import Names

# A variable of the user's own, set before the run: it must be seen everywhere.
user_mark: contextvars.ContextVar[str] = contextvars.ContextVar("user_mark", default="unset")
# Another that the case's callbacks set, to see how far a write travels.
user_trail: contextvars.ContextVar[str] = contextvars.ContextVar("user_trail", default="")


def context_seen(names: Names) -> dict[str, Any]:
    """The variables a crew's own code may read, as plain data."""
    return {
        "scopes": [kind for _, kind in _event_id_stack.get()],
        "trigger": _triggering_event_id.get(),
        "in a runtime scope": event_bus._runtime_scope_depth.get() > 0,
        "runtime state": event_bus._runtime_state_var.get() is not None,
        "task": crewai_context._current_task_id.get(),
        "flow": flow_context.current_flow_id.get() is not None,
        "flow name": flow_context.current_flow_name.get(),
        "flow request": flow_context.current_flow_request_id.get() is not None,
        "execution": execution.get_execution_uuid() is not None,
        "model hooks dispatched": model_call_hooks_already_dispatched(),
        "stop words": sorted((base_llm._call_stop_override_var.get() or {}).values()),
        "failures collected": tool_failure._active_failures.get() is not None,
        "baggage": sorted(baggage.get_all()),
        "user mark": user_mark.get(),
        "user trail": user_trail.get(),
    }


def snapshot() -> dict[str, Any]:
    """Every variable set in this context, by name, to see what a run leaves behind."""
    return {variable.name: value for variable, value in contextvars.copy_context().items()}
