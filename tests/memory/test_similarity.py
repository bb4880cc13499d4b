"""A similarity of the user's; each test on both backends."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
from crewai.memory.storage.backend import EmbeddingDimensionMismatchError

from fastcrew_async.memory import similarity
from fastcrew_async.memory.store import MemoryStore
from tests.memory.records import START, record, unit


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarity, "_registered", {})


@pytest.fixture
def store(backend: SimpleNamespace, tmp_path: Path) -> Iterator[MemoryStore]:
    MemoryStore.register("manhattan", manhattan)
    store = MemoryStore(tmp_path / "memory", metric="manhattan")
    yield store
    store.close()


def manhattan(query: memoryview[float], block: memoryview[float]) -> Any:
    return 1 / (1 + numpy.abs(numpy.asarray(block) - numpy.asarray(query)).sum(axis=1))


def far(number: int) -> float:
    return sum(abs(a - b) for a, b in zip(unit(number), unit(1000), strict=True))


@pytest.mark.parametrize("block_bytes", [1, 7 * 32, 4 << 20])
async def test_it_ranks_and_scores(store: MemoryStore, block_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarity, "_BLOCK_BYTES", block_bytes)
    await store.asave([record(n, embedding=unit(n)) for n in range(50)])
    expected = sorted(range(50), key=far)[:10]
    found = await store.asearch(unit(1000))
    assert [match.id for match, _ in found] == [f"r{n}" for n in expected]
    assert [score for _, score in found] == pytest.approx([1 / (1 + far(n)) for n in expected], abs=1e-5)
    assert await asyncio.to_thread(store.search, unit(1000)) == found
    assert await store.asearch(unit(1000), min_score=found[3][1]) == found[:4]
    assert await store.asearch(unit(1000), limit=0) == []
    MemoryStore.register("manhattan", lambda query, block: -1 / manhattan(query, block))
    assert await store.asearch(unit(1000)) == []
    assert [match.id for match, _ in await store.asearch(unit(1000), min_score=-99)] == [f"r{n}" for n in expected]
    MemoryStore.register("manhattan", manhattan)
    assert len(await store.asearch(unit(1000), limit=99)) == 50


def test_filters_come_before_the_ranking(store: MemoryStore) -> None:
    asked: list[int] = []
    MemoryStore.register("manhattan", lambda query, block: asked.append(len(block)) or manhattan(query, block))
    store.save(
        [
            record(
                n,
                embedding=unit(n),
                scope="/rare" if n % 20 == 3 else "/",
                categories=["rare"] if n % 20 == 3 else [],
                metadata={"rare": n % 20 == 3},
                private=n % 20 != 3,
            )
            for n in range(200)
        ]
    )
    narrowed: list[dict[str, Any]] = [
        {"scope_prefix": "/rare"},
        {"categories": ["rare"]},
        {"metadata_filter": {"rare": True}},
        {"include_private": False},
        {"newer_than": START, "older_than": START + timedelta(minutes=10)},
    ]
    for filters in narrowed:
        found = store.search(unit(1000), **filters)
        assert len(found) == asked.pop() == 10
        assert not asked
    assert store.search(unit(1000), categories=["none"]) == []
    assert not asked


def test_what_is_gone_or_moved_is_passed_over(store: MemoryStore) -> None:
    store.save([record(n, embedding=unit(n)) for n in range(100)])
    ranked = sorted(range(100), key=far)
    store.delete(record_ids=[f"r{n}" for n in ranked[:40]])
    store.update(record(ranked[50], embedding=unit(1000)))
    found = store.search(unit(1000), limit=5)
    assert [match.id for match, _ in found] == [f"r{n}" for n in [ranked[50], *ranked[40:44]]]
    store.compact()
    assert store.search(unit(1000), limit=5) == found


async def test_the_function_runs_off_the_loop(store: MemoryStore) -> None:
    threads: list[threading.Thread] = []
    MemoryStore.register(
        "manhattan", lambda query, block: threads.append(threading.current_thread()) or manhattan(query, block)
    )
    await store.asave([record(1, embedding=unit(1))])
    assert len(await store.asearch(unit(1))) == 1
    assert threads
    assert threading.main_thread() not in threads


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (lambda query, block: [1.0] * (len(block) + 1), ValueError, "returned 4 scores for 3 vectors"),
        (lambda query, block: [[1.0]] * len(block), TypeError, "must return 3 numbers, one for each vector"),
        (lambda query, block: None, TypeError, "must return 3 numbers, one for each vector, not None"),
        (lambda query, block: [1.0, math.nan, 0.0], ValueError, "returned the score nan"),
        (lambda query, block: [1.0, math.inf, 0.0], ValueError, "returned the score inf"),
        (lambda query, block: 1 // 0, ZeroDivisionError, "division"),
    ],
)
async def test_a_wrong_answer_is_told(store: MemoryStore, given: Any, error: type[Exception], message: str) -> None:
    MemoryStore.register("manhattan", given)
    await store.asave([record(n, embedding=unit(n)) for n in range(3)])
    with pytest.raises(error, match=message):
        await store.asearch(unit(1))
    with pytest.raises(error, match=message):
        await asyncio.to_thread(store.search, unit(1))


def test_bad_vectors_are_refused(store: MemoryStore) -> None:
    store.save([record(1, embedding=unit(1))])
    with pytest.raises(EmbeddingDimensionMismatchError):
        store.search([1.0])
    with pytest.raises(ValueError, match=r"the query's vector holds (nan|NaN) at place 1"):
        store.search([1.0, math.nan])
    with pytest.raises(ValueError, match="leave the embedding out"):
        store.search_words("thought", embedding=unit(1))
    assert len(store.search_words("thought")) == 1


def test_names(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the name of a registered similarity \(none\), not 'near'"):
        MemoryStore(tmp_path, metric="near")
    MemoryStore.register("near", manhattan)
    with pytest.raises(ValueError, match=r"\('near'\), not 'nearer'"):
        MemoryStore(tmp_path, metric="nearer")
    assert MemoryStore(tmp_path, metric="near").metric == "near"
    for name in ("", "cosine"):
        with pytest.raises(ValueError, match="cannot be registered"):
            MemoryStore.register(name, manhattan)
    wrong: Any
    for wrong in ((1, manhattan), ("near", None)):
        with pytest.raises(TypeError, match="by a name and a function"):
            MemoryStore.register(*wrong)
