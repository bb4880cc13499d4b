"""All ways of running a crew as one: an async function of the crew and its inputs."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar
from unittest import mock

import pytest
from crewai import Crew
from crewai.events.event_bus import crewai_event_bus

from ..recorder import fresh_context
from ..recording import storage
from ..ways import OURS, STOCK, Way, installation

T = TypeVar("T")
Kickoff = Callable[[Crew, Any], Coroutine[Any, Any, Any]]
Work = Callable[[Kickoff], Coroutine[Any, Any, T]]

INPUTS = {"topic": "tea"}


def ways(table: list[Way], *names: str) -> pytest.MarkDecorator:
    """Run the test for the ways of those names, or for all of the table."""
    chosen = [way for way in table if not names or way.name in names]
    return pytest.mark.parametrize("way", chosen, ids=lambda way: way.name)


def stock(*names: str) -> pytest.MarkDecorator:
    """CrewAI's own ways: ``akickoff``, ``kickoff``, ``kickoff_async``."""
    return ways(STOCK["crew"], *names)


def ours(*names: str) -> pytest.MarkDecorator:
    """Our ways: ``AsyncCrew.kickoff``, and CrewAI's three after ``install()``."""
    return ways(OURS["crew"], *names)


ON_THE_LOOP = ("AsyncCrew.kickoff", "installed akickoff", "installed kickoff_async")


def run(way: Way, work: Work[T]) -> T:
    """What `work` gives on a loop of its own, where its kickoffs go the way; a sync one on threads."""

    async def kickoff(crew: Crew, inputs: Any) -> Any:
        if way.awaited:
            return await way.start(crew, inputs)
        return await asyncio.to_thread(way.start, crew, inputs)

    with mock.patch.dict(os.environ, {"CREWAI_STORAGE_DIR": storage()}), installation(way):
        return fresh_context().run(asyncio.run, work(kickoff))


def once(way: Way, crew: Crew, inputs: Any = None) -> Any:
    """The output of one kickoff."""
    return run(way, lambda kickoff: kickoff(crew, inputs or INPUTS))


@contextlib.contextmanager
def handling(handler: Callable[[Any, Any], None], *kinds: type[Any]) -> Iterator[None]:
    """Handle these kinds of events while inside."""
    for kind in kinds:
        crewai_event_bus.register_handler(kind, handler)
    try:
        yield
        crewai_event_bus.flush()
    finally:
        for kind in kinds:
            crewai_event_bus.off(kind, handler)
