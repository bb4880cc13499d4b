from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from crewai import Crew
from crewai.utilities.planning_handler import CrewPlanner, PlannerTaskPydanticOutput

from fastcrew_async import workers
from fastcrew_async.engine.drivers import drive, drive_in_place
from fastcrew_async.engine.planning import plan
from fastcrew_async.testing import ScriptedLLM
from tests import crews


def steps(*numbers: int) -> str:
    plans = [{"task_number": n, "task": "job", "plan": f" By step {n}."} for n in numbers]
    return json.dumps({"list_of_plans_per_task": plans})


def planned(script: Any, **options: Any) -> tuple[Crew, ScriptedLLM]:
    llm = ScriptedLLM(script, **options)
    return crews.crew(tasks=2, crew_options={"planning": True, "planning_llm": llm}), llm


async def test_each_task_gets_its_plan_and_no_thread_is_taken() -> None:
    crew, llm = planned(steps(2, 1, 2))
    before = workers.pool().stats()["done"]
    await drive(plan(crew))
    assert [task.description for task in crew.tasks] == [
        "Job about {topic}. By step 1.",
        "Step 1. Job about {topic}. By step 2.",
    ]
    assert workers.pool().stats()["done"] == before
    assert "Job about {topic}." in llm.requests[0].text


def test_in_place_a_task_without_a_plan_stays_as_it_is() -> None:
    crew, _ = planned(steps(1))
    drive_in_place(plan(crew))
    assert crew.tasks[1].description == "Step 1. Job about {topic}."


async def test_an_answer_that_is_no_plan() -> None:
    crew, _ = planned("none")
    with pytest.raises(Exception, match="Failed to convert text"):
        await drive(plan(crew))


async def test_a_planner_of_the_users_own_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    crew, llm = planned("never")
    answer = PlannerTaskPydanticOutput.model_validate_json(steps(1))
    monkeypatch.setattr(CrewPlanner, "_handle_crew_planning", lambda self: answer)
    await drive(plan(crew))
    assert crew.tasks[0].description == "Job about {topic}. By step 1."
    assert llm.requests == []


async def test_a_cancel_ends_the_planning(until: Any) -> None:
    crew, llm = planned("never", latency=30)
    running = asyncio.create_task(drive(plan(crew)))
    await until(lambda: len(llm.requests) == 1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
