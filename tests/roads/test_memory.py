"""Memory: recalled before a task, saved after it; CrewAI's own store, and an embedder of the test's own."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from crewai import Crew
from crewai.memory.unified_memory import Memory

from fastcrew_async import MemoryStore
from fastcrew_async.engine import encode, recall, stored
from fastcrew_async.testing import Reply, Request, ToolCall
from tests.roads.at_once import FEW, answers, at_once, of, topics
from tests.roads.crews import agent, crew, marks, model, task, topic_of

FACT = "The password of the tea house is oolong."


def letters(texts: list[str]) -> list[list[float]]:
    return [[1.0 + text.lower().count(letter) for letter in "abcdefghijklmnopqrstuvwxyz0123456789"] for text in texts]


def told(request: Request) -> str:
    return f"{'told' if FACT in request.text else 'not told'} <{topic_of(request.text)}>"


def extracted(request: Request) -> str:
    """What the memory asks its model: what to keep of an answer. To its other questions this is no answer."""
    return json.dumps({"memories": [f"The answer about {topic} was given." for topic in sorted(marks(request.text))]})


def searching(request: Request) -> Any:
    """Searches the memory by its tool before it answers."""
    topic = topic_of(request.text)
    known = any("Found memories" in str(message["content"]) for message in request.messages[1:])
    return told(request) if known else Reply(tool_calls=[ToolCall("search_memory", {"queries": [f"tea <{topic}>"]})])


def memory(storage: Any, embedder: Any = letters) -> Memory:
    """One with CrewAI's own store in that folder, or with that store."""
    return Memory(
        llm=model(extracted), storage=str(storage) if isinstance(storage, Path) else storage, embedder=embedder
    )


def knowing(storage: Any, embedder: Any = letters) -> Memory:
    made = memory(storage, embedder)
    made.remember(FACT, scope="/", categories=["fact"], importance=0.9)
    made.read_only = True
    return made


def assert_few(threads: list[str]) -> None:
    """As many threads as there are places for what blocks, however many runs there are; those that were there before
    the runs are not among them."""
    places = (stored.STORES, recall.EMBEDDERS, stored.TOUCHES)
    workers = sum(lane.limit for lane in places) + 1  # and one for what is quick
    beside = [name for name in threads if not name.startswith("fastcrew-worker")]
    assert len(threads) - len(beside) <= workers
    assert {name.partition("_")[0] for name in beside} <= {"memory-save", "memory-save-beside"}
    assert len(beside) <= 1 + encode.QUESTIONS  # for the one memory


@pytest.mark.parametrize("storage", [Path, MemoryStore])
async def test_every_run_recalls(storage: Any, tmp_path: Path) -> None:
    kept = await asyncio.to_thread(knowing, storage(tmp_path / "memory"))
    worker = agent(told)
    seen = await at_once(of(Crew(agents=[worker], tasks=[task(worker)], memory=kept)))
    assert seen.texts == [f"told <{topic}>" for topic in topics()]
    assert_few(seen.threads)


async def test_every_run_searches_by_the_tool(tmp_path: Path) -> None:
    kept = await asyncio.to_thread(knowing, tmp_path / "memory")
    worker = agent(searching)
    seen = await at_once(of(Crew(agents=[worker], tasks=[task(worker)], memory=kept)))
    assert seen.texts == [f"told <{topic}>" for topic in topics()]
    assert_few(seen.threads)


async def test_every_run_is_saved(tmp_path: Path) -> None:
    runs = 2 * FEW  # CrewAI saves them one after another
    kept = await asyncio.to_thread(memory, tmp_path / "memory")
    seen = await at_once(of(crew(options={"memory": kept})), runs=runs)
    assert seen.texts == answers(runs)
    assert_few(seen.threads)
    records = await asyncio.to_thread(kept.list_records)
    assert set().union(*(marks(record.content) for record in records)) >= set(topics(runs))
