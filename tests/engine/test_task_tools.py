from __future__ import annotations

import asyncio
import threading
from typing import Any
from unittest import mock

import pytest
from crewai import Agent, Crew, Process, Task
from crewai.crew import Crew as StockCrew
from crewai.memory.unified_memory import Memory

from fastcrew_async.engine.drivers import drive
from fastcrew_async.engine.task_tools import prepare_tools
from fastcrew_async.testing import ScriptedLLM


def agent(role: str, **fields: Any) -> Agent:
    return Agent(role=role, goal="g", backstory="b", llm=ScriptedLLM("", latency=0.0), **fields)


def memory() -> Memory:
    return Memory(storage=mock.MagicMock(), embedder=lambda texts: [[1.0] for _ in texts])


def two(kind: type[Crew] = Crew, *, delegates: bool = False, remembers: bool = False, **fields: Any) -> Crew:
    agents = [agent("one", allow_delegation=delegates), agent("two")]
    task = Task(description="d", expected_output="e", agent=agents[0])
    return kind(agents=agents, tasks=[task], **({"memory": memory()} if remembers else {}), **fields)


def shown(tools: list[Any]) -> list[tuple[str, str]]:
    return [(tool.name, tool.description) for tool in tools]


async def prepared(crew: Crew) -> list[Any]:
    task = crew.tasks[0]
    return await asyncio.wait_for(drive(prepare_tools(crew, crew._get_agent_to_use(task), task)), 30)


@pytest.mark.parametrize("delegates", [False, True])
@pytest.mark.parametrize("remembers", [False, True])
async def test_they_are_crewais_and_take_no_thread(
    delegates: bool, remembers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    crew = two(delegates=delegates, remembers=remembers)
    task = crew.tasks[0]
    assert task.agent is not None
    stock = await asyncio.to_thread(StockCrew._prepare_tools, crew, task.agent, task, [])
    assert len(stock) == 2 * delegates + 2 * remembers
    monkeypatch.setattr("fastcrew_async.engine.effects.Blocking.aperform", lambda *_: pytest.fail("a worker was taken"))
    assert shown(await prepared(crew)) == shown(stock)


async def test_a_manager_delegates_to_the_tasks_agent() -> None:
    manager = agent("manager", allow_delegation=True)
    crew = two(process=Process.hierarchical, manager_agent=manager)
    stock = await asyncio.to_thread(StockCrew._prepare_tools, crew, manager, crew.tasks[0], [])
    assert shown(await prepared(crew)) == shown(stock) != []
    crew.manager_agent = None
    with pytest.raises(ValueError, match="Manager agent is required"):
        await drive(prepare_tools(crew, manager, crew.tasks[0]))


@pytest.mark.parametrize("name", ["_prepare_tools", "_add_memory_tools", "_merge_tools"])
async def test_a_method_of_the_users_is_called_on_a_worker(name: str) -> None:
    called = []

    def own(self: Any, *args: Any) -> Any:
        called.append(threading.current_thread() is threading.main_thread())
        return getattr(StockCrew, name)(self, *args)

    kind = type("Mine", (Crew,), {name: own if name != "_merge_tools" else staticmethod(lambda *a: own(*a))})
    crew = two(kind, remembers=True)
    assert [tool.name for tool in await prepared(crew)] == ["Search memory", "Save to memory"]
    assert called == [False]


async def test_delegation_tools_of_the_users_are_made_on_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []

    class Mine(Agent):
        def get_delegation_tools(self, agents: Any) -> Any:
            called.append(threading.current_thread() is threading.main_thread())
            return super().get_delegation_tools(agents)

    crew = two(delegates=True)
    mine = Mine(role="one", goal="g", backstory="b", llm=ScriptedLLM("", latency=0.0), allow_delegation=True)
    crew.agents[0] = crew.tasks[0].agent = mine
    assert len(await prepared(crew)) == 2
    assert called == [False]
