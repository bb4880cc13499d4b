"""Memories from and to elsewhere: a LanceDB folder of CrewAI's, and JSON lines."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from crewai.memory.types import MemoryRecord

from fastcrew_async.memory import rows
from fastcrew_async.memory.store import MemoryStore

_BATCH = 1000


def import_lancedb(store: MemoryStore, path: str | os.PathLike[str], table: str = "memories") -> int:
    """Copy the records of CrewAI's ``LanceDBStorage`` at ``path``, and tell how many. Those whose id the store had
    before are passed over, so that an import that was cut short can be done again; an id that the table holds twice is
    kept twice.

    Raises:
        FileNotFoundError: there is no such table.
        ImportError: the package lancedb is not installed.
    """
    import lancedb

    if not (Path(path) / f"{table}.lance").is_dir():
        raise FileNotFoundError(f"{os.fspath(path)} holds no LanceDB table {table!r}: give CrewAI's memory folder")
    rows = lancedb.connect(os.fspath(path)).open_table(table).to_arrow()
    return _save(store, (_from_lancedb(row) for batch in rows.to_batches(_BATCH) for row in batch.to_pylist()))


def _from_lancedb(row: dict[str, Any]) -> MemoryRecord:
    """Source: ``LanceDBStorage._row_to_record``; a vector of zeros is how it keeps a record that has none."""
    vector = row.get("vector")
    return MemoryRecord(
        id=row["id"],
        content=row["content"],
        scope=row["scope"],
        categories=json.loads(row.get("categories_str") or "[]"),
        metadata=json.loads(row.get("metadata_str") or "{}"),
        importance=row.get("importance", 0.5),
        created_at=_time(row.get("created_at")),
        last_accessed=_time(row.get("last_accessed")),
        embedding=vector if vector is not None and any(vector) else None,
        source=row.get("source") or None,
        private=bool(row.get("private", False)),
    )


def _time(text: Any) -> datetime:
    return datetime.fromisoformat(str(text).replace("Z", "+00:00")) if text else rows.now()


def export_jsonl(store: MemoryStore, file: TextIO, scope: str | None = None, vectors: bool = True) -> int:
    """Write the records of a scope, a line of JSON each, the newest first, and tell how many. Read back by
    ``import_jsonl``. Infinite numbers in metadata and NaN are written as Python's ``json`` does: ``Infinity``, ``NaN``.
    """
    count = 0
    for record in _records(store, scope):
        line = record.model_dump(mode="json", exclude={"metadata"})
        line["metadata"] = record.metadata  # pydantic's JSON has no infinite numbers
        if vectors:
            line["embedding"] = record.embedding
        file.write(json.dumps(line) + "\n")
        count += 1
    return count


def import_jsonl(store: MemoryStore, file: TextIO) -> int:
    """Save what ``export_jsonl`` wrote, and tell how many. Records whose id the store had before are passed over; an id
    that the file holds twice is kept twice.

    Raises:
        ValueError: a line is not a record; the error tells its number. The batches before it are saved.
    """
    return _save(store, _lines(file))


def _lines(file: TextIO) -> Iterator[MemoryRecord]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            yield MemoryRecord.model_validate(json.loads(line))
        except ValueError as error:
            raise ValueError(f"line {number} is not a record: {error}") from error


def _save(store: MemoryStore, records: Iterable[MemoryRecord]) -> int:
    """Save in batches what was not there before, and tell how many."""
    count, batch = 0, []
    fresh: set[str] = set()
    for record in records:
        if record.id not in fresh and store.get_record(record.id) is not None:
            continue
        fresh.add(record.id)
        batch.append(record)
        if len(batch) == _BATCH:
            store.save(batch)
            count, batch = count + len(batch), []
    store.save(batch)
    return count + len(batch)


def _records(store: MemoryStore, scope: str | None) -> Iterator[MemoryRecord]:
    at = 0
    while page := store.list_records(scope, limit=_BATCH, offset=at):
        yield from page
        at += len(page)
