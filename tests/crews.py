"""Small crews on scripted models, for the tests of the engine, of install and of AsyncCrew."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.quiet import stored_in

# isort: split
from crewai import Agent, Crew, Task
from crewai.tools import tool

from fastcrew_async.testing import Reply, Request, ScriptedLLM, ToolCall


@tool("ping")
def ping(text: str) -> str:
    """Answers with the text."""
    return f"pong {text}"


def use_ping(request: Request) -> Reply | str:
    """A script: call ``ping`` once, then answer."""
    return "done" if "pong tea" in request.text else Reply(tool_calls=[ToolCall("ping", {"text": "tea"})])


def echo(request: Request) -> str:
    """A script: the answer is the line that names the job."""
    line = next(line for line in request.text.splitlines() if "Job about" in line)
    return line[line.index("Job about") + len("Job about ") :].rstrip(".")


def agent(script: Any = "done", **fields: Any) -> Agent:
    """An agent on a scripted model; `native` offers the tools as functions."""
    llm = fields.pop("llm", None) or ScriptedLLM(script, native=fields.pop("native", False))
    fields.setdefault("role", "Researcher")
    return Agent(goal="Find out", backstory="Curious", llm=llm, **fields)


def task(of: Agent | None, **fields: Any) -> Task:
    """A task of that agent."""
    fields.setdefault("description", "Job about {topic}.")
    return Task(expected_output="A word", agent=of, **fields)


def crew(script: Any = "done", *, tasks: int = 1, crew_options: Any = None, **fields: Any) -> Crew:
    """A crew of one agent; ``fields`` are the agent's."""
    worker = agent(script, **fields)
    later = [task(worker, description=f"Step {index}. Job about {{topic}}.") for index in range(1, tasks)]
    return Crew(agents=[worker], tasks=[task(worker), *later], **(crew_options or {}))


@pytest.fixture(scope="module", autouse=True)
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A folder of a module's own, known before any loop runs."""
    with pytest.MonkeyPatch.context() as environment:
        yield from stored_in(tmp_path_factory.mktemp("storage"), environment)


def refusing(times: int) -> Any:
    """A guardrail that refuses so many outputs, and then gives the output in capitals."""
    left = [times]

    def guardrail(output):
        left[0] -= 1
        return (False, "too long") if left[0] >= 0 else (True, output.raw.upper())

    return guardrail
