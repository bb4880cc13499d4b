"""Storage of its own for every test, and a detector of blocking calls that no ``except`` can hide."""

from __future__ import annotations

import asyncio
import os
import threading
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import blockbuster.blockbuster
import pytest

os.environ.update(CREWAI_DISABLE_TELEMETRY="true", OTEL_SDK_DISABLED="true", CREWAI_TRACING_ENABLED="false")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # CrewAI's own imports warn
    import crewai  # noqa: F401

import fastcrew_async

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore::UserWarning"))  # of CrewAI's models and its MCP client
            item.add_marker(pytest.mark.filterwarnings("ignore::DeprecationWarning"))  # of CrewAI's own fields


@pytest.fixture(autouse=True)
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One folder a test, known before the loop runs."""
    monkeypatch.setenv("CREWAI_STORAGE_DIR", str(tmp_path))
    before = fastcrew_async.settings().storage_path
    fastcrew_async.configure(storage_path=tmp_path / "fastcrew_async.db")
    yield
    fastcrew_async.configure(storage_path=before)


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
