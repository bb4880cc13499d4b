"""A search sees the records of one moment, whatever is written and given back meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fastcrew_async.memory import rows
from fastcrew_async.memory.store import MemoryStore
from tests.memory.records import record, unit

COUNT = 120
ALL = {f"r{n}" for n in range(COUNT)}
SEARCHES: dict[str, Callable[[MemoryStore], list[str]]] = {
    "vector": lambda store: [found.id for found, _ in store.search(unit(5), limit=1000)],
    "words": lambda store: [found.id for found, _ in store.search_words("thought", limit=1000)],
    "both": lambda store: [found.id for found, _ in store.search_words("thought", embedding=unit(5), limit=1000)],
}


@pytest.mark.parametrize("search", SEARCHES)
def test_what_is_being_updated_is_found_once(store: MemoryStore, search: str) -> None:
    store.save([record(n, embedding=unit(n)) for n in range(COUNT)])
    done = threading.Event()
    wrong: list[list[str]] = []

    def look() -> None:
        while not done.is_set():
            found = SEARCHES[search](store)
            if sorted(found) != sorted(ALL):
                wrong.append(found)

    looking = [threading.Thread(target=look) for _ in range(2)]
    for thread in looking:
        thread.start()
    try:
        for turn in range(2 * COUNT):
            store.update(record(turn % COUNT, embedding=unit(turn)))
    finally:
        done.set()
        for thread in looking:
            thread.join(30)
    assert wrong == []


async def test_a_deletion_whose_caller_left_leaves_nothing_behind(store: MemoryStore) -> None:
    await store.asave([record(n, embedding=unit(n)) for n in range(COUNT)])
    for n in range(COUNT):
        deleting = asyncio.ensure_future(store.adelete(record_ids=[f"r{n}"]))
        await asyncio.sleep(n / COUNT / 1000)
        deleting.cancel()
        await asyncio.wait([deleting], timeout=10)
    await store.asave([record(COUNT)])  # what was queued before is done now
    stats = await store.astats()
    assert stats.dead_slots == stats.slots - (stats.records - 1)


def test_both_rankings_are_the_same_while_a_file_is_half_moved(fragmented: MemoryStore) -> None:
    store = fragmented
    expected = store.search_words("thought", embedding=unit(7), limit=25)
    assert store._core().compact_sync(0, 0, 150) == 150
    assert store.search_words("thought", embedding=unit(7), limit=25) == expected


@pytest.mark.parametrize("remove", ["reset", "delete", "compact"])
def test_files_go_while_the_store_is_open(fragmented: MemoryStore, remove: str) -> None:
    store = fragmented

    def files() -> set[str]:
        return {path.name for path in Path(store.path).glob("vectors-*")}

    assert files() == {"vectors-0", "vectors-256"}
    if remove == "compact":
        store.delete(record_ids=[f"r{n}" for n in range(100)])
        assert store.compact() == 1
        assert files() == {"vectors-256"}
    else:
        getattr(store, remove)()
        assert files() == set()
    store.save([record(1000, embedding=unit(1000))])
    assert "r1000" in {found.id for found, _ in store.search(unit(1000))}


def test_a_file_that_goes_under_a_search_is_looked_for_at_a_later_moment(fragmented: MemoryStore) -> None:
    store = fragmented
    done = threading.Event()
    wrong: list[int] = []

    def look() -> None:
        while not done.is_set():
            found = len(store.search(unit(3), limit=1000))
            if found not in (0, 300):
                wrong.append(found)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for _ in range(5):
            store.reset()
            store._core().save_sync([rows.incoming(record(n, embedding=unit(n))) for n in range(300)])
    finally:
        done.set()
        looking.join(30)
    assert wrong == []
