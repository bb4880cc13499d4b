"""Kickoffs of a streaming crew while it streams: its own ``stream`` is off for that time, as in CrewAI."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from crewai import Crew
from crewai.crews.crew_output import CrewOutput
from crewai.tools import tool
from crewai.types.streaming import CrewStreamingOutput

from fastcrew_async import AsyncCrew
from fastcrew_async.engine import kickoff as engine
from fastcrew_async.engine.for_each import for_each_input
from fastcrew_async.testing import Reply, ScriptedLLM, ToolCall
from tests import crews
from tests.crews import storage
from tests.test_crew import TOPICS, Held

__all__ = ["storage"]


async def to_end(stream: Any) -> Any:
    assert isinstance(stream, CrewStreamingOutput)
    async for _ in stream:
        pass
    return stream.result


async def test_a_kickoff_beside_a_stream_gives_a_stream(until: Any) -> None:
    llm = Held()
    crew = crews.crew(llm=llm, crew_options={"stream": True})
    first = asyncio.create_task(to_end(await AsyncCrew(crew).kickoff(TOPICS[0])))
    await until(lambda: llm.__dict__["inside"] == 1)
    assert crew.stream is False
    second = await AsyncCrew(crew).kickoff(TOPICS[1])
    third = await engine.kickoff_like_sync(crew, TOPICS[2])
    batch = await for_each_input(crew, TOPICS[3:4], engine.kickoff)
    llm.__dict__["open"].set()
    results = [await to_end(one) for one in (second, third)]
    assert [result.raw for result in results] == [TOPICS[1]["topic"], TOPICS[2]["topic"]]
    assert (await first).raw == TOPICS[0]["topic"]
    assert isinstance(batch, CrewStreamingOutput)
    async for _ in batch:
        pass
    assert len(batch.results) == 1
    assert crew.stream is True


async def test_inside_of_its_own_stream_a_crew_gives_its_output(until: Any) -> None:
    made: list[Any] = []
    outer: list[Crew] = []

    @tool("again")
    async def again() -> str:
        """Kicks the same crew off."""
        made.append(await AsyncCrew(outer[0]).kickoff(TOPICS[1]))
        return "came back"

    def script(request: Any) -> Any:
        if "topic 1" in request.text or request.tool_results:
            return "done"
        return Reply(tool_calls=[ToolCall("again", {})])

    outer.append(crews.crew(llm=ScriptedLLM(script, native=True), tools=[again], crew_options={"stream": True}))
    for _ in range(2):  # the crew itself, and a copy, which leaves the crew's own stream on
        assert (await to_end(await AsyncCrew(outer[0]).kickoff(TOPICS[0]))).raw == "done"
    assert [type(one) for one in made] == [CrewOutput] * 2


def test_in_place_too() -> None:
    inside, leave = threading.Event(), threading.Event()

    def script(request: Any) -> str:
        if "topic 0" in request.text:
            inside.set()
            assert leave.wait(10)
        return crews.echo(request)

    crew = crews.crew(script, crew_options={"stream": True})
    first: Any = engine.kickoff_in_place(crew, TOPICS[0])
    thread = threading.Thread(target=lambda: list(first))
    thread.start()
    try:
        assert inside.wait(10)
        second: Any = engine.kickoff_in_place(crew, TOPICS[1])
        assert isinstance(second, CrewStreamingOutput)
        for _ in second:
            pass
    finally:
        leave.set()
        thread.join(10)
    assert (first.result.raw, second.result.raw) == (TOPICS[0]["topic"], TOPICS[1]["topic"])
