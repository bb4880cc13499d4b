"""A store of memories on each backend."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from fastcrew_async._fallback import memory as twin
from fastcrew_async._fallback.runtime import Runtime
from fastcrew_async.memory import rows
from fastcrew_async.memory.store import MemoryStore
from tests.memory.records import record, unit


@pytest.fixture
def store(backend: SimpleNamespace, tmp_path: Path) -> Iterator[MemoryStore]:
    store = MemoryStore(tmp_path / "memory")
    yield store
    store.close()


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
