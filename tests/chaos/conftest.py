"""Storage of its own for the crews of these tests; CrewAI's warnings are not ours to fail on."""

from __future__ import annotations

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


@pytest.fixture(autouse=True)
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One folder a test, known before the loop runs."""
    import fastcrew_async

    monkeypatch.setenv("CREWAI_STORAGE_DIR", str(tmp_path))
    before = fastcrew_async.settings().storage_path
    fastcrew_async.configure(storage_path=tmp_path / "fastcrew_async.db")
    yield
    fastcrew_async.configure(storage_path=before)
