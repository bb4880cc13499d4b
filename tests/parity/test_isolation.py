"""200 runs at once, each with a mark of its own: no mark turns up in another run's data."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import threading
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
from crewai import Crew
from crewai.events.event_bus import crewai_event_bus
from crewai.tools import BaseTool
from pydantic import BaseModel

from fastcrew_async import AsyncCrew
from fastcrew_async.engine.outputs import database, replayable

from .cases.building import agent, task
from .models import action, call, final
from .plain import plain
from .recorder import Recorder, event_classes
from .seen import user_mark

RUNS = 200
MARK = re.compile(r"mark-\d{4}")


def marks_in(value: Any) -> set[str]:
    return set(MARK.findall(json.dumps(plain(value))))


class Text(BaseModel):
    text: str


class Echo(BaseTool):
    """A sync tool that gives its text back, and says whose context it saw."""

    name: str = "echo"
    description: str = "Gives the text back."
    args_schema: type[BaseModel] = Text
    seen: Any

    def _run(self, text: str) -> str:
        self.seen.mark("tool", marks_in(text))
        return f"heard {text}"


class Seen:
    """What the models, tools, callbacks and handlers of all runs saw."""

    def __init__(self) -> None:
        self.contexts: list[tuple[str, set[str], str]] = []
        self.events: dict[str, tuple[str | None, str, set[str]]] = {}
        self._lock = threading.Lock()

    def mark(self, where: str, marks: set[str]) -> None:
        with self._lock:
            self.contexts.append((where, marks, user_mark.get()))

    def handler(self, source: Any, event: Any) -> None:
        marks = set(MARK.findall(repr(event)))
        with self._lock:
            self.events[event.event_id] = (
                event.parent_event_id or event.started_event_id,
                event.type,
                marks,
            )

    @contextlib.contextmanager
    def events_of_all(self) -> Iterator[None]:
        classes = event_classes()
        for cls in classes:
            crewai_event_bus.register_handler(cls, self.handler)
        try:
            yield
            crewai_event_bus.flush()
        finally:
            for cls in classes:
                crewai_event_bus.off(cls, self.handler)

    def marks_by_run(self) -> list[set[str]]:
        """The marks of each kickoff's events, found by following the parents up."""
        runs: dict[str, set[str]] = {}
        for event_id, (_, _, marks) in self.events.items():
            root = event_id
            while (above := self.events[root][0]) is not None and above in self.events:
                root = above
            runs.setdefault(root, set()).update(marks)
        return list(runs.values())


def marked_crew(seen: Seen, *, native: bool) -> Crew:
    """Two tasks, the second with the first one's answer; each calls the tool once and answers by its mark."""

    def answer(messages: Any) -> Any:
        marks = marks_in(messages)
        seen.mark("model", marks)
        mark = min(marks, default="mark-none")
        if "heard" in str(messages[-2:]):
            return f"done {mark}" if native else final(f"done {mark}")
        return [call("echo", text=mark)] if native else action("echo", text=mark)

    def noted(output: Any) -> None:
        seen.mark("callback", marks_in(output))

    worker = agent(Recorder(), answer, tools=[Echo(seen=seen)], model_options={"native": native})
    tasks = [task(worker, 0, callback=noted), task(worker, 1, callback=noted)]
    return Crew(name="marked", agents=[worker], tasks=tasks)


async def kickoff_marked(crew: Crew, number: int) -> Any:
    mark = f"mark-{number:04}"
    user_mark.set(mark)
    result = await AsyncCrew(crew).kickoff(inputs={"topic": mark})
    assert user_mark.get() == mark
    return result


@pytest.fixture(autouse=True)
def _stored_aside(tmp_path: Any) -> Iterator[None]:
    with mock.patch.dict(os.environ, {"CREWAI_STORAGE_DIR": str(tmp_path)}):
        yield
        database().close_sync()


def stored_marks() -> list[set[str]]:
    """The marks of each run's stored rows; a row starts with the run that it belongs to."""
    file = database()
    runs: dict[str, set[str]] = {}
    for (table,) in file.fetch_all_sync("SELECT name FROM sqlite_master WHERE type = 'table'"):
        for run, *columns in file.fetch_all_sync(f"SELECT * FROM {table}"):
            runs.setdefault(str(run), set()).update(MARK.findall(str(columns)))
    return list(runs.values())


def replayed_rows(crew: Crew) -> Any:
    """The rows that a replay of this crew's first task starts from."""
    with replayable(crew, str(crew.tasks[0].id)):
        return crew._task_output_handler.load()


def expect_isolated(seen: Seen, results: list[Any]) -> None:
    every = [{f"mark-{number:04}"} for number in range(RUNS)]
    assert [marks_in(result) for result in results] == every
    assert [result.raw for result in results] == [f"done mark-{number:04}" for number in range(RUNS)]
    assert [result.token_usage.total_tokens for result in results] == [60] * RUNS
    assert sorted(seen.marks_by_run(), key=min) == every
    assert len(seen.contexts) == RUNS * (4 + 2 + 2)
    assert all(marks == {context} for _, marks, context in seen.contexts)


@pytest.mark.parametrize("native", [False, True], ids=["react", "native"])
async def test_crews_of_their_own(native: bool) -> None:
    seen = Seen()
    crews = [marked_crew(seen, native=native) for _ in range(RUNS)]
    with seen.events_of_all():
        results = await asyncio.gather(*(kickoff_marked(crew, number) for number, crew in enumerate(crews)))
    expect_isolated(seen, results)
    stored = await asyncio.to_thread(stored_marks)
    assert sorted(stored, key=min) == [{f"mark-{number:04}"} for number in range(RUNS)]
    for number, crew in enumerate(crews):
        mark = {f"mark-{number:04}"}
        assert marks_in([crew.tasks[0].output, crew.agents[0].last_messages, crew._inputs]) == mark
        assert marks_in(await asyncio.to_thread(replayed_rows, crew)) == mark


@pytest.mark.parametrize("native", [False, True], ids=["react", "native"])
async def test_one_crew_for_all(native: bool) -> None:
    seen = Seen()
    crew = marked_crew(seen, native=native)
    with seen.events_of_all():
        results = await asyncio.gather(*(kickoff_marked(crew, number) for number in range(RUNS)))
    expect_isolated(seen, results)
    stored = await asyncio.to_thread(stored_marks)
    assert sorted(stored, key=min) == [{f"mark-{number:04}"} for number in range(RUNS)]


async def test_the_next_runs_of_a_shared_crew_see_nothing_of_the_last_ones() -> None:
    crew = marked_crew(Seen(), native=False)
    await asyncio.gather(*(kickoff_marked(crew, number) for number in range(20)))
    seen = Seen()
    for echo in crew.agents[0].tools:
        echo.seen = seen
    results = await asyncio.gather(*(kickoff_marked(crew, 1000 + number) for number in range(20)))
    assert [marks_in(result) for result in results] == [{f"mark-{1000 + number:04}"} for number in range(20)]
    assert {marks == {context} for _, marks, context in seen.contexts} == {True}
