from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from crewai import Agent, Crew, Task
from crewai.events.event_bus import crewai_event_bus
from crewai.events.types.crew_events import CrewKickoffStartedEvent
from crewai.tools import tool
from crewai.tools.agent_tools.agent_tools import AgentTools

import fastcrew_async
from fastcrew_async import AsyncCrew, call_stack, config, configure, workers
from fastcrew_async.engine.kickoff import kickoff_in_place
from fastcrew_async.errors import ToolRecursionError
from fastcrew_async.testing import Reply, Request, ScriptedLLM, ToolCall
from tests.crews import agent, crew, storage, task

__all__ = ["storage"]

pytestmark = pytest.mark.usefixtures("storage")


@pytest.fixture(autouse=True)
def fresh_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "_settings", config.settings())


@pytest.fixture
def installed() -> Iterator[None]:
    fastcrew_async.install()
    yield
    fastcrew_async.uninstall()


class Nest:
    """A crew whose only tool kicks the same crew off again, down to `levels`; there it awaits `bottom`."""

    def __init__(
        self, levels: int, *, native: bool, in_place: bool, bottom: Callable[[], Awaitable[Any]] | None = None
    ) -> None:
        self.levels = levels
        self.deepest: list[Any] = []
        self.stack = 0
        self.asked = 0
        nest = self

        def at_bottom() -> None:
            nest.deepest = call_stack()
            nest.stack = _python_frames()

        @tool("deeper")
        async def deeper(level: int) -> str:
            """Goes one level down."""
            if level >= nest.levels:
                at_bottom()
                if bottom is not None:
                    await bottom()
                return "bottom"
            return (await AsyncCrew(nest.crew).kickoff({"level": level + 1})).raw  # type: ignore[union-attr]

        @tool("deeper")
        def deeper_in_place(level: int) -> str:
            """Goes one level down."""
            if level >= nest.levels:
                at_bottom()
                return "bottom"
            return kickoff_in_place(nest.crew, {"level": level + 1}).raw  # type: ignore[union-attr]

        used = deeper_in_place if in_place else deeper
        agent = Agent(role="r", goal="g", backstory="b", llm=ScriptedLLM(self.answer, native=native), tools=[used])
        task = Task(description="at level {level} end", expected_output="e", agent=agent)
        self.crew = Crew(name="nest", agents=[agent], tasks=[task])

    def answer(self, request: Request) -> Reply | ToolCall | str:
        self.asked += 1
        if "bottom" in request.text:
            return "bottom"
        level = int(request.text.split("at level ")[1].split(" ")[0])
        return ToolCall("deeper", {"level": level})

    async def run(self) -> str:
        output: Any = await asyncio.wait_for(AsyncCrew(self.crew).kickoff({"level": 1}), 120)
        return str(output.raw)


def _python_frames() -> int:
    frame, count = sys._getframe(), 0
    while frame.f_back is not None:
        frame, count = frame.f_back, count + 1
    return count


def runaway(role: str, other: str, native: bool) -> Agent:
    """Delegates whatever it is asked to `other`."""
    answer = ToolCall("Delegate work to coworker", {"task": "again", "context": "none", "coworker": other})
    return agent(answer, role=role, native=native)


WAYS = [(native, in_place) for native in (False, True) for in_place in (False, True)]


@pytest.mark.parametrize(("native", "in_place"), WAYS)
async def test_the_chain_is_seen_from_inside(native: bool, in_place: bool) -> None:
    nest = Nest(3, native=native, in_place=in_place)
    assert await nest.run() == "bottom"
    assert [(call.kind, call.name) for call in nest.deepest] == [("crew", "nest"), ("tool", "deeper")] * 3
    assert call_stack() == []


@pytest.mark.parametrize(("native", "in_place"), WAYS)
async def test_a_runaway_is_stopped_with_its_chain_and_no_retry(native: bool, in_place: bool) -> None:
    configure(max_depth=7)
    nest = Nest(1000, native=native, in_place=in_place)
    with pytest.raises(ToolRecursionError, match="8 nested calls are more than max_depth=7 allows: nest > deeper"):
        await nest.run()
    assert nest.asked == 4  # one call a crew: nobody was asked what to do about it
    nest.levels = 1
    assert await nest.run() == "bottom"


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("way", ["kickoff", "akickoff", "AsyncCrew"])
@pytest.mark.usefixtures("installed")
def test_agents_that_delegate_to_each_other_for_ever_are_stopped(way: str, native: bool) -> None:
    configure(max_depth=9)
    first, second = runaway("First", "Second", native), runaway("Second", "First", native)
    first.tools, second.tools = (AgentTools(agents=[other]).tools() for other in (second, first))
    both = Crew(name="pair", agents=[first, second], tasks=[task(first)])
    chain = (
        r"10 nested calls are more than max_depth=9 allows: "
        r"pair > Delegate work to coworker > Second > Delegate work to coworker > First > .* > First > "
        r"Delegate work to coworker$"
    )
    ways: dict[str, Callable[[], Any]] = {
        "kickoff": lambda: both.kickoff({"topic": "tea"}),
        "akickoff": lambda: asyncio.run(both.akickoff({"topic": "tea"})),
        "AsyncCrew": lambda: asyncio.run(AsyncCrew(both).kickoff({"topic": "tea"})),
    }
    with pytest.raises(ToolRecursionError, match=chain):
        ways[way]()
    for one in (first, second):
        assert len(one.llm.requests) <= 3


@pytest.mark.usefixtures("installed")
def test_an_agent_without_a_crew_is_a_call_of_its_own() -> None:
    seen: list[Any] = []

    @tool("look")
    def look() -> str:
        """Looks at the chain."""
        seen.append([(call.kind, call.name) for call in call_stack()])
        return "looked"

    agent([ToolCall("look"), "done"], role="Alone", tools=[look], native=True).kickoff("look")
    assert seen == [[("agent", "Alone"), ("tool", "look")]]


async def test_a_repeated_call_is_refused_where_that_is_asked_for() -> None:
    configure(refuse_repeats=True)
    nest = Nest(1000, native=False, in_place=False)
    nest.crew.agents[0].llm._prompter._script = lambda request: ToolCall("deeper", {"level": 1})
    with pytest.raises(ToolRecursionError, match="deeper is called with the same arguments as further up"):
        await nest.run()


async def test_what_a_tool_has_left_running_is_not_nested_in_it() -> None:
    """A crew that has itself started again when it ends: for ever, but never two deep."""
    configure(max_depth=6)
    chains: list[list[str]] = []
    left: list[asyncio.Task[Any]] = []
    ended = asyncio.Event()

    async def again(after: asyncio.Task[Any] | None) -> None:
        if after is not None:
            await asyncio.wait({after})
        await AsyncCrew(endless).kickoff({"topic": "tea"})

    @tool("leave")
    async def leave() -> str:
        """Leaves a run behind."""
        chains.append([call.name for call in call_stack()])
        if len(chains) == 10:
            ended.set()
        else:
            left.append(asyncio.create_task(again(asyncio.current_task())))
        return "left"

    endless = crew(
        lambda request: "done" if request.tool_results else ToolCall("leave"),
        tools=[leave],
        native=True,
        crew_options={"name": "endless"},
    )
    left.append(asyncio.create_task(again(None)))
    await asyncio.wait_for(ended.wait(), 30)
    await asyncio.wait_for(asyncio.gather(*left), 30)
    assert chains == [["endless", "leave"]] * 10


@pytest.mark.parametrize(("native", "in_place", "levels"), [(False, False, 150), (True, False, 150), (True, True, 200)])
async def test_many_levels_need_no_more_of_the_stack(native: bool, in_place: bool, levels: int) -> None:
    configure(max_depth=10 * levels)
    limit = sys.getrecursionlimit()
    few = Nest(9, native=native, in_place=in_place)
    assert await few.run() == "bottom"
    nest = Nest(levels, native=native, in_place=in_place)
    assert await nest.run() == "bottom"
    assert len(nest.deepest) == 2 * levels
    # In place a thread carries up to eight levels; on the loop a task carries one.
    assert nest.stack <= (few.stack + 600 if in_place else few.stack)
    assert sys.getrecursionlimit() == limit


async def test_events_find_their_parents_however_deep() -> None:
    configure(max_depth=1000)
    nest = Nest(40, native=True, in_place=False)
    parents: list[str | None] = []
    with crewai_event_bus.scoped_handlers():

        @crewai_event_bus.on(CrewKickoffStartedEvent)
        def started(source: Any, event: CrewKickoffStartedEvent) -> None:
            parents.append(event.parent_event_id)

        assert await nest.run() == "bottom"
    assert parents[0] is None
    assert None not in parents[1:]
    assert len(set(parents)) == 40


async def test_a_cancel_ends_a_deep_chain() -> None:
    configure(max_depth=1000)
    reached = asyncio.Event()

    async def stay() -> None:
        reached.set()
        await asyncio.sleep(600)

    nest = Nest(80, native=True, in_place=False, bottom=stay)
    running = asyncio.create_task(nest.run())
    await asyncio.wait_for(reached.wait(), 60)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 60)
    assert [other for other in asyncio.all_tasks() if other is not asyncio.current_task()] == []
    assert [thread for thread in threading.enumerate() if thread.name == "fastcrew-nested"] == []


@pytest.mark.parametrize("inner", ["in place", "on a loop"])
async def test_200_tools_that_each_kick_off_a_crew_on_8_workers(monkeypatch: pytest.MonkeyPatch, inner: str) -> None:
    few = workers.WorkerPool(8)
    monkeypatch.setattr(workers, "_pool", few)

    @tool("ask")
    def ask(number: int) -> str:
        """Asks a crew, whose tool is a sync one too."""
        below = crew([ToolCall("ping"), "inner"], tools=[ping], native=True)
        if inner == "in place":
            return str(kickoff_in_place(below, {"topic": "tea"}))
        return str(asyncio.run(AsyncCrew(below).kickoff({"topic": "tea"})))

    @tool("ping")
    def ping() -> str:
        """Answers."""
        return "pong"

    outer = crew(
        lambda request: "done" if request.tool_results else ToolCall("ask", {"number": 1}), tools=[ask], native=True
    )
    runs = (AsyncCrew(outer).kickoff({"topic": "tea"}) for _ in range(200))
    results: list[Any] = await asyncio.wait_for(asyncio.gather(*runs), 120)
    assert [result.raw for result in results] == ["done"] * 200
    assert few.stats()["done"] >= 200
    few.close()
