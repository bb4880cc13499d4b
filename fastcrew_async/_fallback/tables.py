"""The tables of the memories in plain Python, and what is done to them, as in ``src/memory/records.rs``."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from fastcrew_async.errors import DatabaseOpenError

_FORMAT = 1
_EPOCH = datetime(1970, 1, 1)
_SCHEMA = """
CREATE TABLE scope (id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, records INTEGER NOT NULL DEFAULT 0);
CREATE TABLE name (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
CREATE TABLE record (
  row INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, scope INTEGER NOT NULL, created TEXT NOT NULL,
  created_at INTEGER NOT NULL, accessed TEXT NOT NULL, importance REAL NOT NULL, source INTEGER NOT NULL,
  private INTEGER NOT NULL, slot INTEGER, tags BLOB NOT NULL, categories TEXT NOT NULL, metadata TEXT NOT NULL,
  content TEXT NOT NULL);
CREATE INDEX record_id ON record (id);
CREATE INDEX record_created ON record (created);
CREATE INDEX record_scope ON record (scope, created);
CREATE TABLE tagged (tag INTEGER NOT NULL, row INTEGER NOT NULL, PRIMARY KEY (tag, row)) WITHOUT ROWID;
CREATE TABLE scope_tag (
  scope INTEGER NOT NULL, tag INTEGER NOT NULL, uses INTEGER NOT NULL, PRIMARY KEY (scope, tag)) WITHOUT ROWID;
CREATE TABLE gone (number INTEGER PRIMARY KEY AUTOINCREMENT, row INTEGER NOT NULL);
CREATE TABLE segment (base INTEGER PRIMARY KEY, capacity INTEGER NOT NULL, dim INTEGER NOT NULL);
CREATE TABLE setting (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO setting VALUES ('dim', 0), ('next_slot', 0)
"""
COLUMNS = (
    "SELECT r.id, r.content, s.path, r.categories, r.metadata, r.importance, r.created, r.accessed, "
    "n.text, r.private, r.slot FROM record r JOIN scope s ON s.id = r.scope "
    "LEFT JOIN name n ON n.id = r.source "
)


Wanted = tuple[Any, ...]


def create(connection: sqlite3.Connection) -> None:
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if found > _FORMAT:
        raise DatabaseOpenError(
            f"the memory store has format {found}, this version of fastcrew-async knows up to {_FORMAT}: upgrade it"
        )
    if found == 0:
        for sql in _SCHEMA.split(";"):
            connection.execute(sql)
        connection.execute(f"PRAGMA user_version = {_FORMAT}")


def setting(connection: sqlite3.Connection, name: str) -> int:
    (value,) = connection.execute("SELECT value FROM setting WHERE name = ?", (name,)).fetchone()
    return int(value)


def seen(connection: sqlite3.Connection) -> tuple[int, int]:
    """How many slots were used, and how many records removed."""
    removals = column(connection, "SELECT seq FROM sqlite_sequence WHERE name = 'gone'")
    return setting(connection, "next_slot"), removals[0] if removals else 0


def put(connection: sqlite3.Connection, name: str, value: int) -> None:
    connection.execute("UPDATE setting SET value = ? WHERE name = ?", (value, name))


def named(connection: sqlite3.Connection, text: str) -> int | None:
    found = connection.execute("SELECT id FROM name WHERE text = ?", (text,)).fetchone()
    return None if found is None else int(found[0])


def name(connection: sqlite3.Connection, text: str) -> int:
    connection.execute("INSERT OR IGNORE INTO name (text) VALUES (?)", (text,))
    return named(connection, text) or 0


def scope(connection: sqlite3.Connection, path: str) -> int:
    connection.execute("INSERT OR IGNORE INTO scope (path) VALUES (?)", (path,))
    return column(connection, "SELECT id FROM scope WHERE path = ?", path)[0]


def between(prefix: str | None) -> tuple[str, str]:
    """The texts between which all lie that begin with ``prefix``."""
    return prefix or "", f"{prefix or ''}\U0010ffff"


def column(connection: sqlite3.Connection, sql: str, *values: Any) -> list[int]:
    return [row[0] for row in connection.execute(sql, values)]


def rows_of_ids(connection: sqlite3.Connection, ids: Iterable[str]) -> list[int]:
    return [row for one in ids for row in column(connection, "SELECT row FROM record WHERE id = ?", one)]


def rows_wanted(connection: sqlite3.Connection, wanted: Wanted, older_than: str | None) -> set[int]:
    takes = filtered(connection, wanted)
    if takes is None:
        return set()
    low, high = between(wanted[0])
    found = connection.execute(
        "SELECT row, scope, source, private, created_at FROM record WHERE (? IS NULL OR created < ?) "
        "AND (? = '' OR scope IN (SELECT id FROM scope WHERE path >= ? AND path < ?))",
        (older_than, older_than, low, low, high),
    )
    return {row[0] for row in found if takes(*row)}


def filtered(connection: sqlite3.Connection, wanted: Wanted) -> Callable[[int, int, int, bool, int], bool] | None:
    """Whether a row of this scope, source, privacy and time is wanted; None where none can be."""
    prefix, any_of, all_of, none_of, visible_to, (start, end) = wanted
    scopes = None
    if prefix is not None:
        sql = "SELECT id FROM scope WHERE path >= ? AND path < ? AND records > 0"
        scopes = set(column(connection, sql, *between(prefix)))
        if not scopes:
            return None

    def tagged(tags: Iterable[str]) -> set[int]:
        numbers = [named(connection, tag) for tag in tags]
        return {row for n in numbers for row in column(connection, "SELECT row FROM tagged WHERE tag = ?", n)}

    needed = [tagged(any_of)] if any_of else []
    needed += [tagged([tag]) for tag in all_of]
    refused = tagged(none_of)
    visible = (visible_to and named(connection, f"s{visible_to}")) or 0

    def takes(row: int, scope: int, source: int, private: bool, created: int) -> bool:
        return (
            (visible_to is None or not private or (visible != 0 and source == visible))
            and (scopes is None or scope in scopes)
            and (start is None or created >= start)
            and (end is None or created < end)
            and all(row in rows for rows in needed)
            and row not in refused
        )

    return takes


def count(connection: sqlite3.Connection, scope: int, tags: Iterable[int], by: int) -> None:
    connection.execute("UPDATE scope SET records = records + ? WHERE id = ?", (by, scope))
    if by > 0:
        sql = (
            "INSERT INTO scope_tag (uses, scope, tag) VALUES (?, ?, ?) "
            "ON CONFLICT DO UPDATE SET uses = uses + excluded.uses"
        )
    else:  # which of a removed record's tags are categories is not known; only they are counted
        sql = "UPDATE scope_tag SET uses = uses + ? WHERE scope = ? AND tag = ?"
    connection.executemany(sql, [(by, scope, tag) for tag in tags])


def iso(microseconds: int) -> str:
    return (_EPOCH + timedelta(microseconds=microseconds)).isoformat()


def moment(text: str) -> datetime:
    # Before Python 3.11 a "Z" is not known.
    return datetime.fromisoformat(f"{text[:-1]}+00:00" if text.endswith("Z") else text)


def touch(connection: sqlite3.Connection, ids: Iterable[str], now: str) -> None:
    connection.executemany("UPDATE record SET accessed = ? WHERE id = ?", [(now, one) for one in ids])


def scopes(connection: sqlite3.Connection, prefix: str | None) -> list[tuple[str, int]]:
    low, high = between(prefix)
    return connection.execute(
        "SELECT path, records FROM scope WHERE (? = '' OR path >= ? AND path < ?) AND records > 0 ORDER BY path",
        (low, low, high),
    ).fetchall()


def categories(connection: sqlite3.Connection, prefix: str | None) -> list[tuple[str, int]]:
    low, high = between(prefix)
    found = connection.execute(
        "SELECT n.text, sum(t.uses) FROM scope_tag t JOIN name n ON n.id = t.tag WHERE t.uses > 0 "
        "AND substr(n.text, 1, 1) = 'c' AND (? = '' OR t.scope IN "
        "(SELECT id FROM scope WHERE path >= ? AND path < ?)) GROUP BY t.tag",
        (low, low, high),
    )
    return [(text[1:], uses) for text, uses in found]


def scope_info(connection: sqlite3.Connection, prefix: str | None) -> tuple[Any, ...]:
    low, high = between(prefix)
    times = connection.execute(
        "SELECT min(created), max(created) FROM record "
        "WHERE ? = '' OR scope IN (SELECT id FROM scope WHERE path >= ? AND path < ?)",
        (low, low, high),
    ).fetchone()
    return scopes(connection, prefix), categories(connection, prefix), *times
