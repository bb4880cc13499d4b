"""Whether CrewAI's file store holds anything for an execution.

The store is a cache in memory behind an async interface; CrewAI's sync calls start a thread with an event loop for each
look. Nearly every run has no files, so the engine looks first and calls CrewAI only when there is something.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from crewai.utilities import file_store


def stored(crew_id: UUID | None, task_id: UUID | None = None) -> bool:
    """Whether there are files for the crew's or the task's execution. True too when the store cannot be looked into."""
    store = file_store._file_store
    if store is None:
        return False
    entries = getattr(store, "_cache", None)
    if not isinstance(entries, dict):
        return True
    return bool(entries) and (
        f"{file_store._CREW_PREFIX}{crew_id}" in entries or f"{file_store._TASK_PREFIX}{task_id}" in entries
    )


def given(inputs: dict[str, Any]) -> bool:
    """Whether an executor's inputs bring files of their own."""
    return bool(inputs.get("files"))
