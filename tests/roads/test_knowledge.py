"""Knowledge in CrewAI's default store (Chroma), with an embedder of the test's own: no network."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any

import pytest
from chromadb.api.types import EmbeddingFunction
from crewai import Crew
from crewai.knowledge.source.string_knowledge_source import StringKnowledgeSource
from crewai.rag.embeddings.providers.custom.embedding_callable import CustomEmbeddingFunction

from fastcrew_async import AsyncCrew, workers
from fastcrew_async.testing import Request
from tests.roads.at_once import at_once, of, topics
from tests.roads.crews import crew, topic_of

FACT = "The password of the tea house is oolong."


class Letters(EmbeddingFunction[Any], CustomEmbeddingFunction):  # type: ignore[misc]
    """Counts letters: similar texts are near each other."""

    def __init__(self) -> None: ...

    @staticmethod
    def name() -> str:
        return "letters"

    def __call__(self, input: Any) -> Any:
        import numpy

        return [
            numpy.array([1.0 + text.lower().count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"], numpy.float32)
            for text in input
        ]


EMBEDDER: Any = {"provider": "custom", "config": {"embedding_callable": Letters}}


def told(request: Request) -> str:
    """The rewritten query, or whether the prompt held the fact."""
    assert threading.current_thread() is threading.main_thread() or "tea>" in request.text, "the model holds a thread"
    if request.text.startswith("Your goal is to rewrite"):
        return FACT
    return f"{'known' if FACT in request.text else 'unknown'} <{topic_of(request.text)}>"


def knowing(of_agent: bool) -> Crew:
    sources: Any = {"knowledge_sources": [StringKnowledgeSource(content=FACT)], "embedder": EMBEDDER}
    if of_agent:
        return crew(told, **sources)
    return crew(told, options=sources)


@pytest.fixture(autouse=True)
def _stored_aside(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from crewai.rag.chromadb import config

    monkeypatch.setattr(config, "DEFAULT_STORAGE_PATH", str(tmp_path / "chroma"))


@pytest.mark.parametrize("of_agent", [True, False], ids=["agent", "crew"])
async def test_every_run_is_told(of_agent: bool) -> None:
    made = await asyncio.to_thread(knowing, of_agent)
    written_to = sys.stdout
    seen = await at_once(of(made))
    assert sys.stdout is written_to  # which a search puts aside while it lasts
    assert seen.texts == [f"known <{topic}>" for topic in topics()]
    assert len(seen.threads) <= workers.pool().max_workers


@pytest.mark.parametrize("of_agent", [True, False], ids=["agent", "crew"])
async def test_the_loop_gives_the_same_knowledge_as_a_thread(of_agent: bool) -> None:
    asked: list[list[Any]] = []
    for number in range(2):
        made = await asyncio.to_thread(knowing, of_agent)
        if number:
            await AsyncCrew(made).kickoff(inputs={"topic": "tea"})
        else:
            await asyncio.to_thread(made.kickoff, inputs={"topic": "tea"})
        llm: Any = made.agents[0].llm
        asked.append([request.messages for request in llm.requests])
    assert FACT in str(asked[0][-1])
    assert asked[0] == asked[1]
