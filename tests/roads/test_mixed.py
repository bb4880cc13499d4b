"""Two hundred runs of every kind at once: no event, chunk, count or context variable of one run in another."""

from __future__ import annotations

import asyncio
import contextvars
import random
import threading
import time
from collections import defaultdict
from typing import Any

from crewai import Crew
from crewai.events.base_events import BaseEvent
from crewai.events.event_bus import crewai_event_bus
from crewai.events.event_context import _event_id_stack
from crewai.tools import BaseTool

from fastcrew_async import AsyncCrew
from fastcrew_async.testing import Reply, Request
from tests.roads.at_once import at_once
from tests.roads.crews import LATENCY, Ping, agent, crew, done, marks, ping_once, task, topic_of
from tests.roads.test_streaming import StreamingLLM

RUNS = 200
current: contextvars.ContextVar[str] = contextvars.ContextVar("mixed_run", default="none")


class SyncPing(BaseTool):
    """Blocks its thread, and sees whose run it is in."""

    name: str = "ping"
    description: str = "Answers pong with the text."

    def _run(self, text: str) -> str:
        time.sleep(LATENCY)
        assert marks(text) == {current.get()}
        return f"pong {text}"


class KeptMemory:
    """What CrewAI asks of a memory, with one record for each run."""

    read_only = False
    root_scope = None

    def __init__(self) -> None:
        self.saved: defaultdict[str, list[str]] = defaultdict(list)
        self.lock = threading.Lock()

    def recall(self, query: str, **how: Any) -> list[Any]:
        assert marks(query) == {current.get()}
        time.sleep(LATENCY)
        return []

    def extract_memories(self, text: str) -> list[str]:
        assert marks(text) == {current.get()}
        return [text]

    def remember_many(self, texts: list[str], **how: Any) -> list[Any]:
        with self.lock:
            self.saved[current.get()] += texts
        return []

    def drain_writes(self) -> None: ...


def guarded() -> Crew:
    def better(request: Request) -> str:
        return done(request) if "refused" in request.text else f"first <{topic_of(request.text)}>"

    def refuse(output: Any):  # type: ignore[no-untyped-def]  # CrewAI reads the annotation
        assert marks(output.raw) == {current.get()}
        return (True, output.raw) if output.raw.startswith("done") else (False, f"refused {output.raw}")

    worker = agent(better)
    return Crew(agents=[worker], tasks=[task(worker, guardrail=refuse)])


def remembering(memory: KeptMemory) -> Crew:
    made = crew()
    object.__setattr__(made, "_memory", memory)
    return made


def streaming() -> Crew:
    worker = agent(llm=StreamingLLM(done, latency=LATENCY))
    return Crew(agents=[worker], tasks=[task(worker)], stream=True)


def beside() -> Crew:
    worker = agent(ping_once, tools=[Ping()])
    return Crew(agents=[worker], tasks=[task(worker, 0, async_execution=True), task(worker, 1)])


def refused(request: Request) -> Reply:
    return Reply(f"no <{topic_of(request.text)}>", status=500)


class Seen:
    """Every event, by the run in whose context its handler ran."""

    def __init__(self) -> None:
        self.marks: defaultdict[str, set[str]] = defaultdict(set)
        self.numbers: defaultdict[str, list[int]] = defaultdict(list)
        self.lock = threading.Lock()

    def __call__(self, source: Any, event: Any) -> None:
        with self.lock:
            self.marks[current.get()] |= marks(repr(event))
            self.numbers[current.get()].append(event.emission_sequence)


def kinds(of: type[BaseEvent]) -> set[type[BaseEvent]]:
    return {of}.union(*(kinds(kind) for kind in of.__subclasses__()))


async def test_two_hundred_runs_of_every_kind() -> None:
    memory = KeptMemory()
    crews = {
        "plain": crew(),
        "tools": crew(ping_once, tools=[Ping()]),
        "native tools": crew(ping_once, native=True, tools=[Ping()]),
        "blocking tools": crew(ping_once, tools=[SyncPing()]),
        "guardrails": guarded(),
        "memory": remembering(memory),
        "streaming": streaming(),
        "beside": beside(),
        "failing": crew(refused, max_retry_limit=0),
    }
    names = sorted(crews)
    random.Random(1).shuffle(names)
    seen = Seen()

    async def run(topic: str) -> Any:
        kind = names[int(topic.split()[1]) % len(names)]
        current.set(topic)
        before = {variable: value for variable, value in contextvars.copy_context().items() if variable is not current}
        try:
            result: Any = await AsyncCrew(crews[kind]).kickoff(inputs={"topic": topic})
            if kind == "streaming":
                assert marks("".join([chunk.content async for chunk in result])) == {topic}
                result = result.result
        except RuntimeError as error:
            return marks(str(error)) if kind == "failing" else error
        finally:
            assert current.get() == topic
            assert _event_id_stack.get() == before.get(_event_id_stack, ())
        assert result.raw == f"done <{topic}>"
        assert marks(repr(result)) == {topic}
        return kind, result.token_usage.successful_requests

    with crewai_event_bus.scoped_handlers():
        for kind in kinds(BaseEvent):
            crewai_event_bus.register_handler(kind, seen)
        found = await at_once(run, runs=RUNS)
        await asyncio.to_thread(crewai_event_bus.flush)

    topics = [f"topic {number:02}" for number in range(RUNS)]
    assert {topic: seen.marks[topic] for topic in topics} == {topic: {topic} for topic in topics}
    assert all(len(set(seen.numbers[topic])) == len(seen.numbers[topic]) for topic in topics)
    for number, result in enumerate(found.results):
        if names[number % len(names)] == "failing":
            assert result == {topics[number]}
        else:
            assert result[0] == names[number % len(names)]
    calls = {"plain": 1, "memory": 1, "streaming": 1, "beside": 4}
    counted: defaultdict[str, list[int]] = defaultdict(list)
    for result in found.results:
        if isinstance(result, tuple):
            counted[result[0]].append(result[1])
    for kind, counts in counted.items():
        # The crew object itself is one of those that run, and its model counts all its calls, as in CrewAI: one more
        # run, so many more calls. A copy counts those of its run.
        own = calls.get(kind, 2)
        of_the_crew = [count for count in counts if count != own]
        assert all(count % own == 0 for count in counts), (kind, counts)
        assert len(set(of_the_crew)) == len(of_the_crew), (kind, counts)
    assert {topic: marks(" ".join(texts)) for topic, texts in memory.saved.items()} == {
        topic: {topic} for topic in memory.saved
    }
    assert len(memory.saved) >= RUNS // len(names)
