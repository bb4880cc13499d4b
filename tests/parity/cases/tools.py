"""Kinds of tools: async ones, blocking ones, tools that start loops or crews of their own."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from crewai import Crew
from crewai.tools import BaseTool, tool

from ..case import Case
from ..models import action, call, final
from ..recorder import Recorder
from ..tools import Noted, Number, ping
from .building import agent, solo, task
from .native import native

TEXT = [action("ping", x=1), final("done")]
NATIVE = [[call("ping", x=1)], "done"]


class AsyncTool(Noted):
    """A tool with both forms."""

    async def _arun(self, x: int) -> Any:
        await asyncio.sleep(0)
        return self._run(x)


def async_function(recorder: Recorder) -> BaseTool:
    @tool("ping")
    async def found(x: int) -> str:
        """Answers pong with the number."""
        await asyncio.sleep(0)
        recorder.note("tool", "ping", x=x)
        return f"pong {x}"

    return found


def function(recorder: Recorder) -> BaseTool:
    @tool("ping")
    def found(x: int) -> str:
        """Answers pong with the number."""
        recorder.note("tool", "ping", x=x)
        return f"pong {x}"

    return found


def two_forms(recorder: Recorder) -> BaseTool:
    return AsyncTool(recorder=recorder, answer=lambda x: f"pong {x}", args_schema=Number)


def blocking(recorder: Recorder) -> BaseTool:
    def answer(x: int) -> str:
        time.sleep(0.01)
        return f"pong {x}"

    return ping(recorder, answer)


def own_loop(recorder: Recorder) -> BaseTool:
    async def work(x: int) -> str:
        await asyncio.sleep(0)
        recorder.note("tool", "inside a loop", x=x)
        return f"pong {x}"

    return ping(recorder, lambda x: asyncio.run(work(x)))


def inner_crew(recorder: Recorder) -> BaseTool:
    """A tool that asks another crew."""

    def answer(x: int) -> str:
        worker = agent(recorder, [final(f"inner {x}")], role="Inner")
        return str(Crew(name="inner", agents=[worker], tasks=[task(worker)]).kickoff(inputs={"topic": "milk"}))

    return ping(recorder, answer)


def inner_agent(recorder: Recorder) -> BaseTool:
    """A tool that asks an agent without a crew."""
    return ping(recorder, lambda x: agent(recorder, [final(f"inner {x}")], role="Inner").kickoff("hi").raw)


class Remade(Noted):
    """A tool that says when it is made a structured one, and may refuse."""

    refuses: bool = False

    def to_structured_tool(self) -> Any:
        self.recorder.note("tool", f"{self.name} is made", uses=self.current_usage_count)
        if self.refuses:
            raise ValueError("not to be used")
        return super().to_structured_tool()


def of_two(recorder: Recorder, *, refuses: bool = False) -> Crew:
    """The second agent has a tool, and a task that brings another."""
    first = agent(recorder, [final("first")], role="First")
    own, brought = (
        Remade(recorder=recorder, answer=lambda x: "pong", args_schema=Number, name=name, refuses=refuses)
        for name in ("own", "brought")
    )
    own.current_usage_count = 1
    second = agent(recorder, [action("brought", x=1), final("second")], role="Second", tools=[own])
    return Crew(name="two", agents=[first, second], tasks=[task(first), task(second, 1, tools=[brought])])


MAKERS = [function, async_function, two_forms, blocking, own_loop, inner_crew, inner_agent]

CASES = [
    *(
        Case(f"{form}, tool is {make.__name__.replace('_', ' ')}", build)
        for make in MAKERS
        for form, build in [
            ("react", lambda r, make=make: solo(r, TEXT, tools=[make(r)])),  # type: ignore[misc]
            ("native", lambda r, make=make: native(r, NATIVE, tools=[make(r)])),  # type: ignore[misc]
        ]
    ),
    Case("tools are looked at before the first task", of_two),
    Case("a tool that cannot be used is found before the first task", lambda r: of_two(r, refuses=True)),
]
