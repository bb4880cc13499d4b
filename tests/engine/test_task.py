from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from crewai import Task
from crewai.tasks.task_output import TaskOutput
from pydantic import BaseModel

from fastcrew_async.engine.drivers import drive, drive_in_place
from fastcrew_async.engine.task import run_task
from fastcrew_async.testing import ScriptedLLM
from tests import crews


class Word(BaseModel):
    word: str


def run(task: Task, **given: Any) -> TaskOutput:
    arguments = {"agent": None, "context": None, "tools": None, **given}
    return drive_in_place(run_task(task, **arguments))


async def test_both_drivers_give_the_same() -> None:
    in_place, on_loop = (crews.task(crews.agent()) for _ in range(2))
    first = await asyncio.to_thread(run, in_place)
    second = await drive(run_task(on_loop, None, None, None))
    assert (first.raw, first.agent, first.description) == (second.raw, second.agent, second.description)
    assert in_place.output is first
    assert on_loop.output is second
    assert on_loop.start_time is not None
    assert on_loop.end_time is not None


def test_no_agent_is_an_error_of_the_task() -> None:
    with pytest.raises(Exception, match="has no agent assigned"):
        run(crews.task(None))


def test_the_context_is_in_the_prompt() -> None:
    llm = ScriptedLLM("done")
    run(crews.task(crews.agent(llm=llm)), context="what was found before")
    assert "what was found before" in llm.requests[0].text


def test_an_output_of_a_model_class() -> None:
    task = crews.task(crews.agent('{"word": "tea"}'), output_pydantic=Word)
    output = run(task)
    assert output.pydantic == Word(word="tea")
    as_json = run(crews.task(crews.agent('{"word": "tea"}'), output_json=Word))
    assert as_json.json_dict == {"word": "tea"}


def test_a_guardrail_is_asked_until_it_accepts() -> None:
    llm = ScriptedLLM(["long", "short"])
    task = crews.task(crews.agent(llm=llm), guardrail=crews.refusing(1), guardrail_max_retries=2)
    assert run(task).raw == "SHORT"
    assert len(llm.requests) == 2
    assert "too long" in llm.requests[1].text


def test_a_guardrail_that_never_accepts() -> None:
    llm = ScriptedLLM("long")
    task = crews.task(crews.agent(llm=llm), guardrail=crews.refusing(9), guardrail_max_retries=2)
    with pytest.raises(Exception, match=r"after 2 retries\. Last error: too long"):
        run(task)
    assert len(llm.requests) == 3


def test_several_guardrails_one_after_another() -> None:
    task = crews.task(crews.agent("tea"), guardrails=[crews.refusing(0), lambda output: (True, output.raw + "!")])
    assert run(task).raw == "TEA!"


def test_the_callback_and_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told: list[TaskOutput] = []
    task = crews.task(crews.agent('{"word": "tea"}'), output_json=Word, output_file="out.json", callback=told.append)
    output = run(task)
    assert told == [output]
    assert json.loads((tmp_path / "out.json").read_text()) == {"word": "tea"}


@pytest.mark.filterwarnings("ignore:function callbacks cannot be serialized")
async def test_an_async_callback_runs_on_the_callers_loop() -> None:
    loops: list[Any] = []

    async def callback(output: TaskOutput) -> None:
        loops.append(asyncio.get_running_loop())

    await drive(run_task(crews.task(crews.agent(), callback=callback), None, None, None))
    assert loops == [asyncio.get_running_loop()]


def test_a_subclass_that_overrides_execute_sync_is_called() -> None:
    class Own(Task):
        def execute_sync(self, agent: Any = None, context: Any = None, tools: Any = None) -> Any:
            return f"theirs with {context}"

    own = Own(description="x", expected_output="x", agent=crews.agent())
    assert run(own, context="c") == "theirs with c"  # type: ignore[comparison-overlap]


async def test_cancelling_a_task_ends_it_and_its_time(until: Any) -> None:
    llm = ScriptedLLM("late", latency=60)
    task = crews.task(crews.agent(llm=llm))
    running = asyncio.create_task(drive(run_task(task, None, None, None)))
    await until(lambda: bool(llm.requests))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert task.output is None
    assert task.end_time is not None
