"""CrewAI without its telemetry, its tracing and the warnings of its own code; imported before anything of CrewAI's."""

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

import fastcrew_async

OF_CREWAI = ("ignore::UserWarning:crewai", "ignore::UserWarning:pydantic", "ignore::DeprecationWarning")


def ignore(items: list[pytest.Item], folder: Path, *filters: str) -> None:
    """Let the tests under `folder` pass over these warnings, which are not ours to fail on."""
    for item in items:
        if folder in item.path.parents:
            for each in filters:
                item.add_marker(pytest.mark.filterwarnings(each))


def stored_in(folder: Path, environment: pytest.MonkeyPatch) -> Iterator[None]:
    """CrewAI's storage and ours in `folder`, known before any loop runs."""
    environment.setenv("CREWAI_STORAGE_DIR", str(folder))
    before = fastcrew_async.settings().storage_path
    fastcrew_async.configure(storage_path=folder / "fastcrew_async.db")
    yield
    fastcrew_async.configure(storage_path=before)


@pytest.fixture(autouse=True)
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder for every test."""
    yield from stored_in(tmp_path, monkeypatch)
