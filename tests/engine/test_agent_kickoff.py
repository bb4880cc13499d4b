from __future__ import annotations

import asyncio
import re
import threading
from typing import Any

import pytest
from crewai import Agent
from crewai.events.event_bus import crewai_event_bus
from crewai.events.event_context import _event_id_stack
from crewai.events.types.agent_events import (
    LiteAgentExecutionCompletedEvent,
    LiteAgentExecutionErrorEvent,
)
from crewai.events.types.llm_guardrail_events import LLMGuardrailCompletedEvent
from crewai.tasks.llm_guardrail import LLMGuardrail
from pydantic import BaseModel

from fastcrew_async import workers
from fastcrew_async.engine.agent_kickoff import kickoff, kickoff_async, run_agent
from fastcrew_async.engine.drivers import drive
from fastcrew_async.testing import Reply, ScriptedLLM, ToolCall
from tests import crews

ENDS = (LiteAgentExecutionCompletedEvent, LiteAgentExecutionErrorEvent)
VALID = '{"valid": true, "feedback": null}'


class Word(BaseModel):
    word: str


class Seen:
    """The events of these kinds while the block runs."""

    def __init__(self, *kinds: Any) -> None:
        self.kinds = kinds
        self.events: list[Any] = []

    def __enter__(self) -> Seen:
        for kind in self.kinds:
            crewai_event_bus.register_handler(kind, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for kind in self.kinds:
            crewai_event_bus.off(kind, self._note)

    def _note(self, source: Any, event: Any) -> None:
        self.events.append(event)


def test_in_place() -> None:
    assert kickoff(crews.agent("tea"), "hi").raw == "tea"


async def test_inside_a_loop_it_is_a_coroutine() -> None:
    result = await kickoff(crews.agent("tea"), "hi")
    assert result.raw == "tea"


async def test_one_agent_answers_any_number_at_once() -> None:
    agent = crews.agent(lambda request: re.findall(r"say (\d+)", request.text)[0])
    results = await asyncio.gather(*(kickoff_async(agent, f"say {n}") for n in range(20)))
    assert len({result.raw for result in results}) == 20


async def test_no_thread_is_used_for_an_agent_that_waits_for_nothing_sync() -> None:
    before = workers.pool().stats()["done"]
    agent = crews.agent(["short", VALID], guardrail="it must be short")
    assert (await kickoff_async(agent, "hi")).raw == "short"
    assert workers.pool().stats()["done"] == before


async def test_a_refusing_guardrail_is_asked_again_on_a_loop() -> None:
    llm = ScriptedLLM(["long", "longer", "short"])
    result = await kickoff_async(crews.agent(llm=llm, guardrail=crews.refusing(2)), "hi")
    assert result.raw == "SHORT"
    assert result.token_usage.successful_requests == 3
    assert len(llm.requests) == 3


async def test_a_guardrail_that_never_accepts(until: Any) -> None:
    agent = crews.agent("long", guardrail=crews.refusing(9), guardrail_max_retries=1)
    with Seen(*ENDS) as seen:
        with pytest.raises(ValueError, match=r"after 1 retries\. Last error: too long"):
            await kickoff_async(agent, "hi")
        await until(lambda: len(seen.events) == 1)
    assert seen.events[0].error == "Agent's guardrail failed validation after 1 retries. Last error: too long"


async def test_an_answer_is_made_a_model_by_the_model() -> None:
    result = await kickoff_async(crews.agent(["a word on tea", '{"word": "tea"}']), "hi", response_format=Word)
    assert (result.raw, result.pydantic) == ("a word on tea", Word(word="tea"))


async def test_tools_of_servers_are_found_off_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []

    def resolve(self: Agent, servers: Any) -> list[Any]:
        threads.append(threading.get_ident())
        return [crews.ping]

    monkeypatch.setattr(Agent, "get_mcp_tools", resolve)
    script = [Reply(tool_calls=[ToolCall("ping", {"text": "tea"})]), "done"]
    agent = crews.agent(script)
    agent.__dict__["mcps"] = ["https://example.org/mcp"]
    result = await kickoff_async(agent, "hi")
    assert result.raw == "done"
    assert any("pong tea" in str(message["content"]) for message in result.messages)
    assert threads
    assert threading.get_ident() not in threads


class _Memory:
    read_only = True  # it offers no tool to save with

    def __init__(self) -> None:
        self.threads: list[int] = []
        self.saved: list[str] = []

    def recall(self, text: str, limit: int) -> list[Any]:
        self.threads.append(threading.get_ident())
        return []

    def extract_memories(self, content: str) -> list[str]:
        self.threads.append(threading.get_ident())
        return [content]

    def remember_many(self, contents: list[str]) -> None:
        self.saved += contents


async def test_the_memory_is_asked_off_the_loop() -> None:
    agent, memory = crews.agent("tea"), _Memory()
    agent.__dict__["memory"] = memory
    await kickoff_async(agent, "hi")
    assert len(memory.threads) == 2
    assert threading.get_ident() not in memory.threads
    assert memory.saved == ["Input: hi\nAgent: Researcher\nResult: tea"]


@pytest.mark.parametrize("waits", ["answer", "guardrail"])
async def test_a_cancel_ends_the_run_and_closes_its_events(waits: str, until: Any) -> None:
    llm = ScriptedLLM("long", latency=0 if waits == "guardrail" else 30)
    agent = crews.agent(llm=llm)
    if waits == "guardrail":
        judge = ScriptedLLM(VALID, latency=30)
        agent.__dict__["guardrail"] = LLMGuardrail(description="short", llm=judge)
    asked = judge if waits == "guardrail" else llm
    with Seen(*ENDS, LLMGuardrailCompletedEvent) as seen:
        scope = _event_id_stack.get()
        task = asyncio.create_task(drive(run_agent(agent, "hi")))
        await until(lambda: len(asked.requests) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        expected = 3 if waits == "guardrail" else 1  # the judging agent, the guardrail, and the agent
        await until(lambda: len(seen.events) == expected)
    assert [event.error for event in seen.events] == ["cancelled"] * expected
    assert _event_id_stack.get() == scope
    assert len(asked.requests) == 1


async def test_a_method_of_the_users_own_is_called() -> None:
    class Polite(Agent):
        def _finalize_kickoff(self, output: Any, *rest: Any, **named: Any) -> Any:
            output.raw = f"please: {output.raw}"
            return output

    agent = Polite(role="R", goal="G", backstory="B", llm=ScriptedLLM("tea"))
    assert (await kickoff_async(agent, "hi")).raw == "please: tea"
    assert (await asyncio.to_thread(kickoff, agent, "hi")).raw == "please: tea"
