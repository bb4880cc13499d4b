"""Parity tests run stock CrewAI too, which blocks loops and warns; its warnings are not ours to fail on."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.update(CREWAI_DISABLE_TELEMETRY="true", OTEL_SDK_DISABLED="true", CREWAI_TRACING_ENABLED="false")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # CrewAI's own imports warn
    import crewai  # noqa: F401

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore::UserWarning:crewai"))
            item.add_marker(pytest.mark.filterwarnings("ignore::UserWarning:pydantic"))
            item.add_marker(pytest.mark.filterwarnings("ignore::DeprecationWarning"))  # of CrewAI's own fields


@pytest.fixture(scope="module", autouse=True)
def _imports_set_aside() -> Iterator[None]:
    """Keep what is imported out of the collections below, which walk it for 0.2 s each otherwise."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _quiet_bus() -> Iterator[None]:
    """Let no event, and no unfinished coroutine, of one test reach the next."""
    from crewai.events.event_bus import crewai_event_bus

    yield
    crewai_event_bus.flush()
    gc.collect()
