"""Giving the places of deleted vectors back."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from fastcrew_async.memory import compaction
from fastcrew_async.memory.store import MemoryStore
from tests.memory.records import record, unit


def test_what_is_gone_is_given_back_and_nothing_else(fragmented: MemoryStore) -> None:
    store = fragmented
    before = store.stats()
    assert (before.records, before.dimensions, before.slots, before.dead_slots) == (300, 8, 300, 0)
    assert store.compact() == 0
    assert store.delete(record_ids=[f"r{n}" for n in range(100)]) == 100
    assert store.stats().dead_slots == 100  # less than half of the file
    expected = [found.id for found, _ in store.search(unit(280), limit=200)]
    assert len(expected) == 200
    assert store.compact(7) == 1
    after = store.stats()
    assert (after.records, after.slots, after.dead_slots) == (200, 200, 0)
    assert after.vectors_bytes < before.vectors_bytes
    assert [found.id for found, _ in store.search(unit(280), limit=200)] == expected
    moved = store.get_record("r250")
    assert moved is not None
    assert moved.embedding == pytest.approx(unit(250), abs=1e-6)
    store.close()
    assert [found.id for found, _ in store.search(unit(280), limit=200)] == expected


def test_searches_go_on_meanwhile(fragmented: MemoryStore) -> None:
    store = fragmented
    store.delete(record_ids=[f"r{n}" for n in range(120)])
    wrong: list[object] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            found = [match.id for match, _ in store.search(unit(270), limit=180)]
            if len(found) != 180 or len(set(found)) != 180 or found[0] != "r270":
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


def test_a_file_of_which_half_is_gone_is_given_back_by_who_deletes(fragmented: MemoryStore) -> None:
    store = fragmented
    expected = [found.id for found, _ in store.search(unit(280), limit=300)]
    assert store.delete(record_ids=[f"r{n}" for n in range(127)]) == 127
    assert store.stats().dead_slots == 127  # one less than half
    assert store.delete(record_ids=["r127", *(f"r{n}" for n in range(256, 275))]) == 20
    # 40 of the 128 that live in the file have moved, and their old places are dead as well.
    assert store.stats().slots == 300 + 40
    for n in range(128, 148):
        assert store.delete(record_ids=[f"r{n}"]) == 1
    after = store.stats()
    assert after.records == 300 - 167
    assert after.slots < 300
    left = [one for one in expected if not (int(one[1:]) < 148 or 256 <= int(one[1:]) < 275)]
    assert [found.id for found, _ in store.search(unit(280), limit=300)] == left


async def test_updates_give_back_what_they_replace(fragmented: MemoryStore) -> None:
    store = fragmented
    for turn in range(4):
        for n in range(0, 250, 10):
            await store.areplace([record(m, embedding=unit(m + turn)) for m in range(n, n + 10)])
    after = await store.astats()
    assert after.records == 300
    # The file of the first 256 is gone; the others are in the one that is being written to.
    assert after.slots == (await store._core().sizes())[-1][0][1]
    assert {found.id for found, _ in await store.asearch(unit(3), limit=300)} == {f"r{n}" for n in range(300)}


def test_what_fails_is_logged_and_tried_again(
    fragmented: MemoryStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = fragmented

    def failing(base: int, at: int, most: int) -> None:
        raise OSError("no space left")

    core = store._core()
    with monkeypatch.context() as patched:
        patched.setattr(store._folder, "core", _Replaced(core, compact_sync=failing))
        assert store.delete(record_ids=[f"r{n}" for n in range(150)]) == 150
    assert "no space left" in caplog.text
    assert store.stats().dead_slots == 150
    for n in range(150, 230, 20):
        assert store.delete(record_ids=[f"r{m}" for m in range(n, n + 20)]) == 20
    assert store.stats().slots < 300


def test_who_is_at_it_moves_for_those_who_remove_meanwhile() -> None:
    upkeep = compaction.Upkeep()
    first = upkeep.after(200)
    assert next(first) == ("sizes",)
    sizes = (312, 8, 512, 200, 0, 0, 0, [(0, 256, 200), (256, 256, 0)])
    assert first.send(sizes) == ("compact", 0, 0, 256)
    assert list(upkeep.after(30)) == []
    assert first.send(100) == ("compact", 0, 100, 144 + 60)
    assert first.send(0) == ("compact", 0, 0, 144 + 60)  # none were left to move: they are owed still
    with pytest.raises(StopIteration):
        first.send(None)


class _Replaced:
    """A core some methods of which are others."""

    def __init__(self, core: Any, **methods: Any) -> None:
        self.__dict__.update(methods)
        self._core = core

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)
