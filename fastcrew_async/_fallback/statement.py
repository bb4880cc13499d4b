"""What the core's ``statement``, ``params`` and ``failure`` do, in plain Python."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any

from fastcrew_async.errors import (
    DatabaseBusyError,
    DatabaseCorruptError,
    DatabaseError,
    DatabaseFullError,
    DatabaseLockedError,
    DatabaseOpenError,
    DatabaseReadOnlyError,
    IntegrityError,
    StatementError,
)

# Settings that belong to the file or bound its size; any other would change the connection under everybody's feet.
_SETTABLE = ("APPLICATION_ID", "MAX_PAGE_COUNT", "USER_VERSION")
# Pragmas that take an argument and only look.
_INSPECTING = frozenset(
    (
        "FOREIGN_KEY_CHECK",
        "FOREIGN_KEY_LIST",
        "INDEX_INFO",
        "INDEX_LIST",
        "INDEX_XINFO",
        "INTEGRITY_CHECK",
        "QUICK_CHECK",
        "TABLE_INFO",
        "TABLE_XINFO",
    )
)
# What SQLite's own parser skips before a statement.
_BLANK = re.compile(r"(?:[\s;\ufeff]|--[^\n]*|/\*.*?(?:\*/|\Z))*", re.DOTALL)
_WORD = re.compile(r"\w*", re.ASCII)
_PLACEHOLDERS = re.compile(
    r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | `[^`]*` | \[[^\]]*\] | --[^\n]* | /\*.*?(?:\*/|\Z)
        | ([:@$][^\W\d]\w* | \?\d*)""",
    re.VERBOSE | re.DOTALL,
)

_KINDS: dict[int, tuple[type[DatabaseError], str]] = {
    5: (DatabaseBusyError, "another process held the file past busy_timeout"),
    6: (DatabaseLockedError, "another statement of this process uses the table"),
    8: (DatabaseReadOnlyError, "the file and its folder must both allow writing"),
    11: (DatabaseCorruptError, "restore it from a copy, or choose another path"),
    13: (DatabaseFullError, "free space on its disk, or raise max_page_count"),
    14: (DatabaseOpenError, "its folder must exist and allow creating files"),
    19: (IntegrityError, ""),
    20: (IntegrityError, ""),
    26: (DatabaseCorruptError, "restore it from a copy, or choose another path"),
}
_STATEMENT_CODES = (1, 18, 21, 25)
# Python 3.10 gives no codes.
_CODES_BY_TEXT = {
    "database is locked": 5,
    "database table is locked": 6,
    "attempt to write a readonly database": 8,
    "disk I/O error": 10,
    "database disk image is malformed": 11,
    "database or disk is full": 13,
    "unable to open database file": 14,
    "file is not a database": 26,
}


def first_word(sql: str) -> tuple[str, str]:
    """The statement's first word, in capitals, and what follows it."""
    if not isinstance(sql, str):
        raise TypeError(f"the SQL must be a str, not {type(sql).__name__}")
    if "\0" in sql:
        raise StatementError("the SQL holds a NUL character")
    word, rest = _word(sql)
    if not word and not rest:
        raise StatementError("the SQL is empty")
    return word, rest


def check_write(sql: str) -> None:
    """Refuses, before it is queued, a statement that is not a write of its own."""
    word, rest = first_word(sql)
    if word in ("SELECT", "VALUES", "EXPLAIN"):
        raise StatementError(f"{word} only reads: use fetch_all() or fetch_one()")
    if word != "PRAGMA":
        return _refuse_control(word)
    name, sets = _pragma(rest)
    if not sets:
        raise StatementError(f"PRAGMA {name} only reads: use fetch_all() or fetch_one()")
    if name not in _SETTABLE:
        raise StatementError(
            f"PRAGMA {name} would change the shared connection: use the arguments of Database(), "
            f"or one of {', '.join(_SETTABLE)}"
        )


def check_read(sql: str) -> None:
    """Refuses a statement that would change the state of a reader; SQLite refuses plain writes."""
    word, rest = first_word(sql)
    if word != "PRAGMA":
        return _refuse_control(word)
    name, sets = _pragma(rest)
    if sets and name not in _INSPECTING:
        raise StatementError(f"PRAGMA {name} with a value sets it: use execute() where it is allowed")


def changes_rows(sql: str) -> bool:
    """Whether the statement may change rows."""
    return first_word(sql)[0] in ("INSERT", "REPLACE", "UPDATE", "DELETE", "WITH")


def cells(params: Any) -> list[Any] | dict[str, Any]:
    """The parameters as values that SQLite takes; TypeError and OverflowError name the culprit."""
    if isinstance(params, (tuple, list)):
        return [_cell(value, place) for place, value in enumerate(params, 1)]
    if not isinstance(params, Mapping):
        raise TypeError(f"parameters must be a tuple, a list or a mapping, not {type(params).__name__}")
    for name in params:
        if not isinstance(name, str):
            raise TypeError(f"the names of parameters are str, not {type(name).__name__}")
    return {name: _cell(value, name) for name, value in params.items()}


def many(rows: Iterable[Any]) -> list[Any]:
    """The parameters of each row."""
    return [_numbered("row", index, cells, row) for index, row in enumerate(rows, 1)]


def batch(statements: Iterable[Any]) -> list[tuple[str, Any]]:
    """The SQL and the parameters of each statement."""

    def pair(statement: Any) -> tuple[str, Any]:
        if not isinstance(statement, tuple) or len(statement) != 2 or not isinstance(statement[0], str):
            raise TypeError(f"give a pair (sql, params), not {type(statement).__name__}")
        return statement[0], cells(statement[1])

    return [_numbered("statement", index, pair, statement) for index, statement in enumerate(statements, 1)]


def bound(sql: str, params: Any) -> Any:
    """The parameters in the form that sqlite3 takes for this statement.

    Raises:
        StatementError: a sequence for named placeholders; sqlite3 would bind them in the order of their appearance.
    """
    if not isinstance(params, list):
        return params
    places = [found[1] for found in _PLACEHOLDERS.finditer(sql) if found[1]]
    for place in places:
        if not place.startswith("?"):
            raise StatementError(f"the statement names its parameter {place}: pass a mapping")
    numbers = {int(place[1:]) for place in places if place != "?"}
    if len(numbers) == len(set(places)) and max(numbers, default=0) == len(params) > 0:
        # To sqlite3 of Python 3.12 and later, ?1 is a name.
        return {str(number): value for number, value in enumerate(params, 1)}
    return params


def translate(path: str, error: Exception) -> Exception:
    """``error``, met while working on the file at ``path``, as one of ours."""
    if isinstance(error, DatabaseError) or not isinstance(error, (sqlite3.Error, sqlite3.Warning)):
        return error
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        code = 19 if isinstance(error, sqlite3.IntegrityError) else _CODES_BY_TEXT.get(str(error), 1)
    code &= 0xFF
    if code in _STATEMENT_CODES:
        text = str(error)
        return StatementError(
            "only one statement at a time; use batch([...]) for several" if "one statement" in text else text
        )
    kind, hint = _KINDS.get(code, (DatabaseError, ""))
    if kind is IntegrityError:
        return IntegrityError(str(error))
    return kind(f"{path}: {error}" + (f": {hint}" if hint else ""))


def is_busy(error: Exception) -> bool:
    """Whether another connection holds what was asked for."""
    return isinstance(error, sqlite3.Error) and isinstance(translate("", error), DatabaseBusyError)


def numbered(what: str, index: int, error: Exception) -> Exception:
    """The same error, with the row or statement (from 1) that it was met in."""
    return type(error)(f"{what} {index}: {error}")


def _numbered(what: str, index: int, check: Any, value: Any) -> Any:
    try:
        return check(value)
    except (TypeError, OverflowError, StatementError) as error:
        raise numbered(what, index, error) from None


def _cell(value: Any, place: int | str) -> int | float | str | bytes | None:
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise StatementError(f"parameter {place}: the text is not Unicode (a lone surrogate): pass bytes") from None
        return str.__str__(value)
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise OverflowError(f"parameter {place}: the int does not fit SQLite's 64 bits: pass it as text")
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, bytes):
        return bytes(value)
    raise TypeError(f"parameter {place} is a {type(value).__name__}: pass None, bool, int, float, str or bytes")


def _refuse_control(word: str) -> None:
    if word in ("BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE"):
        raise StatementError(
            f"{word} is refused, the database opens and commits transactions itself: "
            "use batch([...]) for several statements in one"
        )
    if word in ("ATTACH", "DETACH"):
        raise StatementError(f"{word} is refused, a Database is one file: open a second Database for the other")
    if word == "VACUUM":
        raise StatementError(
            "VACUUM is refused, it cannot run inside a transaction: run it with the sqlite3 program while no process "
            "has the file open"
        )


def _pragma(rest: str) -> tuple[str, bool]:
    name, rest = _word(rest)
    rest = _skip_blank(rest)
    if rest.startswith("."):
        name, rest = _word(rest[1:])
        rest = _skip_blank(rest)
    return name, rest.startswith(("=", "("))


def _word(sql: str) -> tuple[str, str]:
    sql = _skip_blank(sql)
    end = _WORD.match(sql).end()  # type: ignore[union-attr]
    return sql[:end].upper(), sql[end:]


def _skip_blank(sql: str) -> str:
    return sql[_BLANK.match(sql).end() :]  # type: ignore[union-attr]
