"""Streams: chunks as they come, each stream those of its own run; closing a stream ends its run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from crewai import Crew
from crewai.events.event_bus import crewai_event_bus
from crewai.events.types.llm_events import LLMStreamChunkEvent
from crewai.llms.base_llm import llm_call_context

from fastcrew_async import AsyncCrew
from fastcrew_async.testing import Request, ScriptedLLM
from tests.roads.at_once import answers, at_once, topics
from tests.roads.crews import LATENCY, Ping, agent, done, marks, ping_once, task


class StreamingLLM(ScriptedLLM):
    """Emits its answer word by word while ``stream`` is on."""

    pause: float = 0.0

    async def acall(self, messages: Any, *rest: Any, **named: Any) -> Any:
        answer = await super().acall(messages, *rest, **named)
        if self.stream and isinstance(answer, str):
            with llm_call_context():
                for word in answer.split(" "):
                    await asyncio.sleep(self.pause)
                    self._emit_stream_chunk_event(word + " ", named.get("from_task"), named.get("from_agent"))
        return answer


def streaming(script: Any = done, pause: float = 0.0, **fields: Any) -> Crew:
    llm = StreamingLLM(script, latency=LATENCY, pause=pause)
    worker = agent(llm=llm, **fields)
    return Crew(agents=[worker], tasks=[task(worker)], stream=True)


def handlers() -> int:
    return len(crewai_event_bus._sync_handlers.get(LLMStreamChunkEvent, frozenset()))


async def streamed(crew: Crew, topic: str) -> Any:
    """The output, after the stream; every chunk has been seen to be of this run."""
    stream = await AsyncCrew(crew).kickoff(inputs={"topic": topic})
    text = "".join([chunk.content async for chunk in stream])
    assert marks(text) == {topic}
    assert stream.get_full_text() == text
    assert stream.result.raw in text
    return stream.result


@pytest.mark.parametrize("shared", [True, False], ids=["one crew", "crews of their own"])
async def test_every_stream_has_the_chunks_of_its_own_run(shared: bool) -> None:
    before = handlers()
    one = streaming(ping_once, tools=[Ping()])
    make = (lambda: one) if shared else (lambda: streaming(ping_once, tools=[Ping()]))
    seen = await at_once(lambda topic: streamed(make(), topic))
    assert seen.texts == answers()
    assert seen.threads == []
    assert handlers() == before
    assert one.stream is True


@pytest.mark.parametrize("way", ["akickoff", "kickoff_async"])
async def test_streams_of_the_installed_engine(way: str, installed: None) -> None:
    crew = streaming()

    async def start(topic: str) -> Any:
        stream = await getattr(crew, way)(inputs={"topic": topic})
        assert marks("".join([chunk.content async for chunk in stream])) == {topic}
        return stream.result

    seen = await at_once(start)
    assert seen.texts == answers()
    assert seen.threads == []


async def test_several_consumers_share_what_comes() -> None:
    stream: Any = await AsyncCrew(streaming(pause=LATENCY)).kickoff(inputs={"topic": "tea"})
    taken: list[list[str]] = [[], []]
    queue: asyncio.Queue[Any] = asyncio.Queue()

    async def consume(number: int) -> None:
        while (chunk := await queue.get()) is not None:
            taken[number].append(chunk.content)

    consumers = [asyncio.create_task(consume(number)) for number in range(2)]
    async for chunk in stream:
        queue.put_nowait(chunk)
    for _ in consumers:
        queue.put_nowait(None)
    await asyncio.gather(*consumers)
    assert sum(map(len, taken)) == len(stream.chunks)
    assert "".join(chunk.content for chunk in stream.chunks) == stream.get_full_text()


async def test_closing_the_stream_ends_the_run() -> None:
    calls: list[str] = []

    def script(request: Request) -> Any:
        calls.append(request.text)
        return ping_once(request)

    crew = streaming(script, pause=LATENCY, tools=[Ping()])
    before, tasks = handlers(), asyncio.all_tasks()

    async def closed(topic: str) -> Any:
        async with await AsyncCrew(crew).kickoff(inputs={"topic": topic}) as stream:
            async for _ in stream:
                break
        assert stream.is_cancelled
        return stream

    await asyncio.gather(*(closed(topic) for topic in topics()))
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == tasks
    assert handlers() == before
    asked = len(calls)
    await asyncio.sleep(20 * LATENCY)
    assert len(calls) == asked == len(topics())  # the second call of each run has not been made
    assert (await streamed(crew, "topic 99")).raw == "done <topic 99>"  # and the crew can be used at once


async def test_a_stream_that_nobody_reads_starts_nothing() -> None:
    crew = streaming()
    before = handlers()
    stream: Any = await AsyncCrew(crew).kickoff(inputs={"topic": "tea"})
    await stream.aclose()
    llm: Any = crew.agents[0].llm
    assert llm.requests == []
    assert handlers() == before


async def test_a_batch_of_streams(installed: None) -> None:
    stream: Any = await streaming().kickoff_for_each_async([{"topic": topic} for topic in topics()])
    found = [chunk.content async for chunk in stream]
    assert marks(" ".join(found)) == set()  # the words of fifty runs, in the order in which they came
    # Each twice, as in CrewAI: the batch has it from the run's stream, and from the sink that the run inherits.
    assert sorted(found) == sorted(2 * [f"{word} " for answer in answers() for word in spoken(answer)])
    assert [result.raw for result in stream.results] == answers()


def spoken(answer: str) -> list[str]:
    return f"Thought: I now know the final answer\nFinal Answer: {answer}".split(" ")
