from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from crewai.memory.types import MemoryRecord

from fastcrew_async import MemoryStore
from fastcrew_async.engine.drivers import drive, drive_in_place
from fastcrew_async.engine.stored import stored


class Noted:
    """Where its calls run."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.called: list[tuple[str, bool]] = []

    def __getattribute__(self, name: str) -> Any:
        if name in ("count", "acount"):
            self.called.append((name, threading.current_thread() is threading.main_thread()))
        return super().__getattribute__(name)


class Mine(Noted, MemoryStore):
    pass


class Theirs(Noted):
    def count(self, scope: str | None = None) -> int:
        return 7


async def ask(storage: Any, name: str, *args: Any, **kwargs: Any) -> Any:
    return await stored(storage, name, *args, **kwargs)


@pytest.fixture
def store(tmp_path: Path) -> Any:
    made = MemoryStore(tmp_path / "store")
    yield made
    made.close()


async def test_ours_is_awaited_without_a_thread(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await store.asave([MemoryRecord(id="a", content="tea", scope="/drinks")])
    monkeypatch.setattr(MemoryStore, "list_scopes", lambda *_, **__: pytest.fail("it was called"))
    assert await asyncio.wait_for(drive(ask(store, "list_scopes", parent="/")), 30) == ["/drinks"]


def test_ours_is_called_where_no_loop_runs(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.save([MemoryRecord(id="a", content="tea", scope="/drinks")])
    monkeypatch.setattr(MemoryStore, "alist_scopes", lambda *_: pytest.fail("it was awaited"))
    assert drive_in_place(ask(store, "list_scopes", "/")) == ["/drinks"]


@pytest.mark.parametrize("kind", [Mine, Theirs])
async def test_another_is_called_as_it_is_on_a_worker(kind: Any, tmp_path: Path) -> None:
    storage = kind(tmp_path / "store") if kind is Mine else kind()
    assert await asyncio.wait_for(drive(ask(storage, "count")), 30) == (0 if kind is Mine else 7)
    assert storage.called == [("count", False)]  # not even looked up on the loop: that may open it
    if kind is Mine:
        await storage.aclose()
