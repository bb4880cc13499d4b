"""Knowledge of an agent, whose store can only be searched by a sync call as CrewAI's default one: 30."""

from __future__ import annotations

from typing import Any

from crewai.knowledge.knowledge import Knowledge
from crewai.knowledge.storage.base_knowledge_storage import BaseKnowledgeStorage

from ..cases.building import solo
from ..models import final
from ..recorder import Recorder
from ..ways import Way
from .roads import once, ours, stock


class SyncStorage(BaseKnowledgeStorage):
    """A store as CrewAI's default one: only its sync search works."""

    def search(self, query: Any, limit: int = 5, metadata_filter: Any = None, score_threshold: float = 0.6) -> Any:
        return [{"id": "1", "content": "tea is a leaf", "metadata": {}, "score": 1.0}]

    async def asearch(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("the client is sync")

    def save(self, documents: list[str]) -> None: ...

    async def asave(self, documents: list[str]) -> None: ...

    def reset(self) -> None: ...

    async def areset(self) -> None: ...


def _told_of_its_knowledge(way: Way) -> bool:
    told = []

    def answer(messages: Any) -> str:
        told.append("tea is a leaf" in str(messages))
        return final("done")

    crew = solo(Recorder(), answer)
    crew.agents[0].knowledge = Knowledge(collection_name="known", sources=[], storage=SyncStorage())
    once(way, crew)
    return told[-1]


@stock("akickoff")
def test_stock_loses_an_agents_knowledge_on_the_loop(way: Way) -> None:
    assert _told_of_its_knowledge(way) is False


@stock("kickoff", "kickoff_async")
def test_stock_finds_it_off_the_loop(way: Way) -> None:
    assert _told_of_its_knowledge(way) is True


@ours()
def test_an_agent_gets_its_knowledge(way: Way) -> None:
    assert _told_of_its_knowledge(way) is True
