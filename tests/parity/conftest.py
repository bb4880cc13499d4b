"""Parity tests run stock CrewAI too, which blocks loops and warns; its warnings are not ours to fail on."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.quiet import OF_CREWAI, ignore

# isort: split
from crewai.events.event_bus import crewai_event_bus

from fastcrew_async.config import configure, settings


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ignore(items, Path(__file__).parent, *OF_CREWAI)


@pytest.fixture(scope="module", autouse=True)
def _collected_once() -> Iterator[None]:
    """One collection for all tests of a file: what was never awaited says so, without 0.2 s in each of 900 tests."""
    before = settings().collector_policy
    configure(collector_policy=False)
    yield
    configure(collector_policy=before)
    gc.collect()


@pytest.fixture(autouse=True)
def _quiet_bus() -> Iterator[None]:
    """Let no event of one test reach the next, nor a state that a test has left on the bus in this thread's context."""
    crewai_event_bus.reset_runtime_state()
    yield
    crewai_event_bus.flush()
