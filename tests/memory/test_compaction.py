"""Giving the places of deleted vectors back."""

from __future__ import annotations

import threading

import pytest

from fastcrew_async._fallback import memory as twin
from fastcrew_async._fallback.runtime import Runtime
from fastcrew_async.memory import rows
from fastcrew_async.memory.store import MemoryStore
from tests.memory.records import record, unit


@pytest.fixture
def fragmented(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    """300 records, the first 256 of which are in a segment of their own."""
    with monkeypatch.context() as patched:
        patched.setattr(twin, "capacity", lambda dim: 256)
        first = twin.Memories(Runtime(), store.path, 1, 5.0)
        first.save_sync([rows.incoming(record(n, embedding=unit(n))) for n in range(256)])
        first.close_sync()
    store.save([record(n, embedding=unit(n)) for n in range(256, 300)])
    return store


def test_what_is_gone_is_given_back_and_nothing_else(fragmented: MemoryStore) -> None:
    store = fragmented
    before = store.stats()
    assert (before.records, before.dimensions, before.slots, before.dead_slots) == (300, 8, 300, 0)
    assert store.compact() == 0
    assert store.delete(record_ids=[f"r{n}" for n in range(236)]) == 236
    assert store.stats().dead_slots == 236
    expected = [found.id for found, _ in store.search(unit(280), limit=64)]
    assert len(expected) == 64
    assert store.compact(7) == 1
    after = store.stats()
    assert (after.records, after.slots, after.dead_slots) == (64, 64, 0)
    assert after.vectors_bytes < before.vectors_bytes / 4
    assert [found.id for found, _ in store.search(unit(280), limit=64)] == expected
    moved = store.get_record("r250")
    assert moved is not None
    assert moved.embedding == pytest.approx(unit(250), abs=1e-6)
    store.close()
    assert [found.id for found, _ in store.search(unit(280), limit=64)] == expected


def test_searches_go_on_meanwhile(fragmented: MemoryStore) -> None:
    store = fragmented
    store.delete(record_ids=[f"r{n}" for n in range(220)])
    wrong: list[object] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            found = [match.id for match, _ in store.search(unit(270), limit=80)]
            if len(found) != 80 or len(set(found)) != 80 or found[0] != "r270":
                wrong.append(found)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        assert store.compact(5) == 1
    finally:
        done.set()
        looking.join(30)
    assert wrong == []


async def test_the_async_half_compacts_and_counts(store: MemoryStore) -> None:
    await store.asave([record(1, embedding=unit(1))])
    assert await store.acompact() == 0
    assert (await store.astats()).records == 1
