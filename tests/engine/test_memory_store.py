from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from crewai.memory.storage.factory import set_memory_storage_factory
from crewai.memory.unified_memory import Memory

import fastcrew_async
from fastcrew_async.engine.memory_store import Unopened


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("CREWAI_STORAGE_DIR", str(tmp_path))
    fastcrew_async.install()
    yield
    fastcrew_async.uninstall()


@pytest.mark.parametrize("named", [False, True])
def test_a_memory_opens_its_store_when_it_is_first_asked(tmp_path: Path, named: bool) -> None:
    path = tmp_path / ("mine" if named else "memory")
    memory = Memory(storage=str(path)) if named else Memory()
    assert memory.storage == (str(path) if named else "lancedb")  # what a checkpoint holds
    assert not path.exists()
    memory.close()
    assert not path.exists()
    assert memory.list_records() == []
    assert path.exists()
    assert type(memory._storage._opened()).__name__ == "LanceDBStorage"


def test_what_is_set_on_the_store_is_set_on_the_one_that_is_opened() -> None:
    storage: Any = Memory()._storage
    storage._save_count = 7
    assert storage._opened()._save_count == 7
    with pytest.raises(AttributeError, match="nothing"):
        storage.nothing  # noqa: B018


def test_a_copy_of_an_unopened_store_is_unopened(tmp_path: Path) -> None:
    assert isinstance(deepcopy(Memory()._storage), Unopened)
    assert not (tmp_path / "memory").exists()


def test_a_store_of_the_users_own_is_taken_as_it_is() -> None:
    asked: list[str] = []
    given: Any = object()

    def factory(spec: str) -> Any:
        asked.append(spec)
        return given

    set_memory_storage_factory(factory)
    try:
        assert Memory()._storage is given
    finally:
        set_memory_storage_factory(None)
    assert asked == ["lancedb"]
