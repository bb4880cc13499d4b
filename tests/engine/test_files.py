from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from crewai.utilities import file_store

from fastcrew_async.engine.files import given, stored


class Store:
    def __init__(self, **entries: Any) -> None:
        self._cache = entries


@pytest.fixture
def keep(monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda store: monkeypatch.setattr(file_store, "_file_store", store)


def test_nothing_is_stored_where_there_is_no_store(keep: Any) -> None:
    keep(None)
    assert not stored(uuid4(), uuid4())


def test_files_are_found_by_their_crew_or_task(keep: Any) -> None:
    crew, task = uuid4(), uuid4()
    keep(Store(**{f"{file_store._CREW_PREFIX}{crew}": {"a": 1}, f"{file_store._TASK_PREFIX}{task}": {"b": 1}}))
    assert stored(crew)
    assert stored(None, task)
    assert not stored(task, crew)
    assert not stored(uuid4(), uuid4())


def test_a_store_that_cannot_be_looked_into_may_have_them(keep: Any) -> None:
    keep(object())
    assert stored(uuid4())


def test_crewais_store_can_be_looked_into() -> None:
    """Where it cannot, every run would ask it, at the cost of a thread and a loop."""
    pytest.importorskip("aiocache", reason="CrewAI has no file store without aiocache")
    crew = uuid4()
    file_store.store_files(crew, {"a": "text"})  # type: ignore[dict-item]
    assert stored(crew)
    file_store.clear_files(crew)
    assert not stored(crew)


def test_files_that_the_inputs_bring() -> None:
    assert given({"files": {"a": 1}})
    assert not given({"files": {}})
    assert not given({"input": "x"})
