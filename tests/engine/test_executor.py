from __future__ import annotations

import gc
from typing import Any

import pytest
from crewai.agents.agent_executor import AgentExecutor as StockAgentExecutor
from crewai.events.event_context import _event_id_stack

from fastcrew_async.engine import executor as module
from fastcrew_async.engine.drivers import drive, drive_in_place
from fastcrew_async.engine.equip import ready_executor, set_up_executor
from fastcrew_async.engine.executor import AgentExecutor
from fastcrew_async.testing import Reply
from tests import crews

INPUTS = {"input": "Job", "tool_names": "", "tools": ""}


def executor(script: Any = "done", **fields: Any) -> AgentExecutor:
    agent = crews.agent(script, **fields)
    made: AgentExecutor = ready_executor(agent)
    set_up_executor(agent, agent.tools, crews.task(agent))
    return made


def test_it_is_an_executor_of_crewai_by_class_and_name() -> None:
    assert isinstance(executor(), StockAgentExecutor)
    assert AgentExecutor.__name__ == StockAgentExecutor.__name__


def test_invoke_in_place() -> None:
    made = executor()
    assert made.invoke(INPUTS) == {"output": "done"}
    assert made.invoke(INPUTS) == {"output": "done"}
    assert not made._is_executing


async def test_invoke_inside_a_loop_gives_the_coroutine_of_invoke_async() -> None:
    made = executor()
    waiting: Any = made.invoke(INPUTS)
    assert await waiting == {"output": "done"}
    assert await made.invoke_async(INPUTS) == {"output": "done"}


def test_each_execution_begins_with_nothing_of_the_last() -> None:
    made = executor(crews.use_ping, tools=[crews.ping])
    made.invoke(INPUTS)
    first = [dict(message) for message in made.state.messages]
    made.invoke(INPUTS)
    assert [dict(message) for message in made.state.messages] == first
    assert made.state.iterations == 1


async def test_one_instance_runs_one_execution_at_a_time() -> None:
    made = executor()
    running = made.run(INPUTS)
    running.send(None)
    with pytest.raises(RuntimeError, match="already running"):
        await drive(made.run(INPUTS))
    running.close()
    assert await drive(made.run(INPUTS)) == {"output": "done"}


def test_an_executor_without_a_prompt_is_told() -> None:
    made = executor()
    made.__dict__["prompt"] = None
    with pytest.raises(RuntimeError, match=r"\.prompt is unset"):
        made.invoke(INPUTS)
    assert not made._is_executing


def test_a_failing_execution_leaves_it_ready_and_no_scope_open() -> None:
    scope = _event_id_stack.get()
    made = executor([Reply("no", status=500), "done"])
    with pytest.raises(RuntimeError, match="status 500"):
        made.invoke(INPUTS)
    assert not made._is_executing
    assert _event_id_stack.get() == scope
    assert made.invoke(INPUTS) == {"output": "done"}


def test_kickoff_runs_over_the_messages_there_are() -> None:
    made = executor()
    made._setup_messages(INPUTS)
    made.kickoff()
    assert made.state.current_answer.output == "done"  # type: ignore[union-attr]


def test_a_kickoff_that_was_replaced_is_used() -> None:
    calls: list[str] = []

    made = executor()
    stock = made.kickoff

    def kickoff(*args: Any, **kwargs: Any) -> Any:
        calls.append("theirs")
        return stock(*args, **kwargs)

    object.__setattr__(made, "kickoff", kickoff)
    made.__dict__["kickoff"] = kickoff
    assert drive_in_place(made.run(INPUTS)) == {"output": "done"}
    assert calls == ["theirs"]


def test_release_takes_idle_executors_from_their_agents_only() -> None:
    idle, busy = executor(), executor()
    busy._is_executing = True
    module.release()
    assert idle.agent.agent_executor is None  # type: ignore[union-attr]
    assert busy.agent.agent_executor is busy  # type: ignore[union-attr]


def test_executors_that_are_gone_are_forgotten() -> None:
    made = executor()
    key = id(made)
    assert module._living[key]() is made
    made.agent.agent_executor = None  # type: ignore[union-attr]
    gone = module._living[key]
    del made
    gc.collect()
    assert gone() is None
    assert module._living.get(key) is not gone
