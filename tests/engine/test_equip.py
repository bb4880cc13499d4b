from __future__ import annotations

from typing import Any

import pytest
from crewai.agents.agent_executor import AgentExecutor as StockAgentExecutor
from crewai.tools.structured_tool import CrewStructuredTool
from crewai.utilities.agent_utils import parse_tools, render_text_description_and_args

from fastcrew_async.engine.equip import create_agent_executor, ready_executor, set_up_executor
from fastcrew_async.engine.executor import AgentExecutor
from fastcrew_async.engine.tool_schema import describe
from tests import crews


def test_an_idle_executor_is_taken_again_and_a_busy_one_is_left() -> None:
    agent = crews.agent()
    first = ready_executor(agent)
    assert type(first) is AgentExecutor
    assert ready_executor(agent) is first
    first._is_executing = True
    second = ready_executor(agent)
    assert second is not first
    second._reserved = True
    assert ready_executor(agent) is not second
    assert agent.agent_executor is not second


def test_executors_share_nothing_that_a_run_changes() -> None:
    first, second = (ready_executor(crews.agent()) for _ in range(2))
    for name in ("_state", "_execution_lock", "_tool_call_counts", "tools", "stop_words", "callbacks"):
        assert getattr(first, name) is not getattr(second, name), name
    assert first.state.messages is not second.state.messages
    assert first.state.id != second.state.id


def test_an_executor_of_the_users_own_is_left_alone() -> None:
    class Own(StockAgentExecutor):
        pass

    chosen = crews.agent(executor_class=Own)
    assert ready_executor(chosen) is None
    create_agent_executor(chosen)
    assert type(chosen.agent_executor) is Own
    put = crews.agent()
    put.agent_executor = own = Own(agent=put, llm=put.llm)
    assert ready_executor(put) is own


def test_crewais_own_executor_makes_room() -> None:
    agent = crews.agent()
    agent.create_agent_executor()
    assert type(agent.agent_executor) is StockAgentExecutor
    assert type(ready_executor(agent)) is AgentExecutor


def test_a_model_that_was_not_resolved_is_told() -> None:
    agent = crews.agent()
    agent.__dict__["llm"] = "gpt-4o-mini"
    with pytest.raises(RuntimeError, match="LLM must be resolved"):
        ready_executor(agent)


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("tools", [[], [crews.ping]])
def test_it_gets_what_crewai_gives(native: bool, tools: Any) -> None:
    ours, theirs = (crews.agent(native=native, tools=tools) for _ in range(2))
    ready_executor(ours)
    for agent in (ours, theirs):
        job = crews.task(agent)
        (set_up_executor if agent is ours else type(agent).create_agent_executor)(agent, agent.tools, job)
    for name in ("prompt", "stop_words", "tools_names", "tools_description", "response_model", "max_iter"):
        assert getattr(ours.agent_executor, name) == getattr(theirs.agent_executor, name), name
    assert [tool.name for tool in ours.agent_executor.tools] == [tool.name for tool in theirs.agent_executor.tools]


def test_the_prompt_follows_the_texts_of_the_agent() -> None:
    agent = crews.agent(role="First")
    job = crews.task(agent)
    ready_executor(agent)
    set_up_executor(agent, [], job)
    assert "First" in str(agent.agent_executor.prompt)
    agent.role = "Second"
    set_up_executor(agent, [], job)
    assert "Second" in str(agent.agent_executor.prompt)


def test_create_agent_executor_of_the_users_own_is_called() -> None:
    calls: list[Any] = []

    class Own(type(crews.agent())):  # type: ignore[misc]
        def create_agent_executor(self, tools: Any = None, task: Any = None) -> None:
            calls.append(tools)

    agent = Own(role="Own", goal="x", backstory="x", llm=crews.agent().llm)
    set_up_executor(agent, [crews.ping], crews.task(agent))
    assert calls == [[crews.ping]]


def test_tools_are_described_as_crewai_describes_them() -> None:
    tools = parse_tools([crews.ping])
    assert describe(tools) == describe(tools) == render_text_description_and_args(tools)
    changed = parse_tools([crews.ping.model_copy(update={"description": "Another"})])
    assert "Another" in describe(changed)


def test_a_description_of_the_users_own_is_used() -> None:
    class Own(CrewStructuredTool):
        @property
        def formatted_description(self) -> str:
            return "their own words"

    made = crews.ping.to_structured_tool()
    own = Own(name=made.name, description=made.description, args_schema=made.args_schema, func=made.func)
    assert describe([own]) == "their own words"
