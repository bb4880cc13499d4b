"""Short ways to build the crews of the cases."""

from __future__ import annotations

from typing import Any

from crewai import Agent, Crew, Task

from ..models import ScriptedModel
from ..recorder import Recorder


def agent(recorder: Recorder, script: Any = (), *, role: str = "Researcher", **fields: Any) -> Agent:
    """An agent on a scripted model, or on the `llm` given."""
    model = fields.pop("llm", None)
    options = fields.pop("model_options", {})
    if model is None:
        model = ScriptedModel.of(recorder, script, name=f"model of {role}", **options)
    return Agent(role=role, goal=f"{role} goal", backstory=f"{role} backstory", llm=model, **fields)


def task(of: Agent | None, index: int = 0, **fields: Any) -> Task:
    """A task of that agent."""
    kind = fields.pop("kind", Task)
    fields.setdefault("description", f"Job {index} about {{topic}}")
    return kind(name=f"job {index}", expected_output="A report", agent=of, **fields)


def solo(recorder: Recorder, script: Any, *, task_options: Any = None, crew_options: Any = None, **fields: Any) -> Crew:
    """A crew of one agent with one task."""
    worker = agent(recorder, script, **fields)
    return Crew(name="solo", agents=[worker], tasks=[task(worker, **(task_options or {}))], **(crew_options or {}))
