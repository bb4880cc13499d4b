"""Records of CrewAI's as the core takes and gives them."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, TypeAlias

from crewai.memory.types import MemoryRecord

from fastcrew_async.memory import tags

Incoming: TypeAlias = "tuple[Any, ...]"
Outgoing: TypeAlias = "tuple[Any, ...]"

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND = timedelta(microseconds=1)


def incoming(record: MemoryRecord) -> Incoming:
    """A record on its way to the store.

    Raises:
        TypeError: its metadata cannot be told in JSON, or a number of its vector is none.
        ValueError: a text of it holds a lone surrogate, which no file can hold.
    """
    metadata = json.dumps(record.metadata)
    created = record.created_at
    for name in ("id", "content", "scope", "source"):
        _check_text(name, getattr(record, name), record.id)
    for category in record.categories:
        _check_text("a category", category, record.id)
    return (
        record.id,
        record.content,
        record.scope,
        json.dumps(record.categories),
        metadata,
        tags.of_record(record.categories, json.loads(metadata)),
        float(record.importance),
        (created.isoformat(), microseconds(created), record.last_accessed.isoformat()),
        (record.source or None, bool(record.private)),
        vector(record.embedding) if record.embedding is not None and len(record.embedding) else None,
    )


def _check_text(name: str, text: str | None, record_id: Any) -> None:
    if text is None or text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{name} of record {record_id!r} holds a lone surrogate at place {error.start}: it is not Unicode text, "
            'encode it with errors="replace" first'
        ) from None


def outgoing(row: Outgoing) -> MemoryRecord:
    """A row as a record; it was validated when it was made."""
    identity, content, scope, categories, metadata, importance, created, accessed, source, private, embedding = row
    return MemoryRecord.model_construct(
        id=identity,
        content=content,
        scope=scope,
        categories=json.loads(categories),
        metadata=json.loads(metadata),
        importance=importance,
        created_at=moment(created),
        last_accessed=moment(accessed),
        embedding=None if embedding is None else numbers(embedding),
        source=source,
        private=private,
    )


def vector(embedding: Iterable[float]) -> bytes:
    """Numbers of 32 bits; one that does not fit becomes infinite, which the core refuses."""
    return (embedding if isinstance(embedding, array) else array("f", embedding)).tobytes()


def numbers(embedding: bytes) -> list[float]:
    """The numbers of a stored vector."""
    found = array("f")
    found.frombytes(embedding)
    return found.tolist()


def moment(text: str) -> datetime:
    """A time as it was saved."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def microseconds(time: datetime) -> int:
    """Since 1970; a time without a zone is taken for UTC, as CrewAI's are."""
    return ((time if time.tzinfo else time.replace(tzinfo=timezone.utc)) - _EPOCH) // _MICROSECOND


def wanted(
    prefix: str | None,
    categories: Sequence[str] | None = None,
    metadata: dict[str, Any] | None = None,
    visible_to: str | None = None,
    newer_than: datetime | None = None,
    older_than: datetime | None = None,
) -> tuple[Any, ...]:
    """A filter as the core takes it."""
    every, none = [], []
    for key, value in (metadata or {}).items():
        if value is None:  # as ``metadata.get(key) == None``
            none.append(tags.of_key(key))
        else:
            # A category is a text; what begins with "!" is no tag, so nothing has it.
            every.append(tags.of_value(key, value) or "!")
    times = tuple(None if time is None else microseconds(time) for time in (newer_than, older_than))
    return prefix, [tags.of_category(category) for category in categories or ()], every, none, visible_to, times
