"""Files given to a kickoff: named in the prompt, attached to the message, and read by CrewAI's own tool.

CrewAI keeps them in a cache of ``aiocache`` and describes them by ``crewai_files``, both of an extra; a cache and files
of the same form stand for them here.
"""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import pytest
from crewai.utilities import file_store

from fastcrew_async import AsyncCrew, workers
from fastcrew_async.testing import Reply, Request
from tests.roads.at_once import answers, at_once
from tests.roads.crews import LATENCY, calling, crew, topic_of


@dataclass
class Note:
    """What CrewAI asks of a file."""

    topic: str
    content_type: str = "text/plain"

    @property
    def filename(self) -> str:
        return f"{self.topic}.txt"

    async def aread(self) -> bytes:
        await asyncio.sleep(LATENCY)
        return self.read()

    def read(self) -> bytes:
        return f"all about <{self.topic}>".encode()


class Cache:
    """``aiocache``'s cache in memory."""

    def __init__(self) -> None:
        self._cache: dict[str, bytes] = {}

    async def set(self, key: str, value: Any, ttl: int) -> None:
        self._cache[key] = pickle.dumps(value)

    async def get(self, key: str) -> Any:
        return pickle.loads(self._cache[key]) if key in self._cache else None

    async def delete(self, key: str) -> None:
        self._cache.pop(key, None)


def stored() -> Any:
    """Puts such a cache into its place while it is entered, and gives it."""
    return mock.patch.object(file_store, "_file_store", Cache())


@pytest.fixture
def cache() -> Iterator[Cache]:
    with stored() as cache:
        yield cache


def reading(request: Request) -> Any:
    """Reads the note that the prompt names, once."""
    topic = topic_of(request.text)
    assert f"{topic}.txt" in request.text
    assert {note.topic for m in request.messages for note in (m.get("files") or {}).values()} == {topic}
    return calling("read_file", lambda topic: {"file_name": "note"}, after=f"all about <{topic}>")(request)


def with_notes(native: bool) -> Any:
    kickoff = AsyncCrew(crew(reading, native=native)).kickoff
    return lambda topic: kickoff(inputs={"topic": topic}, input_files={"note": Note(topic)})


@pytest.mark.parametrize("native", [False, True], ids=["ReAct", "native"])
async def test_every_run_reads_its_own(native: bool, cache: Cache) -> None:
    seen = await at_once(with_notes(native))
    assert seen.texts == answers()
    assert len(seen.threads) <= workers.pool().max_workers
    assert cache._cache == {}, "files outlive their runs"


async def test_a_cancelled_run_leaves_no_file(cache: Cache) -> None:
    asked = asyncio.Event()

    def slow(request: Request) -> Reply:
        asked.set()
        return Reply("never", latency=30)

    files: Any = {"note": Note("tea")}
    running = asyncio.create_task(AsyncCrew(crew(slow)).kickoff(inputs={"topic": "tea"}, input_files=files))
    await asyncio.wait_for(asked.wait(), 10)
    assert len(cache._cache) == 1
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert cache._cache == {}
