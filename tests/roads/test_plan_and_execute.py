"""An agent that plans: a plan, its steps one after another or beside each other, each observed; in a crew and alone."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from crewai import Crew
from crewai.agent.planning_config import PlanningConfig

from fastcrew_async.testing import Reply, Request, ToolCall
from tests.roads.at_once import FEW, RUNS, answers, at_once, of
from tests.roads.crews import Ping, agent, task, topic_of

SEEN = json.dumps({"step_completed_successfully": True})


def planning(after: list[int]) -> Callable[[Request], Reply | str]:
    """A script: a plan of two steps, the second `after` those; each calls ``ping`` and is seen to have been done."""

    def answer(request: Request) -> Reply | str:
        text = request.text
        topic = topic_of(text)
        if "## Planning Principles" in text:
            steps = [
                {"step_number": number, "description": f"ping for <{topic}>", "depends_on": needed}
                for number, needed in ((1, []), (2, after))
            ]
            return json.dumps({"plan": f"ping twice for <{topic}>", "steps": steps, "ready": True})
        if "observing execution progress" in text:
            assert f"pinged <{topic}>" in text
            return SEEN
        if "Current Step" not in text:
            return f"done <{topic}>"
        if not request.tool_results:
            return Reply(tool_calls=[ToolCall("ping", {"text": f"<{topic}>"})])
        return f"pinged <{topic}>"

    return answer


def worker(after: list[int]) -> Any:
    config = PlanningConfig(reasoning_effort="medium", max_attempts=1)
    return agent(planning(after), native=True, tools=[Ping()], planning_config=config)


def in_a_crew(after: list[int]) -> Callable[[str], Awaitable[Any]]:
    """A kickoff of one crew for each topic."""
    own = worker(after)
    return of(Crew(agents=[own], tasks=[task(own)]))


def alone(after: list[int]) -> Callable[[str], Awaitable[Any]]:
    """``Agent.kickoff_async`` of an agent of its own for each topic, made beforehand."""
    agents = [worker(after) for _ in range(FEW + FEW + RUNS)]
    return lambda topic: agents.pop().kickoff_async(f"Job about <{topic}>")


@pytest.mark.parametrize("after", [[1], []], ids=["in turn", "beside each other"])
async def test_every_run_follows_the_plan_of_its_agent(after: list[int]) -> None:
    seen = await at_once(in_a_crew(after))
    assert seen.texts == answers()
    assert not seen.threads


@pytest.mark.parametrize("after", [[1], []], ids=["in turn", "beside each other"])
async def test_every_agent_alone_follows_its_plan(after: list[int], installed: None) -> None:
    seen = await at_once(alone(after))
    assert seen.texts == answers()
    assert not seen.threads
