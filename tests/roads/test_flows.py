"""Flows whose steps kick crews off: CrewAI's own flow engine around this one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from crewai import Crew
from crewai.events import crewai_event_bus
from crewai.flow.flow import Flow, and_, listen, start
from pydantic import BaseModel, SkipValidation

from fastcrew_async.testing import Reply, Request, ToolCall
from tests.roads.at_once import at_once, topics
from tests.roads.crews import Ping, crew, ping_once, topic_of

pytestmark = pytest.mark.usefixtures("installed")
AT_ONCE = 100


class State(BaseModel):
    topic: str = ""
    seen: list[str] = []


class Awaiting(Flow[State]):
    """Two crews beside each other, awaited, and one after both."""

    crews: SkipValidation[dict[str, Crew]]  # pydantic would run the validators of all crews for every flow

    @start()
    async def first(self) -> str:
        return await self.run("first")

    @start()
    async def second(self) -> str:
        return await self.run("second")

    @listen(and_(first, second))
    async def third(self) -> str:
        await self.run("third")
        return f"{sorted(self.state.seen[:2])} then {self.state.seen[2]}"

    async def run(self, step: str) -> str:
        result: Any = await self.crews[step].akickoff(inputs={"topic": self.state.topic})
        self.state.seen.append(f"{step} {result.raw}")
        return str(result.raw)


class Blocking(Flow[State]):
    """Sync steps, which CrewAI runs on threads; each kicks a crew off in place."""

    crews: SkipValidation[dict[str, Crew]]  # pydantic would run the validators of all crews for every flow

    @start()
    def first(self) -> str:
        result: Any = self.crews["first"].kickoff(inputs={"topic": self.state.topic})
        self.state.seen.append(f"first {result.raw}")
        return str(result.raw)

    @listen(first)
    def then(self, before: str) -> str:
        result: Any = self.crews["second"].kickoff(inputs={"topic": self.state.topic})
        return f"{before} then {result.raw}"


def flow(kind: Any, crews: dict[str, Crew]) -> Any:
    return kind(crews=crews, suppress_flow_events=True)


def three() -> dict[str, Crew]:
    return {name: crew(ping_once, tools=[Ping()]) for name in ("first", "second", "third")}


async def test_a_hundred_flows_of_sync_steps_beside_a_loop_that_stays_free() -> None:
    common = three()
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    async def run(topic: str) -> Any:
        return await flow(Blocking, common).kickoff_async(inputs={"topic": topic})

    ticking = asyncio.create_task(tick())
    seen = await at_once(run, runs=AT_ONCE, beside={ticking})
    ticking.cancel()
    assert seen.results == [f"done <{topic}> then done <{topic}>" for topic in topics(AT_ONCE)]
    assert ticks > AT_ONCE


async def test_a_hundred_flows_that_await_crews_do_not_starve_each_other() -> None:
    common = three()
    order: list[tuple[str, str]] = []

    async def run(topic: str) -> Any:
        order.append(("begun", topic))
        result = await flow(Awaiting, common).kickoff_async(inputs={"topic": topic})
        order.append(("ended", topic))
        return result

    seen = await at_once(run, runs=AT_ONCE)
    assert seen.results == [
        f"['first done <{topic}>', 'second done <{topic}>'] then third done <{topic}>" for topic in topics(AT_ONCE)
    ]
    of_topics = [(what, topic) for what, topic in order if topic in set(topics(AT_ONCE))]
    assert [what for what, _ in of_topics[:AT_ONCE]] == ["begun"] * AT_ONCE
    ended = [topic for what, topic in of_topics if what == "ended"]
    # The place at the end is near that at the start: none waits for all that came after it.
    late = max(ended.index(topic) - number for number, topic in enumerate(topics(AT_ONCE)))
    assert late < AT_ONCE * 3 // 4, f"a flow ended {late} places after its turn"


async def test_flows_with_crews_of_their_own() -> None:
    seen = await at_once(lambda topic: flow(Awaiting, three()).kickoff_async(inputs={"topic": topic}), runs=10)
    assert seen.results == [
        f"['first done <{topic}>', 'second done <{topic}>'] then third done <{topic}>" for topic in topics(10)
    ]


async def test_cancelling_a_flow_ends_its_crews() -> None:
    entered, calls = asyncio.Event(), 0
    loop = asyncio.get_running_loop()

    def slow(request: Request) -> Reply:
        nonlocal calls
        calls += 1
        loop.call_soon_threadsafe(entered.set)
        return Reply(tool_calls=[ToolCall("ping", {"text": f"<{topic_of(request.text)}>"})])

    for kind in (Awaiting, Blocking):
        crews = {name: crew(slow, latency=0.05, tools=[Ping()]) for name in ("first", "second", "third")}
        entered.clear()
        running = asyncio.create_task(flow(kind, crews).kickoff_async(inputs={"topic": "tea"}))
        await asyncio.wait_for(entered.wait(), 10)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await asyncio.sleep(0.2)
        asked = calls
        await asyncio.sleep(0.3)
        assert calls == asked, "the crews go on"
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_tokens_of_flows_at_once_are_counted_apart() -> None:
    shared = three()

    async def run(topic: str) -> Any:
        one = flow(Awaiting, shared)
        await one.kickoff_async(inputs={"topic": topic})
        return one.usage_metrics.successful_requests

    seen = await at_once(run, runs=20)
    assert seen.results == [6] * 20  # three crews of two calls


async def test_a_flush_that_was_replaced_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flow waits for the handlers of its own events; but a flush of the user's own is called."""

    class Short(Flow[State]):
        @start()
        def only(self) -> str:
            return "done"

    flushed: list[str] = []
    flush = crewai_event_bus.flush
    monkeypatch.setattr(crewai_event_bus, "flush", lambda *args, **kwargs: (flushed.append("yes"), flush())[1])
    assert await asyncio.wait_for(Short().kickoff_async(), 10) == "done"
    assert flushed
