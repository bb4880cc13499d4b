"""A guardrail's verdict on an output, of a task or of an agent alone.

Source: ``crewai/utilities/guardrail.py: process_guardrail`` and ``crewai/tasks/llm_guardrail.py`` of CrewAI 1.15.30. A
guardrail in words is an agent that is asked, as a run of the engine; any other is the user's function, on a worker.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from crewai.agent.core import Agent
from crewai.events.types.llm_guardrail_events import LLMGuardrailCompletedEvent, LLMGuardrailStartedEvent
from crewai.hooks.dispatch import HookAborted
from crewai.tasks.llm_guardrail import LLMGuardrail, LLMGuardrailResult
from crewai.utilities.guardrail import GuardrailResult, process_guardrail

from fastcrew_async.engine import agent_kickoff, events  # the one runs agents, which may have guardrails of their own
from fastcrew_async.engine.effects import Blocking
from fastcrew_async.engine.seams import replaced

_STOCK_CALL = LLMGuardrail.__call__
_STOCK_VALIDATE = LLMGuardrail._validate_output


async def judge(
    output: Any, guardrail: Any, retries: int, source: Any, agent: Any, task: Any = None
) -> GuardrailResult:
    """Whether `guardrail` lets `output` pass; `source` is what emits the events.

    Raises:
        HookAborted: a hook stopped the model call of a guardrail in words.
        Exception: what the user's function raised.
    """
    fields = {"retry_count": retries, "from_agent": agent, "from_task": task}
    if not _in_words(guardrail):
        return cast(
            GuardrailResult,
            await Blocking(process_guardrail, output=output, guardrail=guardrail, event_source=source, **fields),
        )
    events.tell(source, LLMGuardrailStartedEvent, lambda: {"guardrail": guardrail, **fields})
    opened = events.scope()
    name = guardrail.description.strip()

    def ended(**verdict: Any) -> None:
        body = {"guardrail_type": "llm", "guardrail_name": name, **fields, **verdict}
        events.tell(source, LLMGuardrailCompletedEvent, lambda: body)

    try:
        verdict = GuardrailResult.from_tuple(await _ask(guardrail, output))
    except (HookAborted, asyncio.CancelledError) as error:
        events.close_scopes(opened, error, guardrail.llm)
        ended(success=False, result=None, error=str(error) if isinstance(error, HookAborted) else "cancelled")
        raise
    ended(success=verdict.success, result=verdict.result, error=verdict.error)
    return verdict


def _in_words(guardrail: Any) -> bool:
    """Whether it is CrewAI's own, with its own ways of asking."""
    return (
        type(guardrail) is LLMGuardrail
        and LLMGuardrail.__call__ is _STOCK_CALL
        and not replaced(guardrail, "_validate_output", _STOCK_VALIDATE)
        and agent_kickoff.stands_for(Agent)
    )


async def _ask(guardrail: LLMGuardrail, output: Any) -> tuple[bool, Any]:
    """``LLMGuardrail.__call__``."""
    try:
        agent = Agent(role=_ROLE, goal=_GOAL, backstory=_BACKSTORY, llm=guardrail.llm)
        question = _QUESTION.format(output=output.raw, guardrail=guardrail.description)
        result = await agent_kickoff.run_agent(agent, question, LLMGuardrailResult)
        if not isinstance(result.pydantic, LLMGuardrailResult):
            raise ValueError("The guardrail result is not a valid pydantic model")
        if result.pydantic.valid:
            return True, output.raw
        return False, result.pydantic.feedback
    except HookAborted:
        raise
    except Exception as error:
        return False, f"Error while validating the task output: {error!s}"


_ROLE = "Guardrail Agent"
_GOAL = "Validate the output of the task"
_BACKSTORY = (
    "You are a expert at validating the output of a task. By providing effective feedback if the output is not valid."
)
_QUESTION = """
        Ensure the following task result complies with the given guardrail.

        Task result:
        {output}

        Guardrail:
        {guardrail}

        Your task:
        - Confirm if the Task result complies with the guardrail.
        - If not, provide clear feedback explaining what is wrong (e.g., by how much it violates the rule, or what specific part fails).
        - Focus only on identifying issues — do not propose corrections.
        - If the Task result complies with the guardrail, saying that is valid
        """  # noqa: E501
