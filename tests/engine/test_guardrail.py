from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from crewai import Agent
from crewai.events.event_context import _event_id_stack
from crewai.hooks.dispatch import HookAborted
from crewai.lite_agent_output import LiteAgentOutput
from crewai.tasks.llm_guardrail import LLMGuardrail
from crewai.utilities.guardrail import GuardrailResult

from fastcrew_async import workers
from fastcrew_async.engine.drivers import drive, drive_in_place
from fastcrew_async.engine.guardrail import judge
from fastcrew_async.testing import ScriptedLLM
from tests import crews

OUTPUT = LiteAgentOutput(raw="tea", agent_role="Researcher")


def judged(guardrail: Any) -> Any:
    agent = crews.agent()
    return judge(OUTPUT, guardrail, 0, agent, agent)


def verdict(success: bool, result: Any = None, error: str | None = None) -> GuardrailResult:
    return GuardrailResult(success=success, result=result, error=error)


async def test_a_function_is_called_on_a_worker() -> None:
    threads: list[int] = []

    def guardrail(output: Any):  # type: ignore[no-untyped-def]
        threads.append(threading.get_ident())
        return True, "better"

    assert await drive(judged(guardrail)) == verdict(True, "better")
    assert threads != [threading.get_ident()]


async def test_a_guardrail_in_words_takes_no_thread() -> None:
    before = workers.pool().stats()["done"]
    llm = ScriptedLLM('{"valid": false, "feedback": "too hot"}')
    assert await drive(judged(LLMGuardrail("cold", llm))) == verdict(False, error="too hot")
    assert workers.pool().stats()["done"] == before
    assert "cold" in llm.requests[0].text


def test_a_guardrail_in_words_in_place() -> None:
    assert drive_in_place(judged(LLMGuardrail("hot", ScriptedLLM('{"valid": true}')))) == verdict(True, "tea")


async def test_a_model_that_fails_is_a_refusal() -> None:
    found = await drive(judged(LLMGuardrail("hot", ScriptedLLM(lambda request: str(1 // 0)))))
    assert not found.success
    assert (found.error or "").startswith("Error while validating the task output: ")


async def test_a_hook_that_stops_the_call_ends_the_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any, **__: Any) -> Any:
        raise HookAborted("denied", source="test")

    monkeypatch.setattr(ScriptedLLM, "_ask", stopped)
    scope = _event_id_stack.get()
    with pytest.raises(HookAborted, match="denied"):
        await drive(judged(LLMGuardrail("hot", ScriptedLLM("never"))))
    assert _event_id_stack.get() == scope


async def test_a_users_own_way_of_validating_is_called() -> None:
    class Strict(LLMGuardrail):
        def __call__(self, output: Any) -> tuple[bool, Any]:
            return False, "strict"

    assert await drive(judged(Strict("hot", ScriptedLLM("never")))) == verdict(False, error="strict")


async def test_a_users_own_kickoff_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    def kickoff(self: Agent, *_: Any, **__: Any) -> LiteAgentOutput:
        return LiteAgentOutput(raw="no", agent_role=self.role)

    monkeypatch.setattr(Agent, "kickoff", kickoff)
    found = await drive(judged(LLMGuardrail("hot", ScriptedLLM("never"))))
    assert "not a valid pydantic model" in (found.error or "")


async def test_a_cancel_ends_the_validation(until: Any) -> None:
    llm = ScriptedLLM("never", latency=30)
    scope = _event_id_stack.get()
    task = asyncio.create_task(drive(judged(LLMGuardrail("hot", llm))))
    await until(lambda: len(llm.requests) == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert _event_id_stack.get() == scope
