"""A crew, its checkpoint and its replay after, or beside, another run: 1, 4, 7."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from crewai import Crew
from crewai.state.checkpoint_config import CheckpointConfig

from ..cases.building import agent, solo, task
from ..models import final
from ..recorder import Recorder
from ..ways import Way
from .roads import INPUTS, Kickoff, ours, run, stock
from .slow import slow_crew


def answering(text: str = "done") -> Crew:
    return solo(Recorder(), lambda messages: final(text))


# 1
async def _replayed_after_another(kickoff: Kickoff) -> Any:
    first, second = answering("first"), answering("second")
    await kickoff(first, INPUTS)
    await kickoff(second, INPUTS)
    return (await asyncio.to_thread(first.replay, str(first.tasks[0].id))).raw


@stock()
def test_stock_loses_the_replay_of_the_crew_before(way: Way) -> None:
    with pytest.raises(ValueError, match="not found"):
        run(way, _replayed_after_another)


@ours("installed akickoff", "installed kickoff", "installed kickoff_async")  # `replay` itself needs install()
def test_replay_finds_the_crew_before(way: Way) -> None:
    assert run(way, _replayed_after_another) == "first"


# 4
def _checkpointed(folder: Any) -> Crew:
    return solo(
        Recorder(),
        [final("one"), final("two")],
        crew_options={"checkpoint": CheckpointConfig(location=str(folder), on_events=["task_completed"])},
    )


async def _answers_of_two_runs(kickoff: Kickoff, crew: Crew) -> list[str]:
    return [(await kickoff(crew, {"topic": topic})).raw for topic in ("a", "b")]


@stock()
def test_stock_runs_a_checkpointed_crew_once(way: Way, tmp_path: Any) -> None:
    assert run(way, lambda kickoff: _answers_of_two_runs(kickoff, _checkpointed(tmp_path))) == ["one", "one"]


@ours()
def test_a_checkpointed_crew_runs_again(way: Way, tmp_path: Any) -> None:
    assert run(way, lambda kickoff: _answers_of_two_runs(kickoff, _checkpointed(tmp_path))) == ["one", "two"]


# 7
async def _together(kickoff: Kickoff) -> list[Any]:
    model, crew = slow_crew(1)
    first = asyncio.ensure_future(kickoff(crew, {"topic": "a"}))
    await model.entered()
    second = kickoff(crew, {"topic": "b"})
    return [getattr(result, "raw", result) for result in await asyncio.gather(first, second, return_exceptions=True)]


def _one_agent_two_tasks_beside() -> Crew:
    worker = agent(Recorder(), lambda messages: final("done"))
    tasks = [task(worker, 0, async_execution=True), task(worker, 1, async_execution=True), task(worker, 2)]
    return Crew(agents=[worker], tasks=tasks)


@stock()
def test_stock_runs_one_agent_once_at_a_time(way: Way) -> None:
    with pytest.raises(RuntimeError, match="already running"):
        run(way, lambda kickoff: kickoff(_one_agent_two_tasks_beside(), INPUTS))


@ours()
def test_one_agent_runs_two_tasks_beside_each_other(way: Way) -> None:
    assert run(way, lambda kickoff: kickoff(_one_agent_two_tasks_beside(), INPUTS)).raw == "done"


@stock()
def test_stock_runs_one_crew_once_at_a_time(way: Way) -> None:
    results = run(way, _together)
    assert any("already running" in str(result) for result in results)


@ours()
def test_one_crew_runs_any_number_of_times_at_once(way: Way) -> None:
    assert run(way, _together) == ["late", "late"]
