"""The plan that a model makes of a task, before the task is worked on.

Source: ``crewai/utilities/reasoning_handler.py: AgentReasoning`` of CrewAI 1.15.30, whose prompts and parsing are used.
A model without function calling is asked too, and its plan has no steps that could be followed, as there.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

from crewai.events.types.reasoning_events import (
    AgentReasoningCompletedEvent,
    AgentReasoningFailedEvent,
    AgentReasoningStartedEvent,
)
from crewai.hooks.dispatch import HookAborted
from crewai.utilities.planning_types import PlanStep
from crewai.utilities.reasoning_handler import (
    FUNCTION_SCHEMA,
    AgentReasoning,
    AgentReasoningOutput,
    ReasoningPlan,
)

from fastcrew_async.engine import events
from fastcrew_async.engine.effects import Blocking
from fastcrew_async.engine.model import CallModel
from fastcrew_async.engine.seams import stock_methods

_READY = "READY: I am ready to execute the task."
_STOCK = stock_methods(
    AgentReasoning,
    "handle_agent_reasoning",
    "_execute_planning",
    "_create_initial_plan",
    "_refine_plan_if_needed",
    "_call_with_function",
    "_call_llm_with_prompt",
)

Plan = tuple[str, list[PlanStep], bool]
"""The plan's text, its steps, and whether the agent is ready to follow it."""


async def reason(handler: AgentReasoning) -> AgentReasoningOutput:
    """``handler.handle_agent_reasoning()``: a plan, refined until the agent is ready or the attempts are used up.

    Raises:
        HookAborted: a hook denied a call. Other errors of the model become a plan that says so.
    """
    if not _STOCK.in_place(handler):
        output: AgentReasoningOutput = await Blocking(handler.handle_agent_reasoning)
        return output
    mark = events.scope()
    with suppress(Exception):
        _tell_started(handler, 1)
    try:
        plan, steps, ready = await _refine(handler, await _ask(handler, handler._create_planning_prompt()))
        output = AgentReasoningOutput(plan=ReasoningPlan(plan=plan, steps=steps, ready=ready))
        _tell_completed(handler, 1, plan, ready)
        return output
    except asyncio.CancelledError:
        while len(events.scope()) > len(mark):
            _tell_failed(handler, "cancelled")
        raise
    except Exception as error:
        with suppress(Exception):
            _tell_failed(handler, str(error))
        raise


async def _refine(handler: AgentReasoning, made: Plan) -> Plan:
    attempt, most = 1, handler.config.max_attempts
    while not made[2] and (most is None or attempt < most):
        attempt += 1
        with suppress(Exception):
            _tell_started(handler, attempt)
        made = await _ask(handler, handler._create_refine_prompt(made[0]))
        with suppress(Exception):
            _tell_completed(handler, attempt, made[0], made[2])
        if most is not None and attempt >= most:
            handler.logger.warning(
                f"Agent planning reached maximum attempts ({most}) without being ready. Proceeding with current plan."
            )
    return made


async def _ask(handler: AgentReasoning, prompt: str) -> Plan:
    if handler.llm.supports_function_calling():
        return await _ask_by_function(handler, prompt)
    plan, ready = handler._parse_planning_response(str(await _call(handler, prompt)))
    return plan, [], ready


async def _ask_by_function(handler: AgentReasoning, prompt: str) -> Plan:
    try:
        response = await _call(
            handler,
            prompt,
            tools=[FUNCTION_SCHEMA],
            available_functions={"create_reasoning_plan": _create_reasoning_plan},
        )
        return _parsed(handler, response) or _unstructured(response)
    except HookAborted:
        raise
    except Exception as error:
        handler.logger.warning(f"Error during function calling: {error!s}. Falling back to text parsing.")
    try:
        return _unstructured(await _call(handler, prompt))
    except HookAborted:
        raise
    except Exception as error:
        handler.logger.error(f"Error during fallback text parsing: {error!s}")
        return "Failed to generate a plan due to an error.", [], True


async def _call(handler: AgentReasoning, prompt: str, **tools: Any) -> Any:
    messages = [{"role": "system", "content": handler._get_system_prompt()}, {"role": "user", "content": prompt}]
    return await CallModel(handler.llm, messages, **tools, from_task=handler.task, from_agent=handler.agent)


def _parsed(handler: AgentReasoning, response: Any) -> Plan | None:
    try:
        result = json.loads(response)
        if "plan" not in result or "ready" not in result:
            return None
        steps: list[PlanStep] = []
        raw_steps = result.get("steps", [])
        data: Any = None
        try:
            for data in raw_steps:
                steps.append(
                    PlanStep(
                        step_number=data.get("step_number", 0),
                        description=data.get("description", ""),
                        tool_to_use=data.get("tool_to_use"),
                        depends_on=data.get("depends_on", []),
                    )
                )
        except Exception as error:
            handler.logger.warning(f"Failed to parse step: {data}, error: {error}")
        return result["plan"], steps, result["ready"]
    except (json.JSONDecodeError, KeyError):
        return None


def _unstructured(response: Any) -> Plan:
    text = str(response)
    return text, [], _READY in text


def _create_reasoning_plan(plan: str, steps: list[dict[str, Any]] | None = None, ready: bool = True) -> str:
    """What the model's function call gives: its arguments as JSON. Events show its name, which is CrewAI's."""
    return json.dumps({"plan": plan, "steps": steps or [], "ready": ready})


def _about(handler: AgentReasoning) -> dict[str, Any]:
    return {
        "agent_role": handler.agent.role,
        "task_id": str(handler.task.id) if handler.task else "kickoff",
        "from_task": handler.task,
    }


def _tell_started(handler: AgentReasoning, attempt: int) -> None:
    events.tell(handler.agent, AgentReasoningStartedEvent, lambda: {"attempt": attempt, **_about(handler)})


def _tell_completed(handler: AgentReasoning, attempt: int, plan: str, ready: bool) -> None:
    body = {"plan": plan, "ready": ready, "attempt": attempt, "from_agent": handler.agent}
    events.tell(handler.agent, AgentReasoningCompletedEvent, lambda: body | _about(handler))


def _tell_failed(handler: AgentReasoning, error: str) -> None:
    body = {"error": error, "attempt": 1, "from_agent": handler.agent}
    events.tell(handler.agent, AgentReasoningFailedEvent, lambda: body | _about(handler))
