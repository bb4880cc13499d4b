"""A checkpoint that one of CrewAI and this package wrote is restored by the other."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from crewai import Agent, Crew, Task
from crewai.events.event_bus import crewai_event_bus
from crewai.llms.providers.openai.completion import OpenAICompletion
from crewai.state.checkpoint_config import CheckpointConfig

import fastcrew_async

from .models import final
from .recorder import fresh_context
from .recording import storage


@contextlib.contextmanager
def engine(name: str) -> Iterator[None]:
    if name == "stock":
        yield
        return
    fastcrew_async.install()
    try:
        yield
    finally:
        fastcrew_async.uninstall()


@pytest.fixture
def asked() -> Iterator[list[Any]]:
    """What CrewAI's own provider was asked; it answers by the task. A model of a test cannot be stored."""
    asked: list[Any] = []

    def answer(self: Any, messages: Any, *args: Any, **kwargs: Any) -> str:
        asked.append(messages)
        return final("a leaf" if "Job 0" in str(messages[-1]) else "a drink")

    async def aanswer(self: Any, messages: Any, *args: Any, **kwargs: Any) -> str:
        return answer(self, messages)

    variables = {"CREWAI_STORAGE_DIR": storage(), "OPENAI_API_KEY": "none"}
    with (
        mock.patch.dict(os.environ, variables),
        mock.patch.object(OpenAICompletion, "call", answer),
        mock.patch.object(OpenAICompletion, "acall", aanswer),
    ):
        yield asked


def two_tasks(folder: Path) -> Crew:
    worker = Agent(role="Worker", goal="work", backstory="works", llm="gpt-4o-mini")
    tasks = [
        Task(name=f"job {n}", description=f"Job {n} about {{topic}}", expected_output="a report", agent=worker)
        for n in range(2)
    ]
    checkpoint = CheckpointConfig(location=str(folder), on_events=["task_completed"])
    return Crew(name="two", agents=[worker], tasks=tasks, checkpoint=checkpoint)


def run(in_place: bool, crew: Crew, **arguments: Any) -> Any:
    if in_place:
        result = fresh_context().run(lambda: crew.kickoff(**arguments))
    else:
        result = fresh_context().run(asyncio.run, crew.akickoff(**arguments))
    crewai_event_bus.flush()
    return result


def checkpoints(in_place: bool, folder: Path) -> list[Path]:
    """The files of a run's checkpoints, in their order."""
    for attempt in range(5):
        run(in_place, two_tasks(folder / str(attempt)), inputs={"topic": "tea"})
        written = sorted((folder / str(attempt)).rglob("*.json"), key=lambda file: file.stat().st_mtime_ns)
        if len(written) == 2:
            return written
    pytest.fail("CrewAI's handler, which reads the record of events while the run adds to it, lost five times")


@pytest.mark.parametrize("reader", ["stock", "ours"])
@pytest.mark.parametrize("writer", ["stock", "ours"])
@pytest.mark.parametrize("in_place", [False, True], ids=["akickoff", "kickoff"])
def test_a_crew_goes_on_after_its_first_task(
    in_place: bool, writer: str, reader: str, tmp_path: Path, asked: list[Any]
) -> None:
    with engine(writer):
        written = checkpoints(in_place, tmp_path)
    asked.clear()
    later = CheckpointConfig(restore_from=str(written[0]), location=str(tmp_path / "later"))
    with engine(reader):
        result = run(in_place, two_tasks(tmp_path), from_checkpoint=later)
    assert [output.raw for output in result.tasks_output] == ["a leaf", "a drink"]
    assert len(asked) == 1
    assert "Job 1 about tea" in str(asked)
    assert "a leaf" in str(asked)
