"""Memories: one that notes what it is asked, and CrewAI's own on a shelf instead of a database."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any
from unittest import mock

from crewai.memory.types import MemoryMatch, MemoryRecord, ScopeInfo
from crewai.memory.unified_memory import Memory
from pydantic import PrivateAttr
from typing_extensions import Self

from .models import ScriptedModel
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


class Shelf:
    """A store in memory. Whatever is searched for, the first record scores highest, as `scores` says.

    Searches run beside each other, so they are not noted; everything else is.
    """

    def __init__(self, recorder: Recorder, records: list[MemoryRecord], scores: tuple[float, ...]) -> None:
        self.recorder, self.records, self.scores = recorder, records, scores

    def search(self, embedding: Any, scope_prefix: str | None = None, limit: int = 10, **more: Any) -> Any:
        if scope_prefix == "/broken":
            raise OSError("the shelf has fallen down")
        scored = zip(self.records, [*self.scores, *[0.1] * len(self.records)], strict=False)
        prefix = (scope_prefix or "").rstrip("/")
        return [(record, score) for record, score in scored if record.scope.startswith(prefix)][:limit]

    def list_scopes(self, parent: str = "/") -> list[str]:
        self._note("list_scopes", parent=parent)
        return sorted(
            {record.scope for record in self.records if record.scope != "/" and record.scope.startswith(parent)}
        )

    def list_categories(self, scope_prefix: str | None = None) -> dict[str, int]:
        self._note("list_categories", scope_prefix=scope_prefix)
        return {"fact": len(self.records)}

    def get_scope_info(self, scope: str) -> ScopeInfo:
        self._note("get_scope_info", scope=scope)
        return ScopeInfo(path=scope, record_count=len(self.records), categories=["fact"])

    def touch_records(self, record_ids: list[str]) -> None:
        self._note("touch", ids=record_ids)
        raise OSError("no touching")  # which does not matter

    def save(self, records: list[MemoryRecord]) -> None:
        self._note("save", records=records)
        self.records.extend(records)

    def update(self, record: MemoryRecord) -> None:
        self._note("update", record=record)
        self.records = [record if known.id == record.id else known for known in self.records]

    def delete(self, record_ids: list[str] | None = None, **more: Any) -> int:
        self._note("delete", ids=record_ids)
        self.records = [known for known in self.records if known.id not in (record_ids or [])]
        return len(record_ids or [])

    def _note(self, name: str, **asked: Any) -> None:
        self.recorder.note("store", name, **asked)


class AtOnce:
    """In place of the thread of a memory: saves are done before ``remember_many`` returns, so that their events have
    one order."""

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def shutdown(self, wait: bool = True) -> None:
        return None


def shelved(
    recorder: Recorder,
    script: Any = (),
    known: tuple[tuple[str, str], ...] = (("tea is hot", "/"),),
    scores: tuple[float, ...] = (0.84, 0.5),
    native: bool = False,
    breaks: str = "",
    **fields: Any,
) -> Memory:
    """CrewAI's own memory of what is `known`: texts and their scopes; its model follows `script`.

    Its embedder cannot do texts that contain `breaks`.
    """

    def embed(texts: list[str]) -> list[list[float]]:
        recorder.note("embedder", "embed", texts=texts)
        if breaks and any(breaks in text for text in texts):
            raise OSError("the embedder is away")
        return [[float(len(text)), 1.0] for text in texts]

    records = [MemoryRecord(content=content, scope=scope) for content, scope in known]
    model = ScriptedModel.of(recorder, script, name="model of the memory", native=native)
    fields = {"recency_weight": 0.0} | fields  # a score must not depend on the time
    memory = Memory(llm=model, storage=Shelf(recorder, records, scores), embedder=embed, **fields)  # type: ignore[arg-type]
    memory._save_pool = AtOnce()  # type: ignore[assignment]
    return memory
