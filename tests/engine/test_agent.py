from __future__ import annotations

import asyncio
from typing import Any

import pytest
from crewai import Agent, Task

from fastcrew_async.engine.agent import execute_task
from fastcrew_async.engine.drivers import drive, drive_in_place
from fastcrew_async.testing import Reply, ScriptedLLM
from tests import crews


def execute(agent: Agent, task: Task, context: str | None = None) -> Any:
    return drive_in_place(execute_task(agent, task, context, []))


async def test_both_drivers_give_the_same() -> None:
    for agent in (crews.agent(), crews.agent(native=True)):
        task = crews.task(agent)
        assert await drive(execute_task(agent, task, None, [])) == await asyncio.to_thread(execute, agent, task)


def test_a_failing_agent_is_tried_again_as_often_as_its_limit_says() -> None:
    llm = ScriptedLLM([Reply("no", status=500), Reply("no", status=500), "done"])
    agent = crews.agent(llm=llm, max_retry_limit=2)
    assert execute(agent, crews.task(agent)) == "done"
    assert len(llm.requests) == 3
    llm = ScriptedLLM(Reply("no", status=500))
    agent = crews.agent(llm=llm, max_retry_limit=1)
    with pytest.raises(RuntimeError, match="status 500"):
        execute(agent, crews.task(agent))
    assert len(llm.requests) == 2


async def test_the_time_of_an_agent_ends() -> None:
    llm = ScriptedLLM("late", latency=600)
    agent = crews.agent(llm=llm, max_execution_time=1)
    with pytest.raises(TimeoutError, match="execution timed out after 1 seconds"):
        await drive(execute_task(agent, crews.task(agent), None, []))
    assert len(llm.requests) == 1
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_its_messages_and_executor_are_where_users_look() -> None:
    agent = crews.agent()
    execute(agent, crews.task(agent))
    assert "Job about" in str(agent.last_messages[-1]["content"])
    assert agent.agent_executor is not None
    assert not agent.agent_executor._reserved


async def test_two_tasks_of_one_agent_beside_each_other() -> None:
    agent = crews.agent(llm=ScriptedLLM(crews.echo, latency=0.05))
    tasks = [crews.task(agent, description=f"Job about {topic}.") for topic in ("tea", "milk")]
    results = await asyncio.gather(*(drive(execute_task(agent, task, None, [])) for task in tasks))
    assert results == ["tea", "milk"]


async def test_sync_execution_inside_a_loop_is_refused_as_in_crewai() -> None:
    agent = crews.agent()
    with pytest.raises(RuntimeError, match="synchronously from within a running event loop"):
        execute(agent, crews.task(agent))


def test_the_prompt_is_crewais() -> None:
    agent = crews.agent(llm=(llm := ScriptedLLM("done")))
    task = crews.task(agent, markdown=True)
    execute(agent, task)
    assert task.prompt() in llm.requests[0].text
