from __future__ import annotations

import asyncio
import threading
from typing import Any, ClassVar

import pytest
from crewai import Agent, Crew, Task
from crewai.llms.base_llm import BaseLLM
from crewai.tasks.conditional_task import ConditionalTask

from fastcrew_async import AsyncCrew
from fastcrew_async.engine.graph import dependencies, graph_of


class Answers(BaseLLM):
    """Says which task it was asked, and notes what runs beside it."""

    counts_tokens_locally: ClassVar[bool] = True

    def __init__(self, **fields: Any) -> None:
        super().__init__(model="answers", **fields)
        self._asked: list[str] = []
        self._running: set[str] = set()
        self._beside: dict[str, set[str]] = {}
        self._prompts: dict[str, str] = {}

    def call(self, messages: Any, **kwargs: Any) -> str:
        raise NotImplementedError

    async def acall(self, messages: Any, *args: Any, **kwargs: Any) -> str:
        prompt = messages[-1]["content"]
        name = prompt.split("do ")[1].split(" ")[0].split("\n")[0]
        self._prompts[name] = prompt
        self._asked.append(name)
        self._running.add(name)
        for other in self._running:
            self._beside.setdefault(other, set()).update(self._running)
        await asyncio.sleep(600 if name == "stays" else 0.02)
        self._running.discard(name)
        if name == "fails":
            raise LookupError("no model")
        return f"Thought: done\nFinal Answer: answer of {name}"


def crew_of(shape: dict[str, list[str]], cls: dict[str, Any] | None = None) -> tuple[Crew, Any]:
    """A crew with one agent for all tasks; `shape` gives each task's context."""
    llm = Answers()
    agent = Agent(role="r", goal="g", backstory="b", llm=llm, max_retry_limit=0)
    tasks: dict[str, Task] = {}
    for name, context in shape.items():
        kind, extra = (cls or {}).get(name, (Task, {}))
        given = {"context": [tasks[other] for other in context]} if context else {}
        tasks[name] = kind(name=name, description=f"do {name}", expected_output="e", agent=agent, **given, **extra)
    return Crew(agents=[agent], tasks=list(tasks.values())), llm


DIAMOND = {"top": [], "left": ["top"], "right": ["top"], "end": ["left", "right"]}


async def test_independent_tasks_of_one_agent_run_at_the_same_time() -> None:
    crew, llm = crew_of(DIAMOND)
    output: Any = await asyncio.wait_for(AsyncCrew(crew, order="graph").kickoff(), 20)
    assert [task.raw for task in output.tasks_output] == [f"answer of {name}" for name in DIAMOND]
    assert output.raw == "answer of end"
    assert llm._beside["left"] == {"left", "right"}
    assert llm._beside["end"] == {"end"}
    assert "answer of left" in llm._prompts["end"]
    assert "answer of right" in llm._prompts["end"]
    assert "answer of right" not in llm._prompts["left"]


async def test_where_the_contexts_are_the_same_the_outputs_are() -> None:
    graph, _ = crew_of(DIAMOND)
    listed, llm = crew_of(DIAMOND)
    outputs: list[Any] = [
        await asyncio.wait_for(AsyncCrew(graph, order="graph").kickoff(), 20),
        await asyncio.wait_for(AsyncCrew(listed).kickoff(), 20),
    ]
    first, second = ([(t.name, t.raw, t.description, t.agent) for t in output.tasks_output] for output in outputs)
    assert first == second
    assert llm._beside["left"] == {"left"}  # listed: one after the other


async def test_a_task_without_a_context_is_independent() -> None:
    crew, llm = crew_of({"one": [], "two": []})
    await asyncio.wait_for(AsyncCrew(crew, order="graph").kickoff(), 20)
    assert llm._beside["one"] == {"one", "two"}
    assert "answer of one" not in llm._prompts["two"]


async def test_a_conditional_task_waits_for_the_one_before_it() -> None:
    seen: list[str] = []

    def look(output: Any) -> bool:
        seen.append(output.raw)
        return False

    crew, llm = crew_of({"first": [], "maybe": [], "last": []}, {"maybe": (ConditionalTask, {"condition": look})})
    output: Any = await asyncio.wait_for(AsyncCrew(crew, order="graph").kickoff(), 20)
    assert seen == ["answer of first"]
    assert [task.raw for task in output.tasks_output] == ["answer of first", "", "answer of last"]
    assert "maybe" not in llm._asked


async def test_a_slow_condition_holds_up_only_its_own_task() -> None:
    chain_is_done = threading.Event()

    def slow(output: Any) -> bool:
        return chain_is_done.wait(20)

    shape: dict[str, list[str]] = {"first": [], "maybe": [], "second": ["first"], "third": ["second"]}
    crew, llm = crew_of(shape, {"maybe": (ConditionalTask, {"condition": slow})})
    crew.tasks[3].callback = lambda output: chain_is_done.set()
    output: Any = await asyncio.wait_for(AsyncCrew(crew, order="graph").kickoff(), 40)
    assert [task.raw for task in output.tasks_output] == [f"answer of {name}" for name in shape]
    assert llm._asked[-1] == "maybe"


async def test_a_cancel_ends_a_run_whose_condition_is_asked() -> None:
    asked, go = threading.Event(), threading.Event()

    def slow(output: Any) -> bool:
        asked.set()
        return go.wait(20)

    crew, llm = crew_of({"first": [], "maybe": []}, {"maybe": (ConditionalTask, {"condition": slow})})
    task = asyncio.create_task(AsyncCrew(crew, order="graph").kickoff())
    while not asked.is_set():
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 10)
    go.set()
    await asyncio.sleep(0.05)
    assert llm._asked == ["first"]
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_a_condition_that_fails_ends_the_run() -> None:
    def fail(output: Any) -> bool:
        raise LookupError("no condition")

    crew, llm = crew_of({"first": [], "maybe": [], "stays": []}, {"maybe": (ConditionalTask, {"condition": fail})})
    with pytest.raises(LookupError, match="no condition"):
        await asyncio.wait_for(AsyncCrew(crew, order="graph").kickoff(), 20)
    assert "maybe" not in llm._asked
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_a_failure_ends_the_run_and_what_waits_never_starts() -> None:
    crew, llm = crew_of({"fails": [], "stays": [], "after": ["stays"]})
    with pytest.raises(LookupError):
        await asyncio.wait_for(AsyncCrew(crew, order="graph").kickoff(), 20)
    await asyncio.sleep(0.05)
    assert "after" not in llm._asked
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_a_cancel_ends_all_branches() -> None:
    crew, llm = crew_of({"one": [], "two": [], "after": ["one"]})
    task = asyncio.create_task(AsyncCrew(crew, order="graph").kickoff())
    while len(llm._asked) < 2:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 10)
    await asyncio.sleep(0.05)
    assert llm._asked == ["one", "two"]
    output: Any = await asyncio.wait_for(AsyncCrew(crew, order="graph").kickoff(), 20)
    assert output.raw == "answer of after"


def test_what_each_waits_for() -> None:
    crew, _ = crew_of(DIAMOND)
    assert dependencies(crew.tasks) == [[], [0], [0], [1, 2]]


async def test_tasks_that_wait_for_each_other_are_named_before_anything_starts() -> None:
    crew, llm = crew_of({"one": [], "two": ["one"], "three": ["two"]})
    crew.tasks[0].context = [crew.tasks[2]]
    with pytest.raises(ValueError, match="wait for each other") as refused:
        await AsyncCrew(crew, order="graph").kickoff()
    assert all(f"'{name}'" in str(refused.value) for name in ("one", "two", "three"))
    assert llm._asked == []


async def test_a_context_outside_of_the_crew_is_named_unless_it_has_an_output() -> None:
    stranger = Task(name="stranger", description="d", expected_output="e")
    crew, llm = crew_of({"one": []})
    crew.tasks[0].context = [stranger]
    with pytest.raises(ValueError, match="'one' has task 'stranger' in its context"):
        await AsyncCrew(crew, order="graph").kickoff()
    assert llm._asked == []
    other, _ = crew_of({"x": []})
    await asyncio.wait_for(AsyncCrew(other).kickoff(), 20)
    crew.tasks[0].context = [other.tasks[0]]
    await asyncio.wait_for(AsyncCrew(crew, order="graph").kickoff(), 20)
    assert "answer of x" in llm._prompts["one"]


def test_an_order_that_there_is_not() -> None:
    with pytest.raises(ValueError, match="order='random' is unknown; use 'listed' or 'graph'"):
        AsyncCrew(crew_of({"one": []})[0], order="random")  # type: ignore[arg-type]


def test_a_large_graph() -> None:
    tasks = [Task(description=f"d{number}", expected_output="e") for number in range(300)]
    for place, task in enumerate(tasks[1:], 1):
        task.context = [tasks[place - 1]]
    assert graph_of(tasks).left == 300
