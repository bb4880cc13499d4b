"""The memories in plain Python: ``sqlite3`` and files of vectors; the tables, files and rules are ``src/memory``'s."""

from __future__ import annotations

import json
import math
import os
import sqlite3
import weakref
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastcrew_async._fallback import store, tables, words
from fastcrew_async._fallback.bridge import Awaitable
from fastcrew_async._fallback.nearness import NEARNESS, fused
from fastcrew_async._fallback.runtime import Runtime
from fastcrew_async._fallback.segments import PRIVATE, Entry, Segment, capacity
from fastcrew_async._fallback.tables import Wanted

_MOST_DIMENSIONS = 65_536
_FUSED = 100
Act = Callable[[sqlite3.Connection], Any]


class _Writer(store._Writer):
    removed: list[Path]
    """Files that belong to nothing once what is under way is committed."""

    def _patiently(self, since: float, sql: str | None) -> None:
        self.removed = []
        super()._patiently(since, sql)

    def _commit(self, writes: int) -> Exception | None:
        failure = super()._commit(writes)
        if failure is None:
            for path in self.removed:
                with suppress(OSError):  # the next process to open the folder does it
                    path.unlink(missing_ok=True)
        return failure

    def _open(self) -> sqlite3.Connection:
        os.makedirs(os.path.dirname(self._path), exist_ok=True)
        return super()._open()


class _Store(store.Store):
    """A store that does what it is given to do with a connection."""

    def __init__(self, runtime: Runtime, path: str, readers: int, busy_timeout: float) -> None:
        super().__init__(runtime, path, readers, 10_000, "full", busy_timeout)
        self._writer.close()  # it has opened nothing yet
        self._writer._is_last.set()
        self._writer = _Writer(path, "full", busy_timeout)
        weakref.finalize(self, store._abandon, self._writer, self._readers).atexit = False

    def remove(self, path: Path) -> None:
        """To be called by a task at its end: the file goes when it is committed."""
        self._writer.removed.append(path)  # type: ignore[attr-defined]

    def task(self, act: Act) -> Future[Any]:
        return self._write(act)

    def look(self, act: Act) -> Future[Any]:
        return self._readers.submit(_Look(act))  # type: ignore[arg-type]


class _Look:
    """One read transaction; a later one where the file of a segment that it sees was removed."""

    def __init__(self, act: Act) -> None:
        self._act = act

    def run(self, connection: sqlite3.Connection) -> Any:
        connection.set_progress_handler(None, 0)
        for last in (*[False] * 9, True):
            connection.execute("BEGIN")
            try:
                return self._act(connection)
            except FileNotFoundError:
                if last:
                    raise
            finally:
                connection.execute("COMMIT")


class Memories:
    """One folder of memories. ``fastcrew_async.MemoryStore`` is the usual way to it."""

    def __init__(self, runtime: Runtime, folder: str | os.PathLike[str], readers: int, busy_timeout: float) -> None:
        self._folder = Path(folder)
        self._store = _Store(runtime, str(self._folder / "records.db"), readers, busy_timeout)
        self._created = False  # until a first write is acknowledged: the tables may be rolled back before

    # Both halves of each operation: one for an event loop, one that waits.

    def open(self) -> Awaitable[Any]:
        return self._later(self._writing(lambda connection: None))

    def open_sync(self) -> None:
        self._now(self._writing(lambda connection: None))

    def save(self, records: Iterable[Any]) -> Awaitable[Any]:
        return self._later(self._writing(self._saving(records)))

    def save_sync(self, records: Iterable[Any]) -> None:
        self._now(self._writing(self._saving(records)))

    def replace(self, records: Iterable[Any]) -> Awaitable[Any]:
        return self._later(self._writing(self._replacing(records)))

    def replace_sync(self, records: Iterable[Any]) -> None:
        self._now(self._writing(self._replacing(records)))

    def touch(self, ids: list[str], now: str) -> Awaitable[Any]:
        return self._later(self._writing(lambda connection: tables.touch(connection, ids, now)))

    def touch_sync(self, ids: list[str], now: str) -> None:
        self._now(self._writing(lambda connection: tables.touch(connection, ids, now)))

    def get(self, id: str) -> Awaitable[Any]:
        return self._later(self._reading(lambda connection: self._get(connection, id)))

    def get_sync(self, id: str) -> Any:
        return self._now(self._reading(lambda connection: self._get(connection, id)))

    def newest(self, prefix: str | None, limit: int, offset: int, vectors: bool) -> Awaitable[Any]:
        return self._later(self._reading(lambda connection: self._list(connection, prefix, limit, offset, vectors)))

    def newest_sync(self, prefix: str | None, limit: int, offset: int, vectors: bool) -> Any:
        return self._now(self._reading(lambda connection: self._list(connection, prefix, limit, offset, vectors)))

    def search(self, metric: str, vector: bytes, wanted: Wanted, limit: int, least: float) -> Awaitable[Any]:
        return self._later(self._reading(self._searching(metric, vector, wanted, limit, least)))

    def search_sync(self, metric: str, vector: bytes, wanted: Wanted, limit: int, least: float) -> Any:
        return self._now(self._reading(self._searching(metric, vector, wanted, limit, least)))

    def candidates(self, vector: bytes, wanted: Wanted, first: int, most: int) -> Awaitable[Any]:
        return self._later(self._reading(self._taking(vector, wanted, first, most)))

    def candidates_sync(self, vector: bytes, wanted: Wanted, first: int, most: int) -> Any:
        return self._now(self._reading(self._taking(vector, wanted, first, most)))

    def at_rows(self, rows: Sequence[int]) -> Awaitable[Any]:
        return self._later(self._reading(lambda connection: self._at_rows(connection, rows)))

    def at_rows_sync(self, rows: Sequence[int]) -> Any:
        return self._now(self._reading(lambda connection: self._at_rows(connection, rows)))

    def by_words(
        self, text: str, method: str, stemmed: bool, near: tuple[str, bytes] | None, wanted: Wanted, limit: int
    ) -> Awaitable[Any]:
        return self._later(self._reading(self._worded(text, method, stemmed, near, wanted, limit)))

    def by_words_sync(
        self, text: str, method: str, stemmed: bool, near: tuple[str, bytes] | None, wanted: Wanted, limit: int
    ) -> Any:
        return self._now(self._reading(self._worded(text, method, stemmed, near, wanted, limit)))

    def compact(self, base: int, first: int, most: int) -> Awaitable[int | None]:
        return self._later(self._writing(lambda connection: self._compact(connection, base, first, most)))

    def compact_sync(self, base: int, first: int, most: int) -> int | None:
        moved: int | None = self._now(self._writing(lambda connection: self._compact(connection, base, first, most)))
        return moved

    def sizes(self) -> Awaitable[Any]:
        return self._later(self._reading(self._sizes))

    def sizes_sync(self) -> Any:
        return self._now(self._reading(self._sizes))

    def delete(
        self,
        ids: list[str] | None,
        wanted: tuple[Wanted, str | None] | None,
        between: tuple[str, str] | None,
        forget: bool,
    ) -> Awaitable[Any]:
        return self._later(self._writing(lambda connection: self._delete(connection, ids, wanted, between, forget)))

    def delete_sync(
        self,
        ids: list[str] | None,
        wanted: tuple[Wanted, str | None] | None,
        between: tuple[str, str] | None,
        forget: bool,
    ) -> Any:
        return self._now(self._writing(lambda connection: self._delete(connection, ids, wanted, between, forget)))

    def scope_info(self, prefix: str | None) -> Awaitable[Any]:
        return self._later(self._reading(lambda connection: tables.scope_info(connection, prefix)))

    def scope_info_sync(self, prefix: str | None) -> Any:
        return self._now(self._reading(lambda connection: tables.scope_info(connection, prefix)))

    def scopes(self, prefix: str | None) -> Awaitable[Any]:
        return self._later(self._reading(lambda connection: tables.scopes(connection, prefix)))

    def scopes_sync(self, prefix: str | None) -> Any:
        return self._now(self._reading(lambda connection: tables.scopes(connection, prefix)))

    def categories(self, prefix: str | None) -> Awaitable[Any]:
        return self._later(self._reading(lambda connection: tables.categories(connection, prefix)))

    def categories_sync(self, prefix: str | None) -> Any:
        return self._now(self._reading(lambda connection: tables.categories(connection, prefix)))

    def count(self, prefix: str | None) -> Awaitable[Any]:
        return self._later(self._reading(lambda connection: sum(n for _, n in tables.scopes(connection, prefix))))

    def count_sync(self, prefix: str | None) -> Any:
        return self._now(self._reading(lambda connection: sum(n for _, n in tables.scopes(connection, prefix))))

    def close(self) -> Awaitable[Any]:
        return self._store.close()

    def close_sync(self) -> None:
        self._store.close_sync()

    def writes(self) -> tuple[int, int, int, int]:
        return self._store.stats()

    # The two ways to the file.

    def _later(self, begin: Callable[[], Future[Any]]) -> Awaitable[Any]:
        async def start() -> Any:
            if not self._created:
                await self._store._wait(self._writing(lambda connection: None))
            return await self._store._wait(begin)

        return Awaitable(start)

    def _now(self, begin: Callable[[], Future[Any]]) -> Any:
        if not self._created:
            self._store._wait_sync(self._writing(lambda connection: None)())
        return self._store._wait_sync(begin())

    def _writing(self, act: Act) -> Callable[[], Future[Any]]:
        def task(connection: sqlite3.Connection) -> Any:
            if not self._created:
                tables.create(connection)
                kept = {base for (base,) in connection.execute("SELECT base FROM segment")}
                for path in self._folder.glob("vectors-*"):
                    if not path.name[8:].isdigit() or int(path.name[8:]) not in kept:
                        path.unlink(missing_ok=True)
            return act(connection)

        def committed(written: Future[Any]) -> None:
            if not written.cancelled() and written.exception() is None:
                self._created = True

        def begin() -> Future[Any]:
            written = self._store.task(task)
            written.add_done_callback(committed)
            return written

        return begin

    def _reading(self, act: Act) -> Callable[[], Future[Any]]:
        return lambda: self._store.look(act)

    # What is done.

    def _saving(self, records: Iterable[Any]) -> Act:
        packed = [_packed(record) for record in records]
        _check(packed)
        return lambda connection: self._insert(connection, packed)

    def _replacing(self, records: Iterable[Any]) -> Act:
        packed = [_packed(record) for record in records]
        _check(packed)

        def act(connection: sqlite3.Connection) -> None:
            self._remove(connection, tables.rows_of_ids(connection, [record[0] for record in packed]))
            self._insert(connection, packed)

        return act

    def _insert(self, connection: sqlite3.Connection, records: Sequence[Any]) -> None:
        given = next((len(record[9]) // 4 for record in records if record[9] is not None), 0)
        stored = tables.setting(connection, "dim")
        if given and stored and given != stored:
            raise _mismatch(stored, given)
        if given:
            tables.put(connection, "dim", given)
        for identity, content, path, categories, metadata, tags, importance, times, owner, vector in records:
            (created_at, accessed_at, texts), (source, private) = times, owner
            created, accessed = texts or (tables.iso(created_at), tables.iso(accessed_at))
            numbers = [tables.name(connection, tag) for tag in tags]
            scope = tables.scope(connection, path)
            source_number = tables.name(connection, f"s{source}") if source else 0
            packed = array("q", numbers).tobytes()
            row = connection.execute(
                "INSERT INTO record (id, scope, created, created_at, accessed, importance, source, private, tags, "
                "categories, metadata, content) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(identity, scope, created, created_at, accessed, importance, source_number, private, packed),
                    *(categories, metadata, content),
                ),
            ).lastrowid
            assert row is not None
            tables.count(connection, scope, (n for n, tag in zip(numbers, tags, strict=True) if tag[0] == "c"), 1)
            connection.executemany("INSERT OR IGNORE INTO tagged VALUES (?, ?)", [(tag, row) for tag in numbers])
            if vector is not None:
                flags = PRIVATE if private else 0
                self._append(connection, Entry(row, created_at, scope, source_number, flags, 0, 0, 0), vector)

    def _append(self, connection: sqlite3.Connection, entry: Entry, vector: bytes) -> None:
        dim, slot = len(vector) // 4, tables.setting(connection, "next_slot")
        last = connection.execute("SELECT base, capacity, dim FROM segment ORDER BY base DESC LIMIT 1").fetchone()
        if last is not None and last[2] == dim and slot < last[0] + last[1]:
            segment = self._segment(*last)
        else:
            slot = slot if last is None else max(slot, last[0] + last[1])
            segment = self._segment(slot, capacity(dim), dim)
            connection.execute("INSERT INTO segment VALUES (?, ?, ?)", segment[1:])
            segment.create()
        segment.write(slot, entry, vector)
        connection.execute("UPDATE record SET slot = ? WHERE row = ?", (slot, entry.row))
        tables.put(connection, "next_slot", slot + 1)

    def _segment(self, base: int, room: int, dim: int) -> Segment:
        return Segment(self._folder / f"vectors-{base}", base, room, dim)

    def _segments(self, connection: sqlite3.Connection) -> list[Segment]:
        found = connection.execute("SELECT base, capacity, dim FROM segment ORDER BY base").fetchall()
        return [self._segment(*segment) for segment in found]

    def _remove(self, connection: sqlite3.Connection, rows: Iterable[int]) -> int:
        removed = 0
        for row in rows:
            found = connection.execute("SELECT scope, tags FROM record WHERE row = ?", (row,)).fetchone()
            if found is None:
                continue
            tags = array("q")
            tags.frombytes(found[1])
            connection.execute("DELETE FROM record WHERE row = ?", (row,))
            connection.executemany("DELETE FROM tagged WHERE tag = ? AND row = ?", [(tag, row) for tag in tags])
            connection.execute("INSERT INTO gone (row) VALUES (?)", (row,))
            tables.count(connection, found[0], tags, -1)
            removed += 1
        return removed  # the slots are not marked: a search looks whether the row is there

    def _delete(
        self,
        connection: sqlite3.Connection,
        ids: list[str] | None,
        wanted: tuple[Wanted, str | None] | None,
        between: tuple[str, str] | None,
        forget: bool,
    ) -> int:
        if wanted is not None:
            rows = tables.rows_wanted(connection, *wanted)
            if ids is not None:
                rows &= set(tables.rows_of_ids(connection, ids))
        elif ids is not None:
            rows = set(tables.rows_of_ids(connection, ids))
        elif between is not None:
            rows = set(
                tables.column(
                    connection,
                    "SELECT row FROM record WHERE scope IN (SELECT id FROM scope WHERE path >= ? AND path < ?)",
                    *between,
                )
            )
        else:
            (count,) = connection.execute("SELECT count(*) FROM record").fetchone()
            segments = self._segments(connection)
            for sql in (
                "INSERT INTO gone (row) SELECT -max(row) FROM record HAVING max(row) IS NOT NULL",
                *(f"DELETE FROM {table}" for table in ("record", "tagged", "scope_tag", "segment")),
                "UPDATE scope SET records = 0",
            ):
                connection.execute(sql)
            if forget:
                tables.put(connection, "dim", 0)
            for segment in segments:
                self._store.remove(segment.path)
            return int(count)
        return self._remove(connection, rows)

    def _get(self, connection: sqlite3.Connection, identity: str) -> Any:
        found = connection.execute(f"{tables.COLUMNS} WHERE r.id = ? ORDER BY r.row LIMIT 1", (identity,)).fetchone()
        return None if found is None else self._told(found, self._segments(connection))

    def _told(self, found: Any, segments: list[Segment]) -> tuple[dict[str, Any], bytes | None]:
        identity, content, scope, categories, metadata, importance, created, accessed, source, private, slot = found
        values = {
            "id": identity,
            "content": content,
            "scope": scope,
            "categories": json.loads(categories),
            "metadata": json.loads(metadata),
            "importance": importance,
            "created_at": tables.moment(created),
            "last_accessed": tables.moment(accessed),
            "source": None if source is None else source[1:],  # not in SQL, whose substr ends at a NUL
            "private": bool(private),
        }
        holding = [s for s in segments if slot is not None and s.base <= slot < s.base + s.capacity]
        if holding:
            return values, holding[0].vector(slot)
        values["embedding"] = None
        return values, None

    def _list(self, connection: sqlite3.Connection, prefix: str | None, limit: int, offset: int, vectors: bool) -> Any:
        low, high = tables.between(prefix)
        found = connection.execute(
            f"{tables.COLUMNS} WHERE (? = '' OR r.scope IN (SELECT id FROM scope WHERE path >= ? AND path < ?)) "
            "ORDER BY r.created DESC, r.row DESC LIMIT ? OFFSET ?",
            (low, low, high, limit, offset),
        ).fetchall()
        segments = self._segments(connection) if vectors else []
        return [self._told(row, segments) for row in found]

    def _searching(self, metric: str, vector: bytes, wanted: Wanted, limit: int, least: float) -> Act:
        if metric not in NEARNESS:
            raise ValueError(f'metric must be "cosine", "dot" or "euclid", not {metric!r}')
        query = array("f", vector)
        _finite(query, "the query's vector")
        return lambda connection: self._search(connection, metric, query, wanted, limit, least)

    def _search(
        self, connection: sqlite3.Connection, metric: str, query: array[float], wanted: Wanted, limit: int, least: float
    ) -> Any:
        score = NEARNESS[metric][1]
        found = ((row, score(near)) for row, near in self._nearest(connection, metric, query, wanted))
        return self._records(connection, ((row, reached) for row, reached in found if reached >= least), limit)

    def _nearest(
        self, connection: sqlite3.Connection, metric: str, query: array[float], wanted: Wanted
    ) -> list[tuple[int, float]]:
        """All rows that are wanted, the nearest first."""
        nearness = NEARNESS[metric][0]
        best = {row: nearness(query, vector) for _, row, vector in self._wanted(connection, len(query), wanted)}
        return sorted(best.items(), key=lambda match: (-match[1], match[0]))

    def _wanted(
        self, connection: sqlite3.Connection, dim: int, wanted: Wanted
    ) -> Iterator[tuple[int, int, array[float]]]:
        """The slots, rows and vectors of what is wanted."""
        stored = tables.setting(connection, "dim")
        if stored and stored != dim:
            raise _mismatch(stored, dim)
        takes = tables.filtered(connection, wanted)
        if not stored or takes is None:
            return
        seen = tables.seen(connection)
        for segment in self._segments(connection):
            for slot, entry, vector in segment.living(*seen):
                if takes(entry.row, entry.scope, entry.source, bool(entry.flags & PRIVATE), entry.created):
                    yield slot, entry.row, vector

    def _taking(self, vector: bytes, wanted: Wanted, first: int, most: int) -> Act:
        query = array("f", vector)
        _finite(query, "the query's vector")

        def take(connection: sqlite3.Connection) -> Any:
            rows, numbers = array("q"), array("f")
            for slot, row, found in self._wanted(connection, len(query), wanted):
                if slot >= first and len(rows) == most:
                    return rows.tobytes(), numbers.tobytes(), slot
                if slot >= first:
                    rows.append(row)
                    numbers.extend(found)
            return rows.tobytes(), numbers.tobytes(), None

        return take

    def _at_rows(self, connection: sqlite3.Connection, rows: Sequence[int]) -> Any:
        return [next((record for record, _ in self._records(connection, [(row, 0.0)], 1)), None) for row in rows]

    def _records(self, connection: sqlite3.Connection, best: Iterable[tuple[int, float]], limit: int) -> Any:
        segments = self._segments(connection)
        found: list[Any] = []
        for row, score in best:
            if len(found) >= limit:
                break
            record = connection.execute(f"{tables.COLUMNS} WHERE r.row = ?", (row,)).fetchone()
            if record is not None:  # the slot of a row that is gone is not always marked
                found.append((self._told(record, segments), score))
        return found

    def _worded(
        self, text: str, method: str, stemmed: bool, near: tuple[str, bytes] | None, wanted: Wanted, limit: int
    ) -> Act:
        if near is not None:
            _finite(array("f", near[1]), "the query's vector")

        def look(connection: sqlite3.Connection) -> Any:
            takes = tables.filtered(connection, wanted)
            if takes is None or limit <= 0:
                return []
            deep = limit if near is None else max(limit * 4, _FUSED)
            best = words.rank(connection, text, method, stemmed, takes, deep)
            if near is not None:
                rows = [row for row, _ in self._nearest(connection, near[0], array("f", near[1]), wanted)[:deep]]
                best = fused(rows, [row for row, _ in best])
            return self._records(connection, best, limit)

        return look

    def _compact(self, connection: sqlite3.Connection, base: int, first: int, most: int) -> int | None:
        """Move up to ``most`` vectors out of a segment; gives where to go on, or None when it was empty and is gone."""
        segments = self._segments(connection)
        segment = next((segment for segment in segments if segment.base == base), None)
        if segment is None:
            return None
        if segment == segments[-1]:
            raise ValueError("the last segment is being written to: it is compacted when it is full")
        moved, at = 0, first
        for slot, entry, vector in segment.living(*tables.seen(connection)):
            if slot - base < first:
                continue
            if moved == most:
                break
            at = slot - base + 1
            if tables.column(connection, "SELECT slot FROM record WHERE row = ?", entry.row) == [slot]:
                self._append(connection, entry, vector.tobytes())
                moved += 1
        if moved:
            return at
        if first:
            return 0
        connection.execute("DELETE FROM segment WHERE base = ?", (base,))
        connection.execute("DELETE FROM gone WHERE number <= (SELECT max(number) FROM gone) - 100000")
        self._store.remove(segment.path)
        return None

    def _sizes(self, connection: sqlite3.Connection) -> tuple[Any, ...]:
        next_slot, removals = tables.seen(connection)
        each = []
        size = 0
        for segment in self._segments(connection):
            used = min(max(next_slot - segment.base, 0), segment.capacity)
            living = sum(
                tables.column(connection, "SELECT slot FROM record WHERE row = ?", entry.row) == [slot]
                for slot, entry, _ in segment.living(next_slot, removals)
            )
            each.append((segment.base, used, used - living))
            size += used * (40 + segment.dim * 5)
        slots, dead = sum(used for _, used, _ in each), sum(gone for _, _, gone in each)
        (pages,), (free,), (page,) = (
            connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count", "page_size")
        )
        (records,) = connection.execute("SELECT count(*) FROM record").fetchone()
        return (records, tables.setting(connection, "dim"), slots, dead, pages * page, free * page, size, each)


def _mismatch(stored: int, given: int) -> Exception:
    from crewai.memory.storage.backend import EmbeddingDimensionMismatchError

    return EmbeddingDimensionMismatchError(stored, given)


def _packed(record: Any) -> Any:
    """The record with its vector as bytes."""
    vector = record[9]
    return (*record[:9], array("f", vector).tobytes()) if isinstance(vector, list) else record


def _check(records: Sequence[Any]) -> None:
    first = 0
    for record in records:
        vector = record[9]
        if vector is None:
            continue
        given, what = len(vector) // 4, f"the vector of record {record[0]!r}"
        if not 1 <= given <= _MOST_DIMENSIONS:
            raise ValueError(f"{what} has {given} dimensions: from 1 to {_MOST_DIMENSIONS} are possible")
        _finite(array("f", vector), what)
        first = first or given
        if first != given:
            raise _mismatch(first, given)


def _finite(vector: array[float], what: str) -> None:
    for at, number in enumerate(vector):
        if not math.isfinite(number):
            raise ValueError(
                f"{what} holds {number} at place {at}: every number must be finite, and within the range of 32 bits"
            )
