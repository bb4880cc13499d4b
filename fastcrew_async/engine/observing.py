"""What the planner makes of a step that was done.

Source: ``crewai/agents/planner_observer.py: PlannerObserver.observe`` of CrewAI 1.15.30.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from crewai.agents.planner_observer import PlannerObserver
from crewai.events.types.observation_events import (
    StepObservationCompletedEvent,
    StepObservationFailedEvent,
    StepObservationStartedEvent,
)
from crewai.hooks.dispatch import HookAborted
from crewai.utilities.planning_types import StepObservation, TodoItem

from fastcrew_async.engine import events
from fastcrew_async.engine.effects import Blocking
from fastcrew_async.engine.model import CallModel
from fastcrew_async.engine.seams import stock_methods

logger = logging.getLogger(PlannerObserver.__module__)  # CrewAI's: who listens there hears the same
_STOCK = stock_methods(PlannerObserver, "observe")


async def observe(
    observer: PlannerObserver,
    completed_step: TodoItem,
    result: str,
    all_completed: list[TodoItem],
    remaining_todos: list[TodoItem],
) -> StepObservation:
    """The model's judgement of `result`; where the call fails, that the step has succeeded and the plan still holds.

    Raises:
        HookAborted: a hook denied the call.
    """
    if not _STOCK.in_place(observer):
        theirs: StepObservation = await Blocking(
            observer.observe,
            completed_step=completed_step,
            result=result,
            all_completed=all_completed,
            remaining_todos=remaining_todos,
        )
        return theirs
    about: dict[str, Any] = {
        "agent_role": observer.agent.role,
        "step_number": completed_step.step_number,
        "step_description": completed_step.description,
        "from_task": observer.task,
        "from_agent": observer.agent,
    }

    def tell_failed(error: str) -> None:
        events.tell(observer.agent, StepObservationFailedEvent, lambda: {"error": error, **about})

    events.tell(observer.agent, StepObservationStartedEvent, lambda: dict(about))
    messages = observer._build_observation_messages(completed_step, result, all_completed, remaining_todos)
    try:
        response = await CallModel(
            observer.llm,
            messages,
            response_model=StepObservation,
            from_task=observer.task,
            from_agent=observer.agent,
        )
        observation = observer._parse_observation_response(response)
        events.tell(observer.agent, StepObservationCompletedEvent, lambda: _body(observation) | about)
        return observation
    except asyncio.CancelledError:
        tell_failed("cancelled")
        raise
    except HookAborted as denied:
        tell_failed(str(denied))
        raise
    except Exception as error:
        logger.warning("Observation LLM call failed: %s. Defaulting to conservative replan.", error)
        tell_failed(str(error))
        return PlannerObserver.heuristic_observation(step_success=True)


def refinements(observation: StepObservation) -> list[str]:
    """The changes that an observation suggests, as its events tell of them."""
    return [
        f"Step {change.step_number}: {change.new_description}" for change in observation.suggested_refinements or ()
    ]


def _body(observation: StepObservation) -> dict[str, Any]:
    return {
        "step_completed_successfully": observation.step_completed_successfully,
        "key_information_learned": observation.key_information_learned,
        "remaining_plan_still_valid": observation.remaining_plan_still_valid,
        "needs_full_replan": observation.needs_full_replan,
        "replan_reason": observation.replan_reason,
        "goal_already_achieved": observation.goal_already_achieved,
        "suggested_refinements": refinements(observation) or None,
    }
