"""Rows a second of 1,000 concurrent writers, each row acknowledged on its own: Database beside aiosqlite.

    python benchmarks/database.py [--writers 1000] [--rows 20] [--rounds 7] [--folder DIR]

Both sides do the same work on the same disk with the same ``journal_mode`` and ``synchronous``: every writer inserts
its rows one after another and goes on when the row is committed. aiosqlite has one shared connection and commits each
row, as its users do; with many writers most of its commits find the work done by another's. The rows are counted
afterwards. Rounds alternate; the medians are compared, and the fastest rounds are shown beside them.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path

import aiosqlite

from fastcrew_async import _native, runtime
from fastcrew_async.store import Database, Durability

CREATE = "CREATE TABLE row (id INTEGER PRIMARY KEY, writer INTEGER, text TEXT)"
INSERT = "INSERT INTO row (writer, text) VALUES (?, ?)"
TEXT = "x" * 100
DURABILITIES: tuple[Durability, ...] = ("full", "relaxed")


async def run_all(writer: Callable[[int], Coroutine[None, None, None]], writers: int) -> float:
    """Seconds until all of ``writers`` have written their rows."""
    begin = time.perf_counter()
    await asyncio.gather(*(writer(number) for number in range(writers)))
    return time.perf_counter() - begin


async def ours(path: Path, writers: int, rows: int, durability: Durability) -> float:
    async with Database(path, durability=durability) as db:
        await db.execute(CREATE)

        async def writer(number: int) -> None:
            for _ in range(rows):
                await db.execute(INSERT, (number, TEXT))

        return await run_all(writer, writers)


async def theirs(path: Path, writers: int, rows: int, durability: Durability) -> float:
    async with aiosqlite.connect(path) as connection:
        await connection.execute("PRAGMA journal_mode = WAL")
        await connection.execute(f"PRAGMA synchronous = {'FULL' if durability == 'full' else 'NORMAL'}")
        await connection.execute(CREATE)
        await connection.commit()

        async def writer(number: int) -> None:
            for _ in range(rows):
                await connection.execute(INSERT, (number, TEXT))
                await connection.commit()

        return await run_all(writer, writers)


def count(path: Path) -> int:
    """The rows in the file, asked by another process: two SQLites must not meet in one."""
    code = "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM row').fetchone()[0])"
    return int(subprocess.run([sys.executable, "-c", code, path], check=True, capture_output=True, text=True).stdout)


def measure(
    side: Callable[..., Coroutine[None, None, float]], writers: int, rows: int, durability: Durability, folder: Path
) -> tuple[float, float]:
    """Rows a second, and microseconds of CPU a row."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        path = Path(place, "rows.db")
        before = cpu()
        seconds = asyncio.run(side(path, writers, rows, durability))
        spent = cpu() - before
        written = count(path)
    if written != writers * rows:
        raise SystemExit(f"{side.__name__}: {written} rows in the file, {writers * rows} were acknowledged")
    return written / seconds, spent / written * 1e6


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--writers", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=20, help="rows of each writer")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="where the files are written (not tmpfs)")
    given = parser.parse_args()
    print(
        f"backend {_native.backend}, {given.writers} writers x {given.rows} rows, "
        f"SQLite of Python {sqlite3.sqlite_version}"
    )
    for durability in DURABILITIES:
        results: dict[Callable[..., Coroutine[None, None, float]], list[tuple[float, float]]] = {ours: [], theirs: []}
        for _ in range(given.rounds):
            for side, measured in results.items():
                measured.append(measure(side, given.writers, given.rows, durability, given.folder))
        fastest, medians = {}, {}
        for side, measured in results.items():
            rates, spent = zip(*measured, strict=True)
            fastest[side], medians[side] = max(rates), statistics.median(rates)
            name = "Database" if side is ours else "aiosqlite"
            print(
                f"{durability:8} {name:10} {medians[side]:10,.0f} rows/s (fastest {fastest[side]:10,.0f})  "
                f"{min(spent):6.1f} us CPU a row"
            )
        ratio, of_fastest = medians[ours] / medians[theirs], fastest[ours] / fastest[theirs]
        print(f"{durability:8} ratio      {ratio:10.1f}        (fastest {of_fastest:10.1f})")
    runtime.close()


if __name__ == "__main__":
    main()
