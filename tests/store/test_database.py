"""What a user of ``Database`` calls: values, results, refusals."""

from __future__ import annotations

import asyncio
import enum
import math
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastcrew_async
from fastcrew_async.errors import DatabaseClosedError, DatabaseOpenError, IntegrityError, StatementError
from fastcrew_async.store import Database, WriteResult

INSERT = "INSERT INTO t (b) VALUES (?)"
VALUES = [None, 0, 2**63 - 1, -(2**63), 1.5, -0.0, math.inf, "", "tea", "a\0b", "\U0001f375", b"", b"\0\xff"]


class Colour(enum.IntEnum):
    RED = 7


def test_it_is_a_public_name():
    assert fastcrew_async.Database is Database


@pytest.mark.parametrize("value", VALUES, ids=repr)
async def test_a_value_comes_back_as_it_went_in(db, value):
    await db.execute(INSERT, (value,))
    (back,) = await db.fetch_one("SELECT b FROM t")
    assert back == value
    assert type(back) is type(value)


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.lists(
        st.none()
        | st.integers(-(2**63), 2**63 - 1)
        | st.floats(allow_nan=False)
        | st.text(st.characters(exclude_categories=["Cs"]))
        | st.binary(),
        max_size=20,
    )
)
def test_any_values_come_back(backend, tmp_path_factory, values):
    with_values = Database(tmp_path_factory.mktemp("values") / "a.db")
    with_values.execute_sync("CREATE TABLE t (a INTEGER PRIMARY KEY, b)")
    with_values.execute_many_sync(INSERT, [(value,) for value in values])
    back = [b for (b,) in with_values.fetch_all_sync("SELECT b FROM t ORDER BY a")]
    with_values.close_sync()
    assert back == values
    assert list(map(type, back)) == list(map(type, values))


async def test_what_sqlite_has_no_type_for_is_documented(db):
    assert await db.execute(INSERT, (True,)) == (1, 1, [])
    await db.execute(INSERT, (math.nan,))
    await db.execute(INSERT, (Colour.RED,))
    assert await db.fetch_all("SELECT b FROM t") == [(1,), (None,), (7,)]


async def test_a_result_counts_this_write_only(db):
    assert await db.execute(INSERT, ["x"]) == WriteResult(rows_changed=1, last_row_id=1, rows=[])
    assert await db.execute("INSERT INTO t VALUES (50, 1), (60, 2)") == (2, 60, [])
    # The ids of the statements before do not shine through.
    assert await db.execute("UPDATE t SET b = 0 WHERE a > 1") == (2, None, [])
    assert await db.execute("INSERT INTO t VALUES (1, 5) ON CONFLICT DO UPDATE SET b = excluded.b") == (1, None, [])
    assert await db.execute("INSERT OR IGNORE INTO t VALUES (1, 5)") == (0, None, [])
    assert await db.execute("CREATE TABLE w (k TEXT PRIMARY KEY) WITHOUT ROWID") == (0, None, [])
    assert await db.execute("INSERT INTO w VALUES ('k')") == (1, None, [])
    assert await db.execute("WITH n(i) AS (SELECT 9) INSERT INTO t (b) SELECT i FROM n") == (1, 61, [])
    # The same id in another table, and ids that a trigger inserts.
    assert await db.execute("CREATE TABLE u (a INTEGER PRIMARY KEY, b)") == (0, None, [])
    assert await db.execute("INSERT INTO u VALUES (61, 0)") == (1, 61, [])
    await db.execute("CREATE TRIGGER note AFTER INSERT ON u BEGIN INSERT INTO t (b) VALUES (new.b); END")
    assert await db.execute("INSERT INTO u VALUES (7, 0)") == (1, 7, [])
    assert await db.execute("DELETE FROM t") == (5, None, [])


async def test_returning_gives_its_rows(db):
    assert await db.execute("INSERT INTO t (b) VALUES (?), (?) RETURNING a, b", ["x", "y"]) == (
        2,
        2,
        [(1, "x"), (2, "y")],
    )
    assert await db.execute_many("UPDATE t SET b = ? WHERE a = ? RETURNING b", [(3, 1), (4, 2)]) == (
        2,
        None,
        [(3,), (4,)],
    )


async def test_many_and_batch_are_all_or_nothing(db):
    assert await db.execute_many(INSERT, ((str(i),) for i in range(100))) == (100, 100, [])
    assert await db.execute_many(INSERT, []) == (0, None, [])
    with pytest.raises(IntegrityError, match=r"^row 2: .*UNIQUE"):
        await db.execute_many("INSERT INTO t VALUES (?, 0)", [(500,), (1,)])
    results = await db.batch([("DELETE FROM t WHERE a > ?", (1,)), (INSERT, ("last",))])
    assert [result.rows_changed for result in results] == [99, 1]
    assert await db.batch([]) == []
    with pytest.raises(IntegrityError, match=r"^statement 2: .*UNIQUE"):
        await db.batch([("DELETE FROM t", ()), ("INSERT INTO t VALUES (1, 1), (1, 1)", ())])
    assert await db.fetch_all("SELECT b FROM t") == [("0",), ("last",)]


async def test_reads(db):
    assert await db.fetch_one("SELECT * FROM t") is None
    assert await db.fetch_all("SELECT * FROM t") == []
    await db.execute_many(INSERT, [("x",), ("y",)])
    assert await db.fetch_one("SELECT * FROM t ORDER BY a DESC") == (2, "y")
    assert await db.fetch_all("SELECT b FROM t WHERE a > ?", [1]) == [("y",)]
    assert await db.fetch_all("WITH n AS (SELECT 1) SELECT * FROM n") == [(1,)]
    assert await db.fetch_one("PRAGMA journal_mode") == ("wal",)
    assert [column[1] for column in await db.fetch_all("PRAGMA table_info(t)")] == ["a", "b"]


async def test_parameters_by_name(db):
    await db.execute("INSERT INTO t VALUES (:a, @b)", {"a": 1, "b": "x", "unused": 0})
    assert await db.fetch_one("SELECT b FROM t WHERE a = $a", {"a": 1}) == ("x",)
    for sql, params in [
        ("INSERT INTO t VALUES (:a, :b)", {"a": 2}),
        ("INSERT INTO t VALUES (:a, ':no')", (2,)),
        ("INSERT INTO t VALUES (?, 0)", {"a": 2}),
    ]:
        with pytest.raises(StatementError):
            await db.execute(sql, params)
    await db.execute("INSERT INTO t VALUES (?1, ':no')", (2,))
    assert await db.fetch_one("SELECT count(*) FROM t") == (2,)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ((1, object()), TypeError, "parameter 2 is a object"),
        ({"b": []}, TypeError, "parameter b is a list"),
        ((bytearray(b"x"),), TypeError, "parameter 1 is a bytearray"),
        ({1: 2}, TypeError, "the names of parameters are str, not int"),
        ("ab", TypeError, "a tuple, a list or a mapping, not str"),
        (7, TypeError, "a tuple, a list or a mapping, not int"),
        ((2**63,), OverflowError, "parameter 1: .*64 bits"),
        ((-(2**63) - 1,), OverflowError, "parameter 1: .*64 bits"),
        ((10**5000,), OverflowError, "parameter 1: .*64 bits"),
        (("\ud800",), StatementError, "parameter 1: .*surrogate"),
        ((), StatementError, "1.* 0"),
        ((1, 2), StatementError, "1.* 2"),
    ],
)
async def test_wrong_parameters_are_named(db, params, error, message):
    with pytest.raises(error, match=message):
        await db.execute(INSERT, params)
    with pytest.raises(error, match=message):
        await db.fetch_all("SELECT ?", params)
    if isinstance(params, (tuple, dict)) and error is not StatementError:
        with pytest.raises(error, match=f"row 2: {message}"):
            await db.execute_many(INSERT, [(1,), params])
        with pytest.raises(error, match=f"statement 2: {message}"):
            await db.batch([(INSERT, (1,)), (INSERT, params)])
    assert await db.fetch_all("SELECT * FROM t") == []


async def test_a_batch_wants_pairs(db):
    for wrong in ["DELETE FROM t", ("DELETE FROM t",), (1, ())]:
        with pytest.raises(TypeError, match=r"statement 1: give a pair \(sql, params\)"):
            await db.batch([wrong])
    with pytest.raises(TypeError):
        await db.execute(1)


@pytest.mark.parametrize(
    "sql",
    [
        "BEGIN",
        "  commit",
        "; ;ROLLBACK",
        "-- note\nSAVEPOINT a",
        "/* note */ RELEASE a",
        "END",
        "ATTACH 'other.db' AS other",
        "DETACH main",
        "VACUUM",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA main.synchronous(0)",
        "PRAGMA query_only = 0",
        "",
        "-- nothing",
        "INSERT INTO t VALUES (1, 1); DELETE FROM t",
        "INSERT INTO t VALUES (1, '\0')",
        "INSRT INTO t",
        "INSERT INTO missing VALUES (1)",
    ],
)
async def test_what_would_break_a_group_is_refused_and_the_rest_goes_on(db, sql):
    done = await asyncio.gather(
        db.execute(INSERT, (1,)),
        db.execute(sql),
        db.fetch_all(sql),
        db.batch([(INSERT, (0,)), (sql, ())]),
        db.execute(INSERT, (2,)),
        return_exceptions=True,
    )
    assert [type(each) for each in done[1:4]] == [StatementError] * 3
    assert await db.fetch_all("SELECT b FROM t") == [(1,), (2,)]
    assert await db.fetch_one("PRAGMA journal_mode") == ("wal",)


async def test_the_refusal_names_the_alternative(db):
    with pytest.raises(StatementError, match=r"use batch\("):
        await db.execute("BEGIN")
    for reading in ["SELECT 1", "VALUES (1)", "EXPLAIN SELECT 1", "PRAGMA user_version"]:
        with pytest.raises(StatementError, match=r"use fetch_all\(\)"):
            await db.execute(reading)
    for writing in ["DELETE FROM t", "INSERT INTO t VALUES (1, 1) RETURNING a", "CREATE TABLE u (a)"]:
        with pytest.raises(StatementError, match=r"use execute\(\)"):
            await db.fetch_all(writing)
    assert await db.fetch_all("SELECT name FROM sqlite_schema WHERE type = 'table'") == [("t",)]


async def test_the_file_keeps_its_own_settings(db):
    await db.execute("PRAGMA user_version = 7")
    assert await db.fetch_one("PRAGMA user_version") == (7,)


async def test_text_that_is_not_text_is_refused(db):
    await db.execute("INSERT INTO t (b) VALUES (CAST(x'ff' AS TEXT))")
    with pytest.raises(StatementError, match="UTF-8"):
        await db.fetch_all("SELECT b FROM t")
    assert await db.fetch_all("SELECT CAST(b AS BLOB) FROM t") == [(b"\xff",)]


def test_the_blocking_twins(backend, tmp_path):
    db = Database(tmp_path / "a.db")
    db.execute_sync("CREATE TABLE t (a INTEGER PRIMARY KEY, b)")
    assert db.execute_sync(INSERT, ("x",)) == (1, 1, [])
    assert db.execute_many_sync(INSERT, [("y",), ("z",)]).rows_changed == 2
    assert [result.rows_changed for result in db.batch_sync([("DELETE FROM t WHERE a = ?", (1,))])] == [1]
    assert db.fetch_one_sync("SELECT b FROM t") == ("y",)
    assert db.fetch_all_sync("SELECT b FROM t") == [("y",), ("z",)]
    db.close_sync()
    db.close_sync()
    with pytest.raises(DatabaseClosedError):
        db.fetch_all_sync("SELECT 1")
    assert os.listdir(tmp_path) == ["a.db"]


def test_closing_leaves_no_file_beside_the_database(backend, tmp_path):
    """Whichever of its connections closes last removes the write-ahead log: two that close at once do not."""
    for round_ in range(200):
        folder = tmp_path / str(round_)
        folder.mkdir()
        db = Database(folder / "a.db")
        db.execute_sync("CREATE TABLE t (a)")
        assert db.fetch_all_sync("SELECT a FROM t") == []
        db.close_sync()
        assert os.listdir(folder) == ["a.db"]


@pytest.mark.parametrize("path", ["", ":memory:", "file:x?mode=memory"])
def test_a_database_is_a_file(path):
    with pytest.raises(DatabaseOpenError, match="not the path of a file"):
        Database(path)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"readers": 0}, ValueError),
        ({"readers": "2"}, TypeError),
        ({"queue_size": -1}, ValueError),
        ({"queue_size": True}, TypeError),
        ({"durability": "none"}, ValueError),
        ({"busy_timeout": -1}, ValueError),
        ({"busy_timeout": math.nan}, ValueError),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_made(tmp_path, wrong, error):
    with pytest.raises(error, match=next(iter(wrong))):
        Database(tmp_path / "a.db", **wrong)
    with pytest.raises(TypeError):
        Database(b"a.db")  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == []


def test_one_path_is_one_file_in_a_process(backend, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = Database("a.db"), Database(tmp_path / "other" / ".." / "a.db")
    first.execute_sync("CREATE TABLE t (a INTEGER PRIMARY KEY, b)")
    second.execute_sync(INSERT, ("x",))
    assert second.stats() == first.stats()
    assert second.path == first.path == str(tmp_path / "a.db")
    with pytest.raises(DatabaseOpenError, match="other settings"):
        Database("a.db", durability="relaxed").fetch_all_sync("SELECT 1")
    second.close_sync()
    with pytest.raises(DatabaseClosedError):
        second.fetch_all_sync("SELECT 1")
    assert first.fetch_all_sync("SELECT b FROM t") == [("x",)]
    first.close_sync()
    third = Database("a.db", durability="relaxed")
    assert third.fetch_all_sync("SELECT b FROM t") == [("x",)]
    third.close_sync()


def test_it_serves_several_loops(backend, tmp_path):
    db = Database(tmp_path / "a.db")
    asyncio.run(db.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b)"))
    asyncio.run(db.execute(INSERT, ("x",)))
    assert asyncio.run(db.fetch_all("SELECT b FROM t")) == [("x",)]
    asyncio.run(db.close())
    assert repr(db).endswith("closed>")
