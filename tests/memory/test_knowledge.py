"""Knowledge in the store; beside CrewAI's own storage (Chroma) with the same embedder, and on both backends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from crewai import Crew
from crewai.knowledge.knowledge import Knowledge
from crewai.knowledge.source.string_knowledge_source import StringKnowledgeSource
from crewai.knowledge.storage import factory as crewais
from crewai.knowledge.storage.knowledge_storage import KnowledgeStorage
from crewai.memory.storage.backend import EmbeddingDimensionMismatchError

import fastcrew_async
from fastcrew_async import AsyncCrew, KnowledgeStore, MemoryStore
from fastcrew_async.testing import Request
from tests.memory.records import record
from tests.roads.at_once import at_once, of, topics
from tests.roads.crews import crew, topic_of
from tests.roads.test_knowledge import EMBEDDER, FACT

TEXTS = [FACT, "Soup is served on Mondays.", "The river is cold in winter; take a coat.", "A bicycle has two wheels."]

pytestmark = pytest.mark.filterwarnings(  # of Chroma, for what CrewAI makes
    "ignore:.*does not implement get_config:DeprecationWarning",
    "ignore:Direct api_key configuration:DeprecationWarning",
)


@pytest.fixture(autouse=True)
def _stored_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from crewai.rag.chromadb import config

    monkeypatch.setattr(config, "DEFAULT_STORAGE_PATH", str(tmp_path / "chroma"))
    monkeypatch.setenv("CREWAI_STORAGE_DIR", str(tmp_path))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    yield
    fastcrew_async.uninstall()
    crewais.set_knowledge_storage_factory(None)


@pytest.fixture
def installed() -> None:
    fastcrew_async.install(knowledge=True)


def contents(found: list[Any]) -> list[str]:
    return [result["content"] for result in found]


@pytest.mark.parametrize("asked", ["oolong password", "soup", "two wheels", "winter coat"])
def test_it_finds_what_crewais_storage_finds(backend: SimpleNamespace, asked: str) -> None:
    theirs = KnowledgeStorage(collection_name="docs", embedder=EMBEDDER)
    ours = KnowledgeStore("docs", embedder=EMBEDDER)
    for storage in (theirs, ours):
        storage.save(TEXTS)
        storage.save(TEXTS[:2])
    for threshold in (0.0, 0.6, 0.9, 1.0):
        for limit in (1, 3, 9):
            expected = theirs.search([asked, "please"], limit, None, threshold)
            found = ours.search([asked, "please"], limit, None, threshold)
            assert [result["score"] for result in found] == pytest.approx([r["score"] for r in expected], abs=1e-5)
            assert [{**result, "score": 0} for result in found] == [{**result, "score": 0} for result in expected]
    assert ours.search([]) == theirs.search([]) == []
    for storage in (theirs, ours):
        storage.reset()
        assert storage.search(["soup"], 9, None, 0) == []
    ours.store.close()


async def test_words_are_enough(backend: SimpleNamespace) -> None:
    knowledge = Knowledge("docs", [StringKnowledgeSource(content=text) for text in TEXTS], storage=KnowledgeStore())
    storage: Any = knowledge.storage
    await knowledge.aadd_sources()
    await knowledge.aadd_sources()  # as at every kickoff
    assert await storage.store.acount() == len(TEXTS)
    found = await knowledge.aquery(["When is the soup served?"])
    assert contents(found) == [TEXTS[1]]
    assert found[0]["score"] == 1
    everything = await knowledge.aquery(["soup in the winter"], score_threshold=0)
    scores = [result["score"] for result in everything]
    assert scores == sorted(scores, reverse=True)
    assert contents(await knowledge.aquery(["soup in the winter"], score_threshold=scores[1])) == [TEXTS[2], TEXTS[1]]
    assert contents(await knowledge.aquery(["soup in the winter"], results_limit=1)) == [TEXTS[2]]
    assert await knowledge.aquery(["giraffe"]) == []
    await knowledge.areset()
    assert await knowledge.aquery(["soup"]) == []
    await storage.store.aclose()


async def test_both_halves_are_one_store(backend: SimpleNamespace) -> None:
    for embedder in (None, EMBEDDER):
        storage = KnowledgeStore(f"{embedder}", embedder=embedder)
        await storage.asave([*TEXTS, TEXTS[0]], {"year": 2026})
        await asyncio.to_thread(storage.save, ["Tea from last year."], {"year": 2025})
        for asked in ({"limit": 2}, {"metadata_filter": {"year": 2025}}, {"metadata_filter": {"year": 1}}):
            found = await storage.asearch(["tea house"], score_threshold=0.1, **asked)
            assert found == await asyncio.to_thread(storage.search, ["tea house"], score_threshold=0.1, **asked)
        of_last_year = await storage.asearch(["tea"], metadata_filter={"year": 2025})
        assert contents(of_last_year) == ["Tea from last year."]
        assert of_last_year[0]["metadata"] == {"year": 2025}
        await storage.store.aclose()


async def test_what_is_there_is_not_written_again(backend: SimpleNamespace) -> None:
    storage = KnowledgeStore("docs", embedder=EMBEDDER)
    await storage.asave(TEXTS)
    assert (before := await storage.store.astats()).slots == len(TEXTS)
    await storage.asave(TEXTS)
    assert await storage.store.astats() == before
    other = KnowledgeStore("docs", embedder=lambda texts: [[1.0] * 26 for _ in texts])
    await other.asave(TEXTS)
    assert (await storage.store.astats()).records == len(TEXTS)
    assert {result["score"] for result in await other.asearch(["tea"])} == {1.0}
    await storage.store.aclose()
    await other.store.aclose()


def test_collections_that_share_a_store(backend: SimpleNamespace, tmp_path: Path) -> None:
    store = MemoryStore(tmp_path / "shared")
    store.save([record(1, content="tea")])
    names = [None, "", "%", "a", "a/documents", "ab"]
    storages = [KnowledgeStore(name, store=store) for name in names]
    for number, storage in enumerate(storages):
        storage.save(["tea", f"tea {number}"])
    assert storages[0].search(["tea"]) == storages[1].search(["tea"])  # no name is no name
    assert len(storages[0].search(["tea"], score_threshold=0)) == 3
    for storage in storages[2:]:
        assert len(storage.search(["tea"], score_threshold=0)) == 2
    storages[3].reset()
    assert [len(storage.search(["tea"], score_threshold=0)) for storage in storages] == [3, 3, 2, 0, 2, 2]
    assert [match.id for match, _ in store.search_words("tea", include_private=False)] == ["r1"]
    store.close()


def test_each_collection_has_a_folder_and_its_own_dimensions(tmp_path: Path) -> None:
    stores = [KnowledgeStore(name).store for name in (None, "crew", "Senior\nResearcher / EU", "é" * 300, "CREW")]
    assert len({store.path.lower() for store in stores}) == len(stores)
    assert all(Path(store.path).parent == tmp_path / "fastcrew_knowledge" for store in stores)
    wide, narrow = (
        KnowledgeStore(str(width), embedder=lambda texts, width=width: [[1.0] * width for _ in texts])
        for width in (2, 3)
    )
    wide.save(["a"])
    narrow.save(["a"])
    assert contents(wide.search(["a"])) == contents(narrow.search(["a"])) == ["a"]
    changed = KnowledgeStore("2", embedder=lambda texts: [[1.0] * 3 for _ in texts])
    with pytest.raises(EmbeddingDimensionMismatchError):
        changed.save(["b"])
    changed.reset()
    changed.save(["b"])
    assert contents(changed.search(["b"])) == ["b"]


def test_a_search_that_fails_is_told_and_finds_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def refuses(texts: list[str]) -> Any:
        raise ConnectionError("the embedder is away")

    storage = KnowledgeStore("docs", embedder=refuses)
    with pytest.raises(ConnectionError):
        storage.save(["a"])
    assert storage.search(["a"]) == []
    assert "the embedder is away" in caplog.text


def test_what_cannot_be_used_is_refused() -> None:
    with pytest.raises(TypeError, match="store must be a MemoryStore or the path of one, not 7"):
        KnowledgeStore(store=7)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"embedder must be .*, not 'openai'"):
        KnowledgeStore(embedder="openai")
    with pytest.raises(ValueError, match="Unknown provider"):
        KnowledgeStore(embedder={"provider": "nobody"})


def test_the_default_and_what_the_user_has_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    def storage(**asked: Any) -> Any:
        return Knowledge("docs", [], **asked).storage

    fastcrew_async.install()
    assert type(storage(embedder=EMBEDDER)) is KnowledgeStorage
    fastcrew_async.install(knowledge=True)
    assert type(made := storage()) is KnowledgeStore
    assert made.collection_name == "docs"
    assert made._embed is None
    assert storage(embedder=EMBEDDER)._embed is not None
    monkeypatch.setenv("OPENAI_API_KEY", "fake")
    assert storage()._embed is not None
    own = KnowledgeStore("own")
    assert storage(storage=own) is own
    status = {target.name: target for target in fastcrew_async.status()}
    assert status["crewai.knowledge.storage.factory._factory"].active
    fastcrew_async.uninstall()
    assert type(storage(embedder=EMBEDDER)) is KnowledgeStorage
    crewais.set_knowledge_storage_factory(lambda embedder, name: own)
    fastcrew_async.install(knowledge=True)
    assert storage() is own


def told(request: Request) -> str:
    """The rewritten query, or whether the prompt held the fact."""
    if request.text.startswith("Your goal is to rewrite"):
        return "password"
    return f"{'known' if FACT in request.text else 'unknown'} <{topic_of(request.text)}>"


def knowing(of_agent: bool, embedder: Any) -> Crew:
    sources: Any = {"knowledge_sources": [StringKnowledgeSource(content=text) for text in TEXTS], "embedder": embedder}
    return crew(told, **sources) if of_agent else crew(told, options=sources)


@pytest.mark.parametrize("embedder", [None, EMBEDDER], ids=["words", "vectors"])
@pytest.mark.parametrize("of_agent", [True, False], ids=["agent", "crew"])
async def test_every_run_is_told(of_agent: bool, embedder: Any, installed: None) -> None:
    made = await asyncio.to_thread(knowing, of_agent, embedder)
    seen = await at_once(of(made))
    assert seen.texts == [f"known <{topic}>" for topic in topics()]
    owner: Any = made.agents[0] if of_agent else made
    store = owner.knowledge.storage.store
    assert await store.acount() == len(TEXTS)


@pytest.mark.parametrize("of_agent", [True, False], ids=["agent", "crew"])
async def test_the_store_is_asked_on_the_loop_unless_the_user_asks(
    of_agent: bool, installed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await asyncio.to_thread(knowing, of_agent, None)
    sync = []
    search = KnowledgeStore.search
    monkeypatch.setattr(KnowledgeStore, "search", lambda *args, **asked: sync.append(1) or search(*args, **asked))
    assert (await AsyncCrew(made).kickoff(inputs={"topic": "tea"})).raw == "known <tea>"
    assert not sync
    assert (await asyncio.to_thread(made.kickoff, inputs={"topic": "tea"})).raw == "known <tea>"
    assert sync
    if of_agent:
        monkeypatch.setattr(Knowledge, "query", lambda *args, **asked: [{"content": "nothing"}])
    else:
        monkeypatch.setattr(Crew, "query_knowledge", lambda *args, **asked: [{"content": "nothing"}])
    assert (await AsyncCrew(made).kickoff(inputs={"topic": "tea"})).raw == "unknown <tea>"
