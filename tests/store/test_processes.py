"""Several processes: kills under load, one file for many, forks.

``FASTCREW_KILL_ROUNDS=50 pytest tests/store/test_processes.py -k kill -s`` kills fifty times on each backend.
"""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from fastcrew_async.store import Database

ROUNDS = int(os.environ.get("FASTCREW_KILL_ROUNDS", "4"))

_WRITE_UNTIL_KILLED = """
import asyncio, os, sys
from fastcrew_async.store import Database

async def writer(db, first, step):
    number = first
    while True:
        if number % 3:
            await db.execute("INSERT INTO t VALUES (?, ?)", (number, "x" * (number % 2000)))
        else:
            await db.batch([("INSERT INTO t VALUES (?, ?)", (number, "y")), ("INSERT INTO pair VALUES (?)", (number,))])
        os.write(1, b"%d\\n" % number)
        number += step

async def main():
    async with Database(sys.argv[1]) as db:
        first = int(sys.argv[2])
        await asyncio.gather(*(writer(db, first + number, 50) for number in range(50)))

asyncio.run(main())
"""


@pytest.mark.timeout(60 + 6 * ROUNDS)
def test_a_kill_under_load_loses_no_acknowledged_row(backend, tmp_path, script):
    path = tmp_path / "a.db"
    db = Database(path)
    db.execute_sync("CREATE TABLE t (a INTEGER PRIMARY KEY, b)")
    db.execute_sync("CREATE TABLE pair (a INTEGER PRIMARY KEY)")
    db.close_sync()
    acknowledged: set[int] = set()
    for number in range(ROUNDS):
        process = script(_WRITE_UNTIL_KILLED, path, number * 10_000_000)
        assert process.stdout is not None
        acknowledged.add(int(process.stdout.readline()))
        time.sleep(random.uniform(0, 0.4))
        process.send_signal(signal.SIGKILL)
        out, err = process.communicate(timeout=30)
        assert process.returncode == -signal.SIGKILL, err
        # The kill may have cut the last line.
        acknowledged.update(int(line) for line in out[: out.rfind("\n") + 1].splitlines())

        db = Database(path)
        stored = {a for (a,) in db.fetch_all_sync("SELECT a FROM t")}
        pairs = {a for (a,) in db.fetch_all_sync("SELECT a FROM pair")}
        assert acknowledged <= stored
        assert pairs == {a for a in stored if a % 3 == 0}
        assert db.fetch_all_sync("PRAGMA integrity_check") == [("ok",)]
        db.close_sync()
    assert len(acknowledged) > ROUNDS
    print(f"{backend.name}: {ROUNDS} kills, {len(acknowledged)} acknowledged rows, {len(stored)} stored, none lost")


_WRITE_BESIDE_OTHERS = """
import asyncio, sys
from fastcrew_async.store import Database

async def main():
    async with Database(sys.argv[1]) as db:
        await db.execute("CREATE TABLE IF NOT EXISTS t (a INTEGER PRIMARY KEY, process, b)")
        async def writer(number):
            for _ in range(10):
                await db.execute("INSERT INTO t (process, b) VALUES (?, ?)", (int(sys.argv[2]), number))
                await db.fetch_one("SELECT count(*) FROM t")
        await asyncio.gather(*(writer(number) for number in range(10)))

asyncio.run(main())
"""


@pytest.mark.timeout(150)
def test_eight_processes_write_one_new_file(backend, tmp_path, script):
    path = tmp_path / "a.db"
    processes = [script(_WRITE_BESIDE_OTHERS, path, number) for number in range(8)]
    for process in processes:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert err == ""
    db = Database(path)
    assert db.fetch_all_sync("SELECT process, count(*) FROM t GROUP BY process") == [(n, 100) for n in range(8)]
    assert db.fetch_all_sync("PRAGMA integrity_check") == [("ok",)]
    db.close_sync()


_FORK = """
import gc, os, sys, warnings
from fastcrew_async.errors import ForkedProcessError
from fastcrew_async.store import Database

warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of any fork beside threads
folder = sys.argv[1]
db = Database(folder + "/a.db")
db.execute_sync("CREATE TABLE t (a)")
db.fetch_all_sync("SELECT * FROM t")
closed = Database(folder + "/closed.db")
closed.execute_sync("CREATE TABLE t (a)")
closed.close_sync()

def refused(call):
    try:
        call()
    except ForkedProcessError as error:
        return True
    return False

child = os.fork()
if child == 0:
    ok = refused(lambda: db.execute_sync("INSERT INTO t VALUES (1)"))
    ok &= refused(lambda: db.fetch_all_sync("SELECT 1")) and refused(db.close_sync)
    ok &= refused(lambda: Database(folder + "/a.db").execute_sync("INSERT INTO t VALUES (1)"))
    for name in ("/closed.db", "/own.db"):
        own = Database(folder + name)
        own.execute_sync("CREATE TABLE IF NOT EXISTS t (a)")
        ok &= own.execute_sync("INSERT INTO t VALUES (2)").rows_changed == 1
        own.close_sync()
    del db
    gc.collect()
    os._exit(0 if ok else 1)
db.execute_sync("INSERT INTO t VALUES (3)")
_, status = os.waitpid(child, 0)
db.execute_sync("INSERT INTO t VALUES (4)")
ok = db.fetch_all_sync("PRAGMA integrity_check")
print(os.waitstatus_to_exitcode(status), db.fetch_all_sync("SELECT a FROM t"), ok)
db.close_sync()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_cannot_use_what_its_parent_has_open(backend, tmp_path, script):
    process = script(_FORK, tmp_path)
    out, err = process.communicate(timeout=50)
    assert out == "0 [(3,), (4,)] [('ok',)]\n", err


_EXIT = """
import asyncio, sys
from fastcrew_async.store import Database

async def main():
    db = Database(sys.argv[1])
    await db.execute("CREATE TABLE t (a)")
    tasks = [asyncio.create_task(db.execute("INSERT INTO t VALUES (?)", (a,))) for a in range(1000)]
    await tasks[0]
    print("acknowledged", flush=True)

asyncio.run(main())
"""


def test_a_process_may_end_with_writes_in_flight(backend, tmp_path, script):
    process = script(_EXIT, tmp_path / "a.db")
    out, err = process.communicate(timeout=50)
    assert (process.returncode, out, err) == (0, "acknowledged\n", "")
    db = Database(tmp_path / "a.db")
    assert db.fetch_one_sync("SELECT count(*) > 0 FROM t") == (1,)
    db.close_sync()
