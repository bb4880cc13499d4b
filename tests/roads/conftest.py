"""Storage of its own for every test, and a detector of blocking calls that no ``except`` can hide."""

from __future__ import annotations

import asyncio
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import blockbuster.blockbuster
import pytest

import fastcrew_async
from tests.quiet import ignore, storage

__all__ = ["storage"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # of CrewAI's models and its MCP client; of CrewAI's own fields
    ignore(items, Path(__file__).parent, "ignore::UserWarning", "ignore::DeprecationWarning")


@pytest.fixture(autouse=True)
def nothing_hidden(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """CrewAI swallows errors in many places; a blocking call that it swallowed fails the test all the same.

    Only the test's own loop counts: CrewAI's tools and memory have loops of theirs on worker threads, which may block.
    """
    found: list[str] = []

    class Noted(blockbuster.BlockingError):
        def __init__(self, function: str) -> None:
            super().__init__(function)
            stack = "".join(traceback.format_list(traceback.extract_stack()[-14:-2]))
            found.append(f"{function}\n{stack}")

    def loop_of_the_test() -> asyncio.AbstractEventLoop:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("no running event loop that matters")
        return asyncio.get_running_loop()

    monkeypatch.setattr(blockbuster.blockbuster, "BlockingError", Noted)
    monkeypatch.setattr(blockbuster.blockbuster, "asyncio", SimpleNamespace(get_running_loop=loop_of_the_test))
    yield
    assert not found, "the loop was blocked by " + "\n".join(sorted(set(found)))


@pytest.fixture
def installed() -> Iterator[None]:
    """The engine in CrewAI's place."""
    fastcrew_async.install()
    yield
    fastcrew_async.uninstall()
