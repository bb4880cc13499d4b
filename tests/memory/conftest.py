"""A store of memories on each backend."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from fastcrew_async.memory.store import MemoryStore


@pytest.fixture
def store(backend: SimpleNamespace, tmp_path: Path) -> Iterator[MemoryStore]:
    store = MemoryStore(tmp_path / "memory")
    yield store
    store.close()
