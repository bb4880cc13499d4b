"""A memory that notes what it is asked, and knows one thing."""

from __future__ import annotations

from typing import Any
from unittest import mock

from crewai.memory.types import MemoryMatch, MemoryRecord
from crewai.memory.unified_memory import Memory
from pydantic import PrivateAttr
from typing_extensions import Self

from .recorder import Recorder


class Remembering(Memory):
    """CrewAI's memory without a store and a model; it takes on the thread that asks it."""

    _recorder: Recorder = PrivateAttr()
    _fails: bool = PrivateAttr(default=False)

    @classmethod
    def of(cls, recorder: Recorder, *, fails: bool = False) -> Self:
        """A memory for `recorder`; one that `fails` raises whenever it is asked."""
        memory = cls(storage=mock.MagicMock())
        memory._recorder, memory._fails = recorder, fails
        return memory

    def recall(self, query: str, *args: Any, **kwargs: Any) -> list[MemoryMatch]:
        self._note("recall", query=query, **kwargs)
        return [MemoryMatch(record=MemoryRecord(content="tea is hot"), score=1.0)]

    def extract_memories(self, content: str) -> list[str]:
        self._note("extract", content=content)
        return [content.splitlines()[-1]]

    def remember_many(self, contents: list[str], *args: Any, **kwargs: Any) -> list[MemoryRecord]:
        self._note("remember", contents=contents, **kwargs)
        return []

    def drain_writes(self) -> None:
        return None

    def _note(self, name: str, **asked: Any) -> None:
        self._recorder.note("memory", name, **asked)
        if self._fails:
            raise RuntimeError("the memory is away")
