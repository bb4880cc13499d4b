"""A kickoff cancelled wherever it waits: its events are closed, nothing further starts, the crew runs again."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Generator, Iterator
from typing import Any
from unittest import mock

import pytest
from crewai import Crew
from crewai.events.event_context import VALID_EVENT_PAIRS, _event_id_stack
from crewai.tasks.task_output import TaskOutput
from crewai.tools import tool

from fastcrew_async import AsyncCrew

from .cases.building import agent, solo, task
from .cases.native import native
from .defects.roads import INPUTS
from .models import CallOnlyModel, action, call, final
from .recorder import Recorder, fresh_context
from .recording import storage
from .tools import ping


@pytest.fixture(autouse=True)
def _stored_aside() -> Iterator[None]:
    with mock.patch.dict(os.environ, {"CREWAI_STORAGE_DIR": storage()}):
        yield


class CancelledAt:
    """Awaits a coroutine whose task is cancelled as it waits for the `number`th time."""

    def __init__(self, work: Coroutine[Any, Any, Any], number: int) -> None:
        self.work = work
        self.number = number
        self.waits = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        error: BaseException | None = None
        try:
            while True:
                try:
                    waits_for = self.work.send(None) if error is None else self.work.throw(error)
                except StopIteration as stop:
                    return stop.value
                error = None
                self.waits += 1
                if self.waits == self.number:
                    asyncio.current_task().cancel()  # type: ignore[union-attr]
                try:
                    yield waits_for
                except BaseException as raised:
                    error = raised
        finally:
            self.work.close()


def of_text(recorder: Recorder) -> Crew:
    """Two tasks with every kind of callback, a sync tool and a guardrail that refuses once."""
    answers = iter([False, True] * 100)

    def guardrail(output: TaskOutput):  # type: ignore[no-untyped-def]  # CrewAI reads the annotation
        return (next(answers), "again")

    async def step(value: Any) -> None:
        await asyncio.sleep(0)

    def answer(messages: Any) -> str:
        return final("done") if "Observation: pong" in str(messages) else action("ping", x=1)

    worker = agent(recorder, answer, tools=[ping(recorder)], step_callback=step)
    tasks = [task(worker, 0, guardrail=guardrail), task(worker, 1, callback=recorder.callback("task"))]
    return Crew(
        agents=[worker],
        tasks=tasks,
        before_kickoff_callbacks=[recorder.callback("before")],
        after_kickoff_callbacks=[recorder.callback("after")],
    )


def _native_answer(messages: Any) -> Any:
    if any(message.get("role") == "tool" for message in messages):
        return "done"
    return [call("ping", "c1", x=1), call("second", "c2", x=2)]


def of_parallel_calls(recorder: Recorder) -> Crew:
    return native(recorder, _native_answer, tools=[ping(recorder), ping(recorder, name="second")])


def of_async_tools(recorder: Recorder) -> Crew:
    @tool("ping")
    async def found(x: int) -> str:
        """Answers pong."""
        recorder.note("tool", "ping", x=x)
        await asyncio.sleep(0)
        inner = solo(recorder, lambda messages: final("inner"), role="Inner")
        return f"pong {await AsyncCrew(inner).kickoff(INPUTS)}"

    def answer(messages: Any) -> str:
        return final("done") if "Observation: pong" in str(messages) else action("ping", x=1)

    return solo(recorder, answer, tools=[found])


def of_tasks_beside(recorder: Recorder) -> Crew:
    workers = [agent(recorder, lambda messages: final("done"), role=f"W{n}") for n in range(3)]
    tasks = [task(worker, n, async_execution=n < 2) for n, worker in enumerate(workers)]
    return Crew(agents=workers, tasks=tasks)


def of_a_sync_model(recorder: Recorder) -> Crew:
    return solo(recorder, [], llm=CallOnlyModel.of(recorder, lambda messages: final("done")), max_execution_time=30)


async def _cancelled(make: Callable[[Recorder], Crew], number: int) -> bool:
    """Cancel a kickoff at that wait; False when it has ended before."""
    recorder = Recorder()
    recorder.enter_context()
    crew = make(recorder)
    running = CancelledAt(AsyncCrew(crew).kickoff(INPUTS), number)
    try:
        await running
    except asyncio.CancelledError:
        pass
    else:
        return False
    assert _event_id_stack.get() == ()
    calls = [entry for entry in recorder.entries if entry.kind in ("model", "tool")]
    assert asyncio.all_tasks() == {asyncio.current_task()}
    for _ in range(1000):  # a guardrail that a worker has begun ends there
        if not _open_events(recorder):
            break
        await asyncio.sleep(0.005)
    assert _open_events(recorder) == []
    await asyncio.sleep(0.02)
    late = [entry for entry in recorder.entries if entry.kind in ("model", "tool")][len(calls) :]
    assert len(late) <= 1  # one that a worker had taken already
    assert (await AsyncCrew(crew).kickoff(INPUTS)).raw == "done"
    return True


def _open_events(recorder: Recorder) -> list[str]:
    """The events that open a scope and were not followed by the one that closes it."""
    events = [entry for entry in list(recorder.entries) if entry.kind == "event"]
    openers = set(VALID_EVENT_PAIRS.values())
    ended = {entry.started for entry in events}
    return [entry.name for entry in events if entry.name in openers and entry.event_id not in ended]


@pytest.mark.parametrize("make", [of_text, of_parallel_calls, of_async_tools, of_tasks_beside, of_a_sync_model])
def test_at_every_wait(make: Callable[[Recorder], Crew]) -> None:
    waits = 0
    while fresh_context().run(asyncio.run, _cancelled(make, waits + 1)):
        waits += 1
    assert waits >= 3
