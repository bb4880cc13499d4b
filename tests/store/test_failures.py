"""Each way a file can fail has an error of its own; every one is forced for real."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import subprocess
import sys

import pytest

from fastcrew_async import core_log
from fastcrew_async._fallback.statement import translate
from fastcrew_async.errors import (
    DatabaseBusyError,
    DatabaseCorruptError,
    DatabaseError,
    DatabaseFullError,
    DatabaseLockedError,
    DatabaseOpenError,
    IntegrityError,
)
from fastcrew_async.store import Database


async def test_a_missing_folder(backend, tmp_path):
    with pytest.raises(DatabaseOpenError, match="missing does not exist: create it first"):
        await Database.open(tmp_path / "missing" / "a.db")
    assert os.listdir(tmp_path) == []


async def test_a_folder_as_the_path(backend, tmp_path):
    with pytest.raises(DatabaseOpenError, match="is a folder"):
        await Database.open(tmp_path)
    assert os.listdir(tmp_path) == []


async def test_a_place_that_was_wrong_can_become_right(backend, tmp_path):
    db = Database(tmp_path / "later" / "a.db")
    for attempt in (db.execute("CREATE TABLE t (a)"), db.fetch_all("SELECT 1")):
        with pytest.raises(DatabaseOpenError):
            await attempt
    (tmp_path / "later").mkdir()
    await db.execute("CREATE TABLE t (a)")
    assert await db.fetch_all("SELECT * FROM t") == []
    await db.close()


_WITHOUT_RIGHTS = """
import asyncio, os, shutil, stat, sys, tempfile
from fastcrew_async import runtime
from fastcrew_async.store import Database
if sys.argv[1] == "python":
    import sqlite3

folder = tempfile.mkdtemp()
place = os.path.join(folder, "place")
os.mkdir(place)
if os.geteuid() == 0:
    # The rights of files do not bind root: what follows runs as nobody.
    os.chown(folder, 65534, 65534)
    os.chown(place, 65534, 65534)
    runtime.get()
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)

async def attempt(path):
    try:
        async with Database(path) as db:
            await db.execute("CREATE TABLE IF NOT EXISTS t (a)")
        return "done"
    except Exception as error:
        return type(error).__name__

async def main():
    path = os.path.join(place, "a.db")
    print(await attempt(path))
    os.chmod(path, 0o444)
    print(await attempt(path), sorted(os.listdir(place)))
    os.chmod(path, 0o644)
    os.chmod(place, 0o555)
    print(await attempt(path), sorted(os.listdir(place)))
    print(await attempt(os.path.join(place, "new.db")), sorted(os.listdir(place)))
    os.chmod(place, 0o755)

asyncio.run(main())
shutil.rmtree(place)
"""


def test_a_file_or_a_folder_without_the_right_to_write(backend, script):
    process = script(_WITHOUT_RIGHTS, backend.name)
    out, err = process.communicate(timeout=50)
    assert out.splitlines() == [
        "done",
        "DatabaseReadOnlyError ['a.db']",
        "DatabaseReadOnlyError ['a.db']",
        "DatabaseOpenError ['a.db']",
    ], err


async def test_a_file_that_another_process_holds(backend, tmp_path, hold, caplog):
    path = tmp_path / "a.db"
    core_log.flush()
    caplog.clear()
    caplog.set_level(logging.DEBUG, "fastcrew_async.core.database")
    core_log.start()  # which looks at the levels
    async with Database(path, busy_timeout=0.2) as db:
        await db.execute("CREATE TABLE t (a)")
        with hold(path):
            with pytest.raises(DatabaseBusyError, match=r"a\.db.*busy_timeout"):
                await db.execute("INSERT INTO t VALUES (1)")
            with pytest.raises(TimeoutError):
                await db.batch([("INSERT INTO t VALUES (2)", ())])
        await db.execute("INSERT INTO t VALUES (3)")
        assert await db.fetch_all("SELECT a FROM t") == [(3,)]
    core_log.flush()
    said = [record.getMessage().removeprefix(f"{path}: ") for record in caplog.records]
    trying, given_up = "another process writes, trying again", "given up, another process held the file too long"
    assert said[0] == "opened"
    assert [line.startswith(trying) for line in said[1::2]] == [True, True]
    assert said[2::2] == [given_up, given_up]


async def test_a_file_that_another_process_holds_while_it_is_opened(backend, tmp_path, hold):
    path = tmp_path / "a.db"
    with hold(path, "EXCLUSIVE") as release:
        with pytest.raises(DatabaseBusyError):
            await Database.open(path, busy_timeout=0.1)
        release()
    async with Database(path) as db:
        await db.execute("CREATE TABLE t (a)")


async def test_a_bound_of_the_size(db):
    await db.execute("INSERT INTO t VALUES (1, 'kept')")
    await db.execute("PRAGMA max_page_count = 20")
    with pytest.raises(DatabaseFullError, match="max_page_count"):
        await db.execute("INSERT INTO t VALUES (2, zeroblob(1000000))")
    with pytest.raises(OSError, match="full"):
        await db.execute_many("INSERT INTO t (b) VALUES (?)", [(bytes(3000),)] * 100)
    await db.execute("INSERT INTO t VALUES (3, 'fits')")
    assert await db.fetch_all("SELECT * FROM t") == [(1, "kept"), (3, "fits")]


_FULL_DISK = """
import asyncio, os, sys
from fastcrew_async.store import Database

async def main():
    async with Database(sys.argv[1]) as db:
        await db.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b)")
        insert = "INSERT INTO t (b) VALUES (?)"
        done = await asyncio.gather(*(db.execute(insert, (bytes(20_000),)) for _ in range(300)), return_exceptions=True)
        kept = {result.last_row_id for result in done if not isinstance(result, Exception)}
        print(sorted({type(result).__name__ for result in done if isinstance(result, Exception)}))
        print(kept == {a for (a,) in await db.fetch_all("SELECT a FROM t")})
        print(await db.fetch_all("PRAGMA integrity_check"))

asyncio.run(main())
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="a small disk needs the unshare program")
def test_a_full_disk(backend, tmp_path):
    mount = 'mount -t tmpfs -o size=3m none "$1" && exec "$2" -c "$3" "$1/a.db"'
    probe = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", str(tmp_path)]
    if subprocess.run(probe, capture_output=True, timeout=20).returncode != 0:
        pytest.skip("this machine gives no mount namespace for a small disk")
    ran = subprocess.run(
        ["unshare", "-rm", "sh", "-c", mount, "sh", str(tmp_path), sys.executable, _FULL_DISK],
        env={**os.environ, "FASTCREW_ASYNC_BACKEND": backend.name},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert ran.stdout.splitlines() == ["['DatabaseFullError']", "True", "[('ok',)]"], ran.stderr


async def test_a_file_that_is_no_database(backend, tmp_path):
    path = tmp_path / "a.db"
    garbage = b"this is not a database, it is a letter" * 100
    path.write_bytes(garbage)
    with pytest.raises(DatabaseCorruptError, match=r"a\.db: file is not a database"):
        await Database.open(path)
    assert path.read_bytes() == garbage
    assert os.listdir(tmp_path) == ["a.db"]


async def test_a_damaged_file(backend, tmp_path):
    path = tmp_path / "a.db"
    async with Database(path) as db:
        await db.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b)")
        await db.execute_many("INSERT INTO t (b) VALUES (?)", [("x" * 500,)] * 500)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xaa" * (path.stat().st_size - 4096))
    async with Database(path) as db:
        with pytest.raises(DatabaseCorruptError, match="malformed"):
            await db.fetch_all("SELECT * FROM t")
        with pytest.raises(DatabaseCorruptError):
            await db.execute("INSERT INTO t (b) VALUES (1)")


async def test_constraints(db):
    await db.execute("CREATE TABLE c (a NOT NULL UNIQUE CHECK (a > 0), t REFERENCES t (a))")
    await db.execute("INSERT INTO c VALUES (1, NULL)")
    for row, text in [((1, None), "UNIQUE"), ((None, None), "NOT NULL"), ((0, None), "CHECK"), ((2, 5), "FOREIGN KEY")]:
        with pytest.raises(IntegrityError, match=text):
            await db.execute("INSERT INTO c VALUES (?, ?)", row)
    with pytest.raises(IntegrityError, match="datatype mismatch"):
        await db.execute("INSERT INTO t VALUES ('not an int', 0)")


def test_a_table_in_use_by_the_same_connection():
    # The writer runs each statement to its end, so this cannot happen through Database; the core has the same test.
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("CREATE TABLE t (a)")
    connection.execute("INSERT INTO t VALUES (1), (2)")
    reading = connection.execute("SELECT a FROM t")
    reading.fetchone()
    with pytest.raises(sqlite3.OperationalError) as caught:
        connection.execute("DROP TABLE t")
    assert isinstance(translate("a.db", caught.value), DatabaseLockedError)
    connection.close()


def test_every_error_is_a_database_error():
    for error in (DatabaseBusyError, DatabaseFullError, DatabaseOpenError, IntegrityError):
        assert issubclass(error, DatabaseError)
    assert issubclass(DatabaseBusyError, TimeoutError)
    assert issubclass(DatabaseFullError, OSError)
