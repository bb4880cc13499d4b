"""Loops that are closed while runs are under way on them."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import weakref
from typing import Any

import pytest
from crewai import Agent, Crew, Task
from crewai.tools import tool

import fastcrew_async
from fastcrew_async import AsyncCrew
from fastcrew_async.engine import forgotten
from fastcrew_async.engine.drivers import drive
from fastcrew_async.engine.effects import Either
from fastcrew_async.testing import Request, ScriptedLLM, ToolCall
from tests.crews import crew

LEVELS = 3
colour: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="none")


def nested(bottom: Any) -> Crew:
    """A crew whose tool kicks it off again; at the lowest level it awaits `bottom`."""

    @tool("deeper")
    async def deeper(level: int) -> str:
        """Goes one level down."""
        if level >= LEVELS:
            await bottom()
            return "bottom"
        return (await AsyncCrew(made).kickoff({"level": level + 1})).raw  # type: ignore[union-attr]

    def answer(request: Request) -> Any:
        if "bottom" in request.text:
            return "bottom"
        return ToolCall("deeper", {"level": int(request.text.split("at level ")[1].split(" ")[0])})

    agent = Agent(role="r", goal="g", backstory="b", llm=ScriptedLLM(answer, native=True), tools=[deeper])
    made = Crew(agents=[agent], tasks=[Task(description="at level {level} end", expected_output="e", agent=agent)])
    return made


def close_over(start: Any) -> weakref.ref[Any]:
    """A loop that is closed while what `start` starts waits at its bottom."""
    loop = asyncio.new_event_loop()
    reached = loop.create_future()

    async def bottom() -> None:
        reached.set_result(None)
        for generation in range(3):
            gc.collect(generation)  # which changes the order in which what is found unreachable is ended
        await asyncio.sleep(600)

    async def main() -> weakref.ref[Any]:
        task = asyncio.create_task(start(bottom))
        await asyncio.wait_for(reached, 30)
        return weakref.ref(task)

    task = loop.run_until_complete(main())
    for left in asyncio.all_tasks(loop):
        left._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()
    return task


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What Python says of errors that nobody can be given."""
    found: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: found.append(f"{report.exc_value!r}"))
    return found


@pytest.mark.parametrize("ended_by", ["the next run", "the exit"])
def test_nested_runs_end_in_silence_and_are_freed(
    ended_by: str, capfd: pytest.CaptureFixture[str], reports: list[str]
) -> None:
    tasks = [close_over(lambda bottom: AsyncCrew(nested(bottom)).kickoff({"level": 1})) for _ in range(3)]
    gc.collect()
    if ended_by == "the exit":
        forgotten.end_all()
    else:
        asyncio.run(AsyncCrew(crew("tea")).kickoff({"topic": "tea"}))  # type: ignore[arg-type]
    gc.collect()
    assert reports == []
    assert [task() for task in tasks] == [None] * 3
    assert capfd.readouterr() == ("", "")
    assert not forgotten._held


def test_each_ends_in_its_own_context(reports: list[str]) -> None:
    put_back = []

    async def start(bottom: Any) -> None:
        token = colour.set("red")
        try:
            await drive(nested_work(bottom))
        finally:
            colour.reset(token)
            put_back.append(colour.get())

    async def nested_work(bottom: Any) -> None:
        await Either(lambda: None, bottom)

    close_over(start)
    forgotten.end_all()
    assert (put_back, reports) == (["none"], [])


def test_what_fails_at_its_end_is_told_to_the_loop(reports: list[str]) -> None:
    told: list[dict[str, Any]] = []

    async def start(bottom: Any) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
        try:
            await AsyncCrew(nested(bottom)).kickoff({"level": LEVELS})
        finally:
            raise KeyError("lost")

    close_over(start)
    forgotten.end_all()
    assert [repr(context["exception"]) for context in told] == ["KeyError('lost')"]
    assert reports == []


async def test_a_run_that_ends_is_not_held() -> None:
    await asyncio.wait_for(AsyncCrew(crew("tea")).kickoff({"topic": "tea"}), 30)
    assert asyncio.get_running_loop() not in forgotten._held


@pytest.mark.parametrize("terms", [{}, {"timeout": 600, "tenant": "acme"}])
def test_started_runs_are_freed_with_their_loop(terms: Any, reports: list[str]) -> None:
    started = fastcrew_async.stats().runs.started

    async def start(bottom: Any) -> None:
        runs.append(weakref.ref(AsyncCrew(nested(bottom)).start({"level": LEVELS}, **terms)))

    runs: list[Any] = []
    for _ in range(3):
        close_over(start)
        assert fastcrew_async.stats().runs.started == started
    assert runs[-1]() is not None  # nobody else held it, and it was under way
    asyncio.run(AsyncCrew(crew("tea")).kickoff({"topic": "tea"}))  # type: ignore[arg-type]
    gc.collect()
    assert [run() for run in runs] == [None] * 3
    assert reports == []
