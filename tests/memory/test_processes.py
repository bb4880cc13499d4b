"""Several processes on one store, and processes that are killed."""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fastcrew_async._fallback import memory as twin
from fastcrew_async._fallback.runtime import Runtime
from fastcrew_async.memory.store import MemoryStore
from tests.memory.saver import MANY, incoming, vector

KILLS = int(os.environ.get("FASTCREW_ASYNC_MEMORY_KILLS", "4"))

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("fastcrew_async._core") is None,
    reason="the compiled core is not built here",
)


def start(folder: Path, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.memory.saver", str(folder), name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def check(store: MemoryStore, present: list[str]) -> None:
    """Each is found by its id, by its word and by its vector."""
    for one in present:
        found = store.get_record(one)
        assert found is not None, one
        assert found.embedding == pytest.approx(vector(one), abs=1e-6)
        assert one in [match.id for match, _ in store.search_words(one)]
        match, score = store.search(vector(one), limit=1)[0]
        assert match.id == one
        assert score == pytest.approx(1.0, abs=1e-5)


def test_eight_processes_lose_nothing(tmp_path: Path) -> None:
    savers = [start(tmp_path / "m", f"p{number}", 25) for number in range(8)]
    answers = [saver.communicate(timeout=120) for saver in savers]
    assert [errors for _, errors in answers] == [""] * 8
    saved = [one for output, _ in answers for line in output.splitlines() for one in line.split()[1:]]
    store = MemoryStore(tmp_path / "m")
    assert store.count() == len(saved) == 8 * 30
    check(store, saved[::8])
    assert {found.id for found in store.list_records(limit=1000)} == set(saved)
    store.close()


def test_killed_processes_lose_nothing_that_was_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while they save, delete and compact, one after the other on one store."""
    folder = tmp_path / "m"
    # A first segment of few slots, so that there is something to compact.
    monkeypatch.setattr(twin, "capacity", lambda dim: 64)
    first = twin.Memories(Runtime(), folder, 1, 5.0)
    present = {f"first{number}" for number in range(64)}
    first.save_sync([incoming(one) for one in sorted(present)])
    first.delete_sync([f"first{number}" for number in range(20)], None, None, False)
    first.close_sync()
    present -= {f"first{number}" for number in range(20)}
    chance = random.Random(11)
    for turn in range(KILLS):
        saver = start(folder, f"k{turn}", 0)
        assert saver.stdout is not None
        lines = [saver.stdout.readline()]
        time.sleep(chance.uniform(0.0, 0.4))
        saver.send_signal(signal.SIGKILL)
        rest, errors = saver.communicate(timeout=30)
        assert errors == ""
        doubtful: set[str] = set()
        for line in lines + rest.splitlines(keepends=True):
            verb, *ids = line.split()
            if not line.endswith("\n"):
                break  # it was killed as it told
            if verb == "saved":
                present |= set(ids)
            elif verb == "going":  # until it is acknowledged, it may have happened or not
                doubtful = set(ids)
            else:
                present -= set(ids)
                doubtful = set()
        store = MemoryStore(folder)
        there = {found.id for found in store.list_records(limit=1_000_000)}
        assert present - doubtful <= there
        # At most the one save that was under way was made and not acknowledged.
        assert len(there - present) <= MANY
        present = there
        check(store, sorted(present)[-10:] + chance.sample(sorted(present), 10))
        sizes = store.stats()
        assert sizes.records == len(present) <= sizes.slots
        store.close()
