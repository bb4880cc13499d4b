from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import pytest
from crewai.agents.agent_executor import AgentExecutor as StockAgentExecutor
from crewai.core.providers.human_input import (
    HumanInputProvider,
    SyncHumanInputProvider,
    reset_provider,
    set_provider,
)
from crewai.events.event_context import _event_id_stack

from fastcrew_async.engine import executor as module
from fastcrew_async.engine.drivers import drive, drive_in_place
from fastcrew_async.engine.equip import ready_executor, set_up_executor
from fastcrew_async.engine.executor import AgentExecutor
from fastcrew_async.testing import Reply, ScriptedLLM
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


class _Human(HumanInputProvider):
    """Wants it shorter, once; notes on which thread it was asked."""

    def __init__(self) -> None:
        self.threads: list[int] = []

    def setup_messages(self, context: Any) -> bool:
        return False

    def post_setup_messages(self, context: Any) -> None:
        return None


class OnlySync(_Human):
    def handle_feedback(self, formatted_answer: Any, context: Any) -> Any:
        self.threads.append(threading.get_ident())
        context.messages.append(context._format_feedback_message("shorter"))
        return context._invoke_loop()


class Both(OnlySync):
    async def handle_feedback_async(self, formatted_answer: Any, context: Any) -> Any:
        self.threads.append(threading.get_ident())
        context.messages.append(context._format_feedback_message("shorter"))
        return await context._ainvoke_loop()


class OnlyPrompts(SyncHumanInputProvider):
    def __init__(self) -> None:
        self.threads: list[int] = []

    def _prompt_input(self, crew: Any) -> str:  # type: ignore[override]
        self.threads.append(threading.get_ident())
        return "" if len(self.threads) > 1 else "shorter"


@pytest.mark.parametrize("kind", [OnlySync, Both, OnlyPrompts])
async def test_a_human_is_asked_in_the_form_there_is(kind: Any) -> None:
    human = kind()
    token = set_provider(human)
    try:
        made = executor(["long", "short"])
        assert await made.invoke_async({**INPUTS, "ask_for_human_input": True}) == {"output": "short"}
    finally:
        reset_provider(token)
    assert human.threads
    assert (threading.get_ident() in human.threads) is (kind is Both)


class _KeptAside:
    def __init__(self, fails: bool = False) -> None:
        self.fails = fails
        self.threads: list[int] = []

    def cleanup(self) -> None:
        self.threads.append(threading.get_ident())
        if self.fails:
            raise OSError("busy")


def _keeping_aside(store: _KeptAside, latency: float = 0) -> AgentExecutor:
    llm = ScriptedLLM("done", latency=latency)
    made = executor(llm=llm)
    setup = made._setup_messages

    def keep(inputs: Any) -> None:
        setup(inputs)
        made._tool_result_artifact_store = store  # as a tool's long result does

    made.__dict__["_setup_messages"] = keep
    return made


async def test_what_was_kept_aside_is_deleted_off_the_loop() -> None:
    store = _KeptAside()
    made = _keeping_aside(store)
    await made.invoke_async(INPUTS)
    assert len(store.threads) == 1
    assert threading.get_ident() not in store.threads
    assert made._tool_result_artifact_store is None


async def test_what_was_kept_aside_is_deleted_after_a_cancel(until: Any) -> None:
    store = _KeptAside()
    made = _keeping_aside(store, latency=30)
    running = asyncio.create_task(made.invoke_async(INPUTS))
    llm: Any = made.llm
    await until(lambda: len(llm.requests) == 1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert len(store.threads) == 1
    assert not made._is_executing


def test_a_deletion_that_fails_leaves_the_executor_usable() -> None:
    made = _keeping_aside(_KeptAside(fails=True))
    with pytest.raises(OSError, match="busy"):
        made.invoke(INPUTS)
    assert not made._is_executing
