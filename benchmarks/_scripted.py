"""A CrewAI model that answers from a script after a set delay, and a crew on it: no network, no tokens.

It emits no LLM events of its own, so what is measured is the execution layer. Every answer names its kickoff's topic.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import Any

from crewai import Agent, Crew, Task
from crewai.llms.base_llm import BaseLLM
from crewai.tools import tool

_TOPIC = re.compile(r"about <([^>]*)>")


class ScriptedLLM(BaseLLM):
    """`tool_rounds` calls of the tool ``ping``, in the ReAct text form or the native one, then the answer."""

    latency: float = 0.0
    tool_rounds: int = 0
    native: bool = False

    def _reply(self, messages: list[dict[str, Any]], tools: Any) -> Any:
        texts = [str(message.get("content", "")) for message in messages]
        rounds = sum(text.count("pong ") for text in texts)
        if rounds < self.tool_rounds:
            if self.native and tools:
                call = {"name": "ping", "arguments": json.dumps({"x": rounds})}
                return [{"id": f"call_{rounds}", "type": "function", "function": call}]
            return f'Thought: use the tool\nAction: ping\nAction Input: {{"x": {rounds}}}'
        topic = next(found[1] for text in texts if (found := _TOPIC.search(text)))
        answer = expected(topic, rounds)
        return answer if self.native else f"Thought: I now know the final answer\nFinal Answer: {answer}"

    def call(self, messages: Any, tools: Any = None, *rest: Any, **named: Any) -> Any:
        if self.latency:
            time.sleep(self.latency)
        return self._reply(messages, tools)

    async def acall(self, messages: Any, tools: Any = None, *rest: Any, **named: Any) -> Any:
        if self.latency:
            await asyncio.sleep(self.latency)
        return self._reply(messages, tools)

    def supports_function_calling(self) -> bool:
        return self.native

    def supports_stop_words(self) -> bool:
        return True


@tool("ping")
def ping(x: int) -> str:
    """Sends the number back."""
    return f"pong {x}"


def make_crew(latency: float = 0.0, tool_rounds: int = 0, native: bool = False, **options: Any) -> Crew:
    """One agent and one task about ``<{topic}>``."""
    llm = ScriptedLLM(model="scripted", latency=latency, tool_rounds=tool_rounds, native=native)
    tools = [ping] if tool_rounds else []
    agent = Agent(role="Researcher", goal="Find out", backstory="Curious", llm=llm, tools=tools)
    task = Task(description="Report about <{topic}>", expected_output="A report", agent=agent)
    return Crew(agents=[agent], tasks=[task], **options)


def expected(topic: str, tool_rounds: int) -> str:
    """The answer of a kickoff about `topic`."""
    return f"{topic} after {tool_rounds} rounds"
