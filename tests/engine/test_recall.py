"""What the parity cases of ``tests/parity/cases/memories.py`` cannot show: overrides, cancelling, the loop."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from crewai.events.event_bus import crewai_event_bus
from crewai.events.types.memory_events import MemoryQueryFailedEvent, MemorySaveCompletedEvent, MemorySaveFailedEvent
from crewai.memory.recall_flow import RecallFlow
from crewai.memory.types import MemoryMatch, MemoryRecord
from crewai.memory.unified_memory import Memory

from fastcrew_async.engine import encode
from fastcrew_async.engine.drivers import drive, drive_in_place
from fastcrew_async.engine.recall import drained, recall
from fastcrew_async.testing import ScriptedLLM

LONG = "what is known about tea, and about all that is drunk? " * 6


def embed(texts: list[str]) -> list[list[float]]:
    return [[0.01 + text.count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts]


def shelf(*contents: str) -> Any:
    """A store of the user's own."""
    records = [MemoryRecord(content=content) for content in contents]
    store = mock.MagicMock(name="shelf")
    store.search.side_effect = lambda *_, **__: [(record, 0.9) for record in records]
    store.list_scopes.return_value = []
    store.list_categories.return_value = {}
    store.save.side_effect = records.extend
    return store


def memory(script: Any = "", store: Any = None, **fields: Any) -> Memory:
    model = ScriptedLLM(script, **{"latency": 0.0} | fields.pop("model", {}))
    return Memory(llm=model, storage=store or shelf("tea is hot"), embedder=embed, **fields)


async def contents(of: Any, query: str = "tea", **asked: Any) -> list[str]:
    matches = await asyncio.wait_for(drive(recall(of, query, limit=5, **asked)), 30)
    return [match.record.content for match in matches]


async def test_the_model_is_awaited_on_the_loop() -> None:
    threads: set[str] = set()

    def script(request: Any) -> str:
        threads.add(threading.current_thread().name)
        return json.dumps({"recall_queries": ["tea"]})

    assert await contents(memory(script), LONG) == ["tea is hot"]
    assert threads == {threading.current_thread().name}


async def test_no_flow_engine_runs() -> None:
    with mock.patch.object(RecallFlow, "kickoff_async", side_effect=AssertionError):
        assert await contents(memory()) == ["tea is hot"]


async def test_a_subclass_is_asked_itself() -> None:
    class Mine(Memory):
        def recall(self, query: str, **asked: Any) -> list[MemoryMatch]:  # type: ignore[override]
            return [MemoryMatch(record=MemoryRecord(content=f"{query} {asked}"), score=1.0)]

    mine = Mine(storage=shelf())
    assert await contents(mine) == ["tea {'limit': 5}"]
    scoped = await contents(mine.scope("/drinks"))
    assert scoped[0].startswith("tea {'scope': '/drinks'")


async def test_a_changed_flow_is_crewais_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def mine(self: Any) -> Any:
        self.state.final_results = [MemoryMatch(record=MemoryRecord(content="mine"), score=1.0)]

    monkeypatch.setattr(RecallFlow, "synthesize_results", mine)
    monkeypatch.setattr(RecallFlow, "kickoff", lambda self, inputs: mine(self), raising=False)
    assert await contents(memory()) == ["mine"]


async def test_those_of_the_users_own_are_few_at_once() -> None:
    now, most = 0, 0
    lock = threading.Lock()

    class Mine(Memory):
        def recall(self, query: str, **asked: Any) -> list[MemoryMatch]:  # type: ignore[override]
            nonlocal now, most
            with lock:
                now += 1
                most = max(most, now)
            threading.Event().wait(0.01)
            with lock:
                now -= 1
            return []

    mine = Mine(storage=shelf())
    await asyncio.gather(*(contents(mine) for _ in range(30)))
    assert most <= 8


async def test_cancelling_ends_it() -> None:
    failed: list[str] = []
    with crewai_event_bus.scoped_handlers():

        @crewai_event_bus.on(MemoryQueryFailedEvent)
        def note(source: Any, event: MemoryQueryFailedEvent) -> None:
            failed.append(event.error)

        slow = memory("", model={"latency": 60.0})
        search = asyncio.create_task(contents(slow, LONG))
        await asyncio.sleep(0.1)
        search.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(search, 10)
        await asyncio.to_thread(crewai_event_bus.flush)
    assert failed == ["cancelled"]
    slow._storage.search.assert_not_called()  # type: ignore[attr-defined]


async def test_a_memory_without_a_model() -> None:
    with mock.patch("crewai.llm.LLM.__new__", side_effect=ValueError("no key")):
        nameless = Memory(llm="no-such-model", storage=shelf(), embedder=embed)
        with pytest.raises(RuntimeError, match="Memory requires an LLM"):
            await contents(nameless)


def remembering(script: Any, **more: Any) -> Memory:
    return memory(script, store=shelf(), **more)


PLACED = json.dumps({"suggested_scope": "/drinks", "categories": [], "importance": 0.5})


@pytest.mark.parametrize("in_place", [True, False])
async def test_what_is_saved_is_found(in_place: bool) -> None:
    kept = remembering(PLACED)
    work = encode.remember_many(kept, ["tea is hot", "juice is cold, and so on"])
    await (asyncio.to_thread(drive_in_place, work) if in_place else drive(work))
    assert set(await contents(kept)) == {"tea is hot", "juice is cold, and so on"}  # a search waits for what is saved


async def test_a_save_does_not_need_the_loop() -> None:
    kept = remembering(PLACED)
    await drive(encode.remember_many(kept, ["tea is hot"]))
    kept.drain_writes()  # on the loop's own thread, as an async tool of a user may
    assert kept._storage.save.call_count == 1  # type: ignore[attr-defined]


async def test_saves_need_few_threads() -> None:
    kept = remembering(PLACED)
    with mock.patch.object(threading.Thread, "start", autospec=True, side_effect=threading.Thread.start) as start:
        for _ in range(5):
            await drive(encode.remember_many(kept, ["one", "another one", "yet another one"]))
            await asyncio.wait_for(drive(drained(kept)), 30)
    names = [call.args[0].name for call in start.call_args_list]
    assert len([name for name in names if name.startswith("memory-save")]) <= 1 + encode.QUESTIONS
    assert not [name for name in names if name.startswith(("asyncio", "ThreadPoolExecutor"))]


async def test_what_cannot_be_saved_is_told_and_fails_nobody() -> None:
    told: list[str] = []
    with crewai_event_bus.scoped_handlers():

        @crewai_event_bus.on(MemorySaveFailedEvent)
        def note(source: Any, event: MemorySaveFailedEvent) -> None:
            told.append(event.error)

        @crewai_event_bus.on(MemorySaveCompletedEvent)
        def completed(source: Any, event: MemorySaveCompletedEvent) -> None:
            told.append("saved")

        kept = remembering(PLACED)
        kept._storage.save.side_effect = OSError("the shelf is full")  # type: ignore[attr-defined]
        await drive(encode.remember_many(kept, ["tea is hot"]))
        await asyncio.wait_for(drive(drained(kept)), 30)

        async def heard() -> None:
            while not told:  # CrewAI tells of it in a callback of the save, which runs when those who waited go on
                await asyncio.sleep(0.001)

        await asyncio.wait_for(heard(), 30)
    assert told == ["the shelf is full"]


async def test_a_replaced_analysis_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crewai.memory.unified_memory.extract_memories_from_content", lambda text, llm: [text.upper()])
    assert await drive(encode.extract(memory(), "tea")) == ["TEA"]


async def test_an_answer_that_is_none_is_kept_whole(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert await drive(encode.extract(memory("no json"), "tea")) == ["tea"]
    assert "Memory extraction failed" in caplog.text


async def test_crewais_own_store(tmp_path: Path) -> None:
    kept = await asyncio.to_thread(lambda: Memory(llm=ScriptedLLM(PLACED), storage=str(tmp_path), embedder=embed))
    await drive(encode.remember_many(kept, ["tea is hot"]))
    assert await contents(kept) == ["tea is hot"]
