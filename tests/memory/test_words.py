"""Search by words, against the formulas written out; each test on both backends."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from crewai.memory.unified_memory import Memory

import fastcrew_async
from fastcrew_async._fallback.porter import stem
from fastcrew_async._fallback.words import words
from fastcrew_async.memory.store import MemoryStore
from fastcrew_async.memory.words import WordEmbedder, unwrapped
from fastcrew_async.testing import ScriptedLLM
from tests.memory.records import START, record, unit

VOCABULARY = (
    "tea",
    "rain",
    "sleep",
    "green",
    "river",
    "light",
    "music",
    "garden",
    "winter",
    "coffee",
    "window",
    "silent",
)


def texts(count: int) -> list[str]:
    chance = random.Random(7)
    weights = [1 / (place + 1) for place in range(len(VOCABULARY))]
    return [" ".join(chance.choices(VOCABULARY, weights, k=chance.randint(1, 30))) for _ in range(count)]


def bm25(corpus: list[str], query: str) -> list[float]:
    """Robertson's formula with Lucene's idf, as it stands in the books."""
    documents = [re.findall(r"\w+", text) for text in corpus]
    mean = sum(map(len, documents)) / len(documents)
    holders = {word: sum(word in other for other in documents) for word in query.split()}
    scores = []
    for document in documents:
        score, counts = 0.0, Counter(document)
        for word in query.split():
            holding = holders[word]
            idf = math.log(1 + (len(documents) - holding + 0.5) / (holding + 0.5))
            score += idf * counts[word] * 2.2 / (counts[word] + 1.2 * (0.25 + 0.75 * len(document) / mean))
        scores.append(score)
    return scores


def tfidf(corpus: list[str], query: str) -> list[float]:
    """The cosine of tf * idf, with scikit-learn's smooth idf."""
    documents = [Counter(text.split()) for text in corpus]

    def weights(text: Counter[str]) -> dict[str, float]:
        count = len(documents)
        return {w: n * (math.log((1 + count) / (1 + sum(w in d for d in documents))) + 1) for w, n in text.items()}

    asked = weights(Counter(query.split()))
    scores = []
    for document in documents:
        own = weights(document)
        product = sum(weight * own.get(word, 0.0) for word, weight in asked.items())
        scores.append(product / (math.hypot(*asked.values()) * math.hypot(*own.values())))
    return scores


@pytest.mark.parametrize(("method", "reference"), [("bm25", bm25), ("tfidf", tfidf)])
def test_the_ranking_is_that_of_the_formula(
    backend: SimpleNamespace, tmp_path: Path, method: Any, reference: Any
) -> None:
    store = MemoryStore(tmp_path, stemmed=False)
    corpus = texts(120)
    store.save([record(n, content=text) for n, text in enumerate(corpus)])
    for query in ("tea", "silent river", "coffee tea tea nothing", "garden window light music winter"):
        expected = reference(corpus, query)
        order = sorted((n for n in range(120) if expected[n] > 0), key=lambda n: (-expected[n], n))
        found = store.search_words(query, limit=200, method=method)
        assert [score for _, score in found] == pytest.approx([expected[n] for n in order], abs=1e-6)
        assert {match.id: score for match, score in found} == pytest.approx(
            {f"r{n}": expected[n] for n in order}, abs=1e-6
        )
        assert store.search_words(query, limit=3, method=method) == found[:3]
    store.close()


def test_the_best_of_many_are_those_of_the_formula(backend: SimpleNamespace, tmp_path: Path) -> None:
    """Frequent words are not added up for every text, yet none is missed; of equals the one saved first comes first."""
    chance = random.Random(11)
    count = 4600 if backend.name == "rust" else 300  # the twin reads all texts at each search
    vocabulary = [f"w{place}" for place in range(400)]
    weights = [1 / (place + 1) for place in range(400)]
    corpus = [" ".join(chance.choices(vocabulary, weights, k=chance.choice((3, 6, 12)))) for _ in range(count)]
    store = MemoryStore(tmp_path, stemmed=False)
    store.save([record(n, content=text, scope=f"/s{n % 7}") for n, text in enumerate(corpus)])
    for query, scope in (("w0 w390 w1", None), ("w0 w1 w2", None), ("w0 w200 w300 w0", "/s3")):
        expected = bm25(corpus, query)
        met = [n for n in range(len(corpus)) if expected[n] > 0 and (scope is None or n % 7 == 3)]
        best = sorted((expected[n] for n in met), reverse=True)
        found = [(int(match.id[1:]), score) for match, score in store.search_words(query, scope, limit=25)]
        assert [score for _, score in found] == pytest.approx(best[:25], abs=1e-9)
        assert [expected[n] for n, _ in found] == pytest.approx(best[:25], abs=1e-9)
        assert found == sorted(found, key=lambda match: (-match[1], match[0]))
        last, _ = found[-1]
        assert {n for n in met if expected[n] == expected[last] and n < last} <= {n for n, _ in found}
    store.close()


def test_the_index_follows_what_comes_and_goes(backend: SimpleNamespace, tmp_path: Path) -> None:
    """After changes the ranking is that of a store that never had anything else."""
    changed, fresh = MemoryStore(tmp_path / "a"), MemoryStore(tmp_path / "b")
    corpus = texts(60)
    changed.save([record(n, content=text) for n, text in enumerate(corpus[:30])])
    assert changed.search_words("tea")
    changed.delete(record_ids=[f"r{n}" for n in range(0, 30, 3)])
    changed.save([record(n, content=text) for n, text in enumerate(corpus) if n >= 30])
    changed.update(record(1, content="tea for two"))
    left = {n: text for n, text in enumerate(corpus) if (n >= 30 or n % 3) and n != 1}
    fresh.save([record(n, content=text) for n, text in left.items()] + [record(1, content="tea for two")])
    for query in ("tea two", "rain sleep"):
        for method in ("bm25", "tfidf"):
            mine, theirs = (
                {found.id: score for found, score in store.search_words(query, limit=100, method=method)}  # type: ignore[arg-type]
                for store in (changed, fresh)
            )
            assert mine == pytest.approx(theirs, abs=1e-9)
    changed.reset()
    assert changed.search_words("tea") == []
    changed.save([record(5, content="tea again")])
    assert [found.id for found, _ in changed.search_words("tea")] == ["r5"]
    changed.close()
    fresh.close()


def test_filters_come_before_the_ranking_of_words(store: MemoryStore) -> None:
    store.save([record(n, content="tea " * (50 - n), scope="/low" if n >= 40 else "/high") for n in range(50)])
    assert [found.id for found, _ in store.search_words("tea", "/low", limit=20)] == [f"r{n}" for n in range(40, 50)]
    store.save([record(60, content="tea", categories=["c"], private=True, source="ann")])
    assert [found.id for found, _ in store.search_words("tea", categories=["c"])] == ["r60"]
    assert store.search_words("tea", categories=["c"], include_private=False) == []
    assert len(store.search_words("tea", categories=["c"], include_private=False, source="ann")) == 1
    assert len(store.search_words("tea", newer_than=START, limit=100)) == 51


@pytest.mark.parametrize(
    "query",
    ['tea AND "rain', "tea*", "NEAR(tea rain)", "content:tea", "-tea", "(((", "", "\x00", "\ud800tea", "'; DROP"],
)
def test_no_query_is_an_error(store: MemoryStore, query: str) -> None:
    store.save([record(1, content="tea and rain"), record(2, content="nothing")])
    found = [match.id for match, _ in store.search_words(query)]
    assert found == (["r1"] if "tea" in query else [])


def test_words_of_many_scripts_and_stems(store: MemoryStore) -> None:
    contents = [
        "\uff23afé CRÈME",
        "東京タワー",
        "Привет МИР",
        "saving records",
        "हिन्दी में",
        "a\x00needle" + " hay" * 100_000,
    ]
    store.save([record(n, content=text) for n, text in enumerate(contents)])
    for query, number in (("creme", 0), ("京", 1), ("мир", 2), ("saved record", 3), ("हिन्दी", 4), ("needle", 5)):
        assert [found.id for found, _ in store.search_words(query)] == [f"r{number}"], query
    exact = MemoryStore(store.path, stemmed=False)
    assert exact.search_words("saved") == []
    exact.close()


def test_both_rankings_are_fused_by_reciprocal_ranks(store: MemoryStore) -> None:
    store.save([record(n, content=f"tea number {n}" if n < 3 else "rain", embedding=unit(n)) for n in range(20)])
    query = unit(1)
    near = [found.id for found, _ in store.search(query, limit=20)]
    named = [found.id for found, _ in store.search_words("tea 1", limit=20)]
    expected = {
        name: sum(61 / (61 + ranking.index(name)) / 2 for ranking in (near, named) if name in ranking) for name in near
    }
    found = store.search_words("tea 1", embedding=query, limit=20)
    assert {match.id: score for match, score in found} == pytest.approx(expected)
    assert found[0][0].id == "r1"
    assert found[0][1] == pytest.approx(1.0)


async def test_the_async_half_searches_words_too(store: MemoryStore) -> None:
    await store.asave([record(1, content="tea"), record(2, content="rain")])
    assert [found.id for found, _ in await store.asearch_words("tea")] == ["r1"]


def test_an_embedder_of_words_carries_texts() -> None:
    embedder = WordEmbedder()
    for text in ("", "tea", "naïve \x00 ☕" * 20, "x" * 10_000):
        told, vector = unwrapped(embedder([text])[0])
        assert told == text[:4096] if text.isascii() else text
        assert list(vector) == []
    told, vector = unwrapped(WordEmbedder(lambda texts: [[0.5, 1.0] for _ in texts])(["tea"])[0])
    assert (told, list(vector)) == ("tea", [0.5, 1.0])
    assert unwrapped([0.1] * 100) == (None, [0.1] * 100)
    one, other = embedder(["I like tea with milk"])[0], embedder(["I like tea with mint"])[0]
    product = sum(a * b for a, b in zip(one, other, strict=True)) / (math.hypot(*one) * math.hypot(*other))
    assert product < 0.8


@pytest.fixture
def installed() -> Iterator[None]:
    fastcrew_async.install()
    yield
    fastcrew_async.uninstall()


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_memory_without_any_embeddings_finds_words(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch, installed: None, wrapped: bool
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    llm = ScriptedLLM(["unused"])
    memory = Memory(storage=store, llm=llm, embedder=store.embedder() if wrapped else None)
    for text in ("The kettle whistles at dawn", "Rain fell on the garden", "A letter came"):
        memory.remember(text, scope="/a", categories=["c"], importance=0.5)
    found = memory.recall("gardens in the rain", depth="shallow", limit=2)
    assert found[0].record.content == "Rain fell on the garden"
    assert memory.recall("kettle", depth="deep")[0].record.content == "The kettle whistles at dawn"
    assert all(match.record.embedding is None for match in found)
    memory.close()


def test_stems_are_porters() -> None:
    pairs = {"caresses": "caress", "ponies": "poni", "agreed": "agre", "hopping": "hop", "filing": "file"}
    pairs |= {
        "relational": "relat",
        "electrical": "electr",
        "replacement": "replac",
        "controll": "control",
        "sky": "sky",
    }
    assert {word: stem(word) for word in pairs} == pairs
    assert list(words("東京 no-one's \uff23afé", False)) == ["東", "京", "no", "one", "s", "cafe"]
