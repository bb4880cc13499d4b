"""Memories from and to elsewhere: a LanceDB folder of CrewAI's, and JSON lines."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from hashlib import blake2b
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

    Others may use the store meanwhile. Each record that is there from the beginning to the end is written once; of what
    is saved or deleted meanwhile, some is written. A record that is updated is written as it was or as it became, or as
    both; where its time of creation was changed by that, it may be missed. A page of records is held at a time, and
    where more than a page were created in the same microsecond, all of these.
    """
    count = 0
    for line in _told(store, scope, vectors):
        file.write(json.dumps(line) + "\n")
        count += 1
    return count


def _told(store: MemoryStore, scope: str | None, vectors: bool) -> Iterator[dict[str, Any]]:
    # Places shift while others save and delete, times do not. A page that begins with a newer record than the last that
    # was written leaves nothing out; of those of one time, which are in the order they were saved, what was written is
    # counted by what it says, as an id may be there twice.
    offset, size = 0, _BATCH
    reached, written = "~", Counter[bytes]()  # "~" is later than all times
    while True:
        page = store.list_records(scope, limit=size, offset=offset)
        times = [record.created_at.isoformat() for record in page]  # their order as text is the store's
        if offset and (not page or times[0] <= reached):
            offset = max(0, offset - size)
            continue
        begun, met = reached, Counter[bytes]()
        page.reverse()
        for time in times:
            record = page.pop()  # nothing holds its vector, once it is written
            if time > reached:
                continue
            if time < reached:
                reached, written, met = time, Counter(), Counter()
            line = _line(record, vectors)
            mark = _mark(line)
            met[mark] += 1
            if met[mark] > written[mark]:
                written[mark] += 1
                yield line
        if len(times) < size:
            return
        offset += max(sum(time > reached for time in times) - 1, 0)  # to the last that is newer
        size = size * 2 if times[-1] == begun else _BATCH


def _line(record: MemoryRecord, vectors: bool) -> dict[str, Any]:
    line = record.model_dump(mode="json", exclude={"metadata"})
    line["metadata"] = record.metadata  # pydantic's JSON has no infinite numbers
    if vectors:
        line["embedding"] = record.embedding
    return line


def _mark(line: dict[str, Any]) -> bytes:
    """What tells a line from others, but for the time of the last access, which changes."""
    vector = rows.vector(line.get("embedding") or [])
    return blake2b(json.dumps({**line, "last_accessed": None, "embedding": None}).encode() + vector).digest()


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
