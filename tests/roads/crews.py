"""The crews of these tests: small ones on a scripted model, whose every text names the topic of its run."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

from crewai import Agent, Crew, Task
from crewai.tools import BaseTool

from fastcrew_async.testing import Reply, Request, ScriptedLLM, ToolCall

LATENCY = 0.002
_TOPIC = re.compile(r"<((?:topic|warm-up) \d+|tea)>")


def topic_of(text: str) -> str:
    """The topic that a text names first."""
    found = _TOPIC.search(text)
    assert found, f"no topic in {text!r}"
    return found[1]


def marks(text: str) -> set[str]:
    """All topics that a text names."""
    return set(re.findall(r"(?:topic|warm-up) \d+", text))


def done(request: Request) -> str:
    """A script: one answer, with the topic."""
    return f"done <{topic_of(request.text)}>"


def calling(name: str, arguments: Callable[[str], dict[str, Any]], after: str = "") -> Callable[[Request], Any]:
    """A script: call a tool once, then answer `done`; `after` is what the tool's result contains."""

    def script(request: Request) -> Reply | str:
        topic = topic_of(request.text)
        told = any((after or f"pong <{topic}>") in str(message.get("content")) for message in request.messages[1:])
        return f"done <{topic}>" if told else Reply(tool_calls=[ToolCall(name, arguments(topic))])

    return script


def ping_once(request: Request) -> Any:
    """A script: call ``ping`` once, then answer."""
    return calling("ping", lambda topic: {"text": f"<{topic}>"})(request)


class Ping(BaseTool):
    """An async tool that answers with its text."""

    name: str = "ping"
    description: str = "Answers pong with the text."

    async def _run(self, text: str) -> str:
        await asyncio.sleep(LATENCY)
        return f"pong {text}"


def model(script: Any = done, **fields: Any) -> ScriptedLLM:
    fields.setdefault("latency", LATENCY)
    return ScriptedLLM(script, **fields)


def agent(script: Any = done, **fields: Any) -> Agent:
    """An agent on a scripted model; `native` offers the tools as functions."""
    llm = fields.pop("llm", None) or model(script, native=fields.pop("native", False))
    fields.setdefault("role", "Researcher")
    return Agent(goal="Find out", backstory="Curious", llm=llm, **fields)


def task(of: Agent | None, number: int = 0, kind: type[Task] = Task, **fields: Any) -> Task:
    fields.setdefault("description", f"Job {number} about <{{topic}}>")
    return kind(expected_output="A word", agent=of, **fields)


def crew(script: Any = done, *, tasks: int = 1, options: dict[str, Any] | None = None, **fields: Any) -> Crew:
    """A crew of one agent; `fields` are the agent's."""
    worker = agent(script, **fields)
    return Crew(agents=[worker], tasks=[task(worker, number) for number in range(tasks)], **(options or {}))
