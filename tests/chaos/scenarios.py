"""The crews that are cancelled: each way in which the engine waits for something."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from crewai import Agent, Crew, Task
from crewai.llms.base_llm import BaseLLM
from crewai.tools import BaseTool
from pydantic import PrivateAttr

from tests.chaos.witness import Witness

PAUSE = 0.001
_TOPIC = re.compile(r"about <([^>]*)>")


class Model(BaseLLM):
    """Two rounds of `calls` tool calls, then an answer that names the topic. Emits the events of a model."""

    counts_tokens_locally: ClassVar[bool] = True
    native: bool = False
    calls: int = 1
    _witness: Witness = PrivateAttr()

    def reply(self, messages: list[dict[str, Any]], tools: Any) -> Any:
        texts = [str(message.get("content", "")) for message in messages]
        rounds = sum(text.count("pong ") for text in texts) // self.calls
        if rounds < 2:
            if self.native and tools:
                return [
                    {
                        "id": f"{rounds}-{i}",
                        "type": "function",
                        "function": {"name": "ping", "arguments": _x(rounds, i)},
                    }
                    for i in range(self.calls)
                ]
            return f"Thought: use the tool\nAction: ping\nAction Input: {_x(rounds, 0)}"
        topic = next(found[1] for text in texts if (found := _TOPIC.search(text)))
        return f"done {topic}" if self.native else f"Thought: I now know the final answer\nFinal Answer: done {topic}"

    def get_input_tokens_count(self, *messages_and_tools: Any, **named: Any) -> int:
        return 100  # without the warning that it is an estimate

    def supports_function_calling(self) -> bool:
        return self.native

    def supports_stop_words(self) -> bool:
        return True

    def call(self, messages: Any, tools: Any = None, *rest: Any, **named: Any) -> Any:
        self._witness.call()
        time.sleep(PAUSE)
        return self.reply(messages, tools)


class AsyncModel(Model):
    async def acall(self, messages: Any, tools: Any = None, *rest: Any, **named: Any) -> Any:
        from crewai.events.types.llm_events import LLMCallType
        from crewai.llms.base_llm import llm_call_context

        self._witness.call()
        task, agent = named.get("from_task"), named.get("from_agent")
        with llm_call_context():
            self._emit_call_started_event(messages, tools, None, None, task, agent)
            await asyncio.sleep(PAUSE)
            answer = self.reply(messages, tools)
            self._emit_call_completed_event(answer, LLMCallType.LLM_CALL, task, agent, messages)
            return answer


class SyncPing(BaseTool):
    name: str = "ping"
    description: str = "Answers pong with the number."
    _witness: Witness = PrivateAttr()

    def _run(self, x: int) -> str:
        self._witness.call()
        time.sleep(PAUSE)
        return f"pong {x}"


class AsyncPing(SyncPing):
    async def _run(self, x: int) -> str:
        self._witness.call()
        await asyncio.sleep(PAUSE)
        return f"pong {x}"


@dataclass(frozen=True)
class Scenario:
    """A crew to be made for a witness. `threads`: model or tools run on the worker pool."""

    name: str
    make: Callable[[Witness], Crew]
    threads: bool = False


def crew(
    witness: Witness,
    tool: type[SyncPing] = AsyncPing,
    model: type[Model] = AsyncModel,
    tasks: int = 1,
    beside: bool = False,
    **of_model: Any,
) -> Crew:
    llm = model(model="scripted", **of_model)
    llm._witness = witness
    ping = tool()
    ping._witness = witness
    agent = Agent(role="Researcher", goal="Find out", backstory="Curious", llm=llm, tools=[ping])
    jobs = [
        Task(
            description=f"Job {i} about <{{topic}}>",
            expected_output="A report",
            agent=agent,
            async_execution=beside and i < tasks - 1,
        )
        for i in range(tasks)
    ]
    return Crew(agents=[agent], tasks=jobs)


SCENARIOS = (
    Scenario("ReAct, async tool", crew),
    Scenario("ReAct, sync tool", lambda witness: crew(witness, SyncPing), threads=True),
    Scenario("native, async tool", lambda witness: crew(witness, native=True)),
    Scenario("native, sync tool", lambda witness: crew(witness, SyncPing, native=True), threads=True),
    Scenario("native, three at a time", lambda witness: crew(witness, native=True, calls=3)),
    Scenario(
        "native, three sync at a time", lambda witness: crew(witness, SyncPing, native=True, calls=3), threads=True
    ),
    Scenario("a sync model", lambda witness: crew(witness, model=Model), threads=True),
    Scenario("three tasks", lambda witness: crew(witness, tasks=3)),
    Scenario("three tasks, two beside", lambda witness: crew(witness, tasks=3, beside=True)),
    Scenario("one crew of each, nested in a tool", lambda witness: _nested(witness)),
)


def _nested(witness: Witness) -> Crew:
    """A tool that runs a crew of its own."""
    inner = crew(witness)

    class Nested(AsyncPing):
        async def _run(self, x: int) -> str:
            from fastcrew_async import AsyncCrew

            self._witness.call()
            await AsyncCrew(inner).kickoff(inputs={"topic": f"inner {x}"})
            return f"pong {x}"

    return crew(witness, Nested)


def _x(rounds: int, call: int) -> str:
    return json.dumps({"x": 10 * rounds + call})
