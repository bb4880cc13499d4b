"""Event listeners: sync, async, and those that wait for another one (``depends_on``)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from crewai.events.depends import Depends
from crewai.events.event_bus import crewai_event_bus
from crewai.events.types.crew_events import CrewKickoffCompletedEvent, CrewKickoffStartedEvent
from crewai.events.types.task_events import TaskCompletedEvent

from tests.roads.at_once import answers, at_once, of, topics
from tests.roads.crews import LATENCY, crew, marks


@contextlib.contextmanager
def listening() -> Iterator[Mapping[str, list[str]]]:
    """Five listeners, of which three wait for each other; what they heard, by the topic of the run."""
    heard: defaultdict[str, list[str]] = defaultdict(list)

    def topic_in(text: Any) -> str:
        (topic,) = marks(str(text))
        return topic

    with crewai_event_bus.scoped_handlers():

        @crewai_event_bus.on(TaskCompletedEvent)
        def first(source: Any, event: Any) -> None:
            time.sleep(LATENCY)
            heard[topic_in(event.output.raw)].append("first")

        @crewai_event_bus.on(TaskCompletedEvent, depends_on=Depends(first))
        async def second(source: Any, event: Any) -> None:
            await asyncio.sleep(LATENCY)
            heard[topic_in(event.output.raw)].append("second")

        @crewai_event_bus.on(TaskCompletedEvent, depends_on=Depends(second))
        def third(source: Any, event: Any) -> None:
            heard[topic_in(event.output.raw)].append("third")

        @crewai_event_bus.on(CrewKickoffStartedEvent)
        async def begun(source: Any, event: Any) -> None:
            await asyncio.sleep(LATENCY)
            heard[topic_in(event.inputs)].append("begun")

        @crewai_event_bus.on(CrewKickoffCompletedEvent)
        def ended(source: Any, event: Any) -> None:
            heard[topic_in(event.output.raw)].append("ended")

        yield heard


async def test_every_listener_hears_of_every_run_in_its_order() -> None:
    with listening() as heard:
        seen = await at_once(of(crew()))
        await asyncio.to_thread(crewai_event_bus.flush)
    assert seen.texts == answers()
    # A run waits for its listeners before it says that it has ended.
    assert {topic: heard[topic] for topic in topics()} == {
        topic: ["begun", "first", "second", "third", "ended"] for topic in topics()
    }
    assert len(seen.threads) <= min(32, (os.cpu_count() or 1) + 4)  # the default pool of the bus's own loop
