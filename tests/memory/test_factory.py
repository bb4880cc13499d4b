"""Which store a memory gets by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crewai.memory.storage import factory as crewais
from crewai.memory.unified_memory import Memory

import fastcrew_async
from fastcrew_async.memory.store import MemoryStore
from tests.memory.records import record


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CREWAI_STORAGE_DIR", str(tmp_path))
    fastcrew_async.uninstall()
    yield
    fastcrew_async.uninstall()
    crewais.set_memory_storage_factory(None)


def _store(**asked: Any) -> Any:
    memory: Any = Memory(llm="gpt-4o-mini", **asked)
    return memory._storage


def test_the_name_and_the_default(tmp_path: Path) -> None:
    fastcrew_async.install()
    named = _store(storage="fastcrew")
    assert isinstance(named, MemoryStore)
    assert named.path == str(tmp_path / "fastcrew_memory")
    assert _store(storage=f"fastcrew:{tmp_path / 'own'}").path == str(tmp_path / "own")
    assert not isinstance(_store(), MemoryStore)
    fastcrew_async.install(memory=True)
    assert isinstance(_store(), MemoryStore)
    named.save([record(1)])
    assert _store().count() == 1
    named.close()
    fastcrew_async.uninstall()
    assert crewais.resolve_memory_storage("fastcrew") is None


def test_what_the_user_has_chosen_wins(tmp_path: Path) -> None:
    own, theirs = MemoryStore(tmp_path / "own"), MemoryStore(tmp_path / "theirs")
    crewais.set_memory_storage_factory(lambda spec: theirs if spec in ("lancedb", "fastcrew") else None)
    fastcrew_async.install(memory=True)
    assert _store(storage=own) is own
    assert _store() is theirs
    assert _store(storage="fastcrew") is theirs
    assert crewais.resolve_memory_storage(str(tmp_path / "lance")) is None
    later = MemoryStore(tmp_path / "later")
    crewais.set_memory_storage_factory(lambda spec: later)
    assert _store() is later
    fastcrew_async.uninstall()
    assert _store() is later
