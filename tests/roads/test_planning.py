"""A crew with ``planning``: a planner makes a plan for every task first."""

from __future__ import annotations

import json
import re
from typing import Any

from crewai import Crew

from fastcrew_async.testing import Request
from tests.roads.at_once import answers, at_once, each
from tests.roads.crews import agent, done, model, task, topic_of


def planned(request: Request) -> str:
    topic = topic_of(request.text)
    plans = [{"task_number": n + 1, "task": f"Job {n}", "plan": f" Plan {n} for <{topic}>"} for n in range(2)]
    return json.dumps({"list_of_plans_per_task": plans})


def with_plan(request: Request) -> str:
    topic = topic_of(request.text)
    number = re.search(r"Job (\d)", request.text)
    assert number
    assert f"Plan {number[1]} for <{topic}>" in request.text
    return done(request)


async def test_every_run_follows_its_own_plan() -> None:
    def make() -> Any:
        worker = agent(with_plan)
        tasks = [task(worker), task(worker, 1)]
        return Crew(agents=[worker], tasks=tasks, planning=True, planning_llm=model(planned))

    seen = await at_once(each(make))
    assert seen.texts == answers()
    assert not seen.threads
