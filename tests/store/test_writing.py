"""The queue and the writer: groups, waiting, cancelling, closing."""

from __future__ import annotations

import asyncio
import gc
import os

import pytest

from fastcrew_async import runtime
from fastcrew_async.errors import DatabaseClosedError, IntegrityError, RuntimeClosedError
from fastcrew_async.store import Database

INSERT = "INSERT INTO t VALUES (?, ?)"
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"


async def start(*awaitables):
    """Tasks whose first step has run: what they write is queued, in this order."""
    tasks = [asyncio.ensure_future(each) for each in awaitables]
    await asyncio.sleep(0)
    return tasks


async def test_concurrent_writes_share_commits(db, hold):
    before = db.stats()
    with hold(db.path) as release:
        tasks = await start(*(db.execute(INSERT, (a, "x")) for a in range(500)))
        release()
        await asyncio.gather(*tasks)
    stats = db.stats()
    assert stats.writes - before.writes == 500
    assert stats.commits - before.commits <= 3
    assert stats.largest_group >= 200
    assert await db.fetch_one("SELECT count(*) FROM t") == (500,)


async def test_a_failing_write_fails_alone_in_its_group(db, hold):
    await db.execute("CREATE TABLE child (a REFERENCES t (a) DEFERRABLE INITIALLY DEFERRED)")
    for spoiler in [
        (INSERT, (1, "again")),
        ("INSERT OR FAIL INTO t VALUES (9, 'kept by OR FAIL'), (1, 'again')", ()),
        ("INSERT OR ROLLBACK INTO t VALUES (1, 'again')", ()),
        ("INSERT INTO child VALUES (99)", ()),
    ]:
        with hold(db.path) as release:
            writes = await start(*(db.execute(INSERT, (a, "x")) for a in (1, 2)), db.execute(*spoiler))
            writes += await start(db.execute(INSERT, (3, "x")), db.execute("INSERT INTO child VALUES (1)"))
            release()
            done = await asyncio.gather(*writes, return_exceptions=True)
        assert isinstance(done.pop(2), IntegrityError), spoiler
        assert [result.rows_changed for result in done] == [1, 1, 1, 1]
        assert await db.fetch_all("SELECT a FROM t") == [(1,), (2,), (3,)]
        assert await db.fetch_all("SELECT a FROM child") == [(1,)]
        await db.batch([("DELETE FROM child", ()), ("DELETE FROM t", ())])


async def test_past_the_bound_writers_wait_and_none_is_dropped(backend, tmp_path, hold):
    async with Database(tmp_path / "a.db", queue_size=4) as db:
        await db.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b)")
        with hold(db.path) as release:
            tasks = await start(*(db.execute(INSERT, (a, "x")) for a in range(100)))
            assert db.stats().queued <= 4
            assert not any(task.done() for task in tasks)
            release()
            await asyncio.gather(*tasks)
        assert db.stats().queued == 0
        assert await db.fetch_one("SELECT count(*) FROM t") == (100,)


async def test_writes_keep_the_order_of_their_callers(db):
    await asyncio.gather(*(db.execute("INSERT INTO t (b) VALUES (?)", (number,)) for number in range(300)))
    assert await db.fetch_all("SELECT b FROM t ORDER BY a") == [(number,) for number in range(300)]


async def test_reads_do_not_wait_for_the_writer(db, hold):
    with hold(db.path) as release:
        (write,) = await start(db.execute(INSERT, (1, "x")))
        reads = await asyncio.gather(*(db.fetch_one("SELECT count(*) FROM t") for _ in range(20)))
        assert reads == [(0,)] * 20
        assert not write.done()
        release()
        await write


async def test_a_cancelled_write_is_withdrawn_before_its_turn(db, hold):
    with hold(db.path) as release:
        first, second, third = await start(*(db.execute(INSERT, (a, "x")) for a in (1, 2, 3)))
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        release()
        await asyncio.gather(first, third)
    assert await db.fetch_all("SELECT a FROM t") == [(1,), (3,)]


async def test_a_cancelled_wait_for_a_place_is_withdrawn_too(backend, tmp_path, hold):
    async with Database(tmp_path / "a.db", queue_size=1) as db:
        await db.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b)")
        with hold(db.path) as release:
            tasks = await start(*(db.execute(INSERT, (a, "x")) for a in range(50)))
            for task in tasks[10:]:
                task.cancel()
            await asyncio.wait(tasks[10:])
            release()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert await db.fetch_all("SELECT a FROM t") == [(a,) for a in range(10)]


async def test_a_write_cancelled_at_any_moment_is_whole_or_absent(db):
    for number in range(200):
        pair = [(INSERT, (2 * number, "x")), (INSERT, (2 * number + 1, "x"))]
        (task,) = await start(db.batch(pair))
        for _ in range(number % 7):
            await asyncio.sleep(0)
        task.cancel()
        (done,) = await asyncio.gather(task, return_exceptions=True)
        if not isinstance(done, asyncio.CancelledError):
            rows = await db.fetch_all("SELECT a FROM t WHERE a / 2 = ?", (number,))
            assert len(rows) == 2
    await db.batch([])
    halves = await db.fetch_all("SELECT a / 2 FROM t GROUP BY a / 2 HAVING count(*) != 2")
    assert halves == []


async def test_a_cancelled_read_gives_its_connection_back(backend, tmp_path):
    async with Database(tmp_path / "a.db", readers=2) as db:
        tasks = await start(*(db.fetch_all(ENDLESS) for _ in range(6)))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(tasks[0]), 0.05)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert await asyncio.wait_for(db.fetch_one("SELECT 1"), 20) == (1,)


async def test_close_drains_what_is_queued(backend, tmp_path, hold):
    db = await Database.open(tmp_path / "a.db", queue_size=8)
    await db.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b)")
    with hold(db.path) as release:
        writes = await start(*(db.execute(INSERT, (a, "x")) for a in range(50)))
        (closing,) = await start(db.close())
        for call in (db.execute(INSERT, (99, "x")), db.fetch_one("SELECT 1"), db.batch([])):
            with pytest.raises(DatabaseClosedError, match="make a new Database"):
                await call
        with pytest.raises(DatabaseClosedError):
            db.stats()
        assert not closing.done()
        release()
        await asyncio.gather(*writes, closing, db.close())
    assert os.listdir(tmp_path) == ["a.db"]
    async with Database(tmp_path / "a.db") as again:
        assert await again.fetch_one("SELECT count(*), max(a) FROM t") == (50, 49)


async def test_closing_one_of_two_waits_for_its_writes_and_leaves_the_other(backend, tmp_path, hold):
    async with Database(tmp_path / "a.db") as first:
        await first.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b)")
        second = await Database.open(tmp_path / "a.db")
        with hold(first.path) as release:
            (write,) = await start(second.execute(INSERT, (1, "x")))
            (closing,) = await start(second.close())
            assert not closing.done()
            release()
            await closing
            assert (await write).rows_changed == 1
        assert await first.fetch_one("SELECT count(*) FROM t") == (1,)


async def test_a_forgotten_database_still_writes_what_was_queued(backend, tmp_path, until):
    db = await Database.open(tmp_path / "a.db")
    await db.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b)")
    await db.execute(INSERT, (1, "x"))
    del db
    gc.collect()
    await until(lambda: os.listdir(tmp_path) == ["a.db"])
    async with Database(tmp_path / "a.db") as again:
        assert await again.fetch_one("SELECT count(*) FROM t") == (1,)


async def test_a_closed_runtime_refuses_and_a_new_database_goes_on(backend, tmp_path):
    db = await Database.open(tmp_path / "a.db")
    await asyncio.to_thread(runtime.close)
    with pytest.raises(RuntimeClosedError):
        await db.execute("CREATE TABLE t (a)")
    async with Database(tmp_path / "a.db") as again:
        await again.execute("CREATE TABLE t (a)")
        assert await again.fetch_all("SELECT * FROM t") == []
