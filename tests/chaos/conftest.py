"""Storage of its own for the crews of these tests; CrewAI's warnings are not ours to fail on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.quiet import OF_CREWAI, ignore, storage

__all__ = ["storage"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ignore(items, Path(__file__).parent, *OF_CREWAI)
