"""Rows a second of 1,000 concurrent writers, each row acknowledged on its own: Database beside aiosqlite.

    python benchmarks/database.py [--writers 1000] [--rows 20] [--rounds 5] [--folder DIR]

Both sides do the same work on the same disk with the same ``journal_mode`` and ``synchronous``: every writer inserts
its rows one after another and goes on when the row is committed. aiosqlite has one shared connection and commits each
row, as its users do; with many writers most of its commits find the work done by another's. The rows are counted
afterwards. Rounds alternate; the fastest of each side is compared (other load only slows, as ``timeit`` says), and
the medians are shown beside it.
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
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiosqlite

from fastcrew_async import _native, runtime
from fastcrew_async.store import Database

CREATE = "CREATE TABLE row (id INTEGER PRIMARY KEY, writer INTEGER, text TEXT)"
INSERT = "INSERT INTO row (writer, text) VALUES (?, ?)"
TEXT = "x" * 100
Write = Callable[[int], Awaitable[object]]


async def write_all(write: Write, writers: int, rows: int) -> float:
    """Seconds until each of ``writers`` has written ``rows`` rows, one after another."""

    async def writer(number: int) -> None:
        for _ in range(rows):
            await write(number)

    begin = time.perf_counter()
    await asyncio.gather(*(writer(number) for number in range(writers)))
    return time.perf_counter() - begin


async def ours(path: Path, writers: int, rows: int, durability: str) -> float:
    async with Database(path, durability=durability) as db:  # type: ignore[arg-type]
        await db.execute(CREATE)
        return await write_all(lambda number: db.execute(INSERT, (number, TEXT)), writers, rows)


async def theirs(path: Path, writers: int, rows: int, durability: str) -> float:
    async with aiosqlite.connect(path) as connection:
        await connection.execute("PRAGMA journal_mode = WAL")
        await connection.execute(f"PRAGMA synchronous = {'FULL' if durability == 'full' else 'NORMAL'}")
        await connection.execute(CREATE)
        await connection.commit()

        async def write(number: int) -> None:
            await connection.execute(INSERT, (number, TEXT))
            await connection.commit()

        return await write_all(write, writers, rows)


def count(path: Path) -> int:
    """The rows in the file, asked by another process: two SQLites must not meet in one."""
    code = "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM row').fetchone()[0])"
    return int(subprocess.run([sys.executable, "-c", code, path], check=True, capture_output=True, text=True).stdout)


def measure(
    side: Callable[..., Awaitable[float]], writers: int, rows: int, durability: str, folder: Path
) -> tuple[float, float]:
    """Rows a second, and microseconds of CPU a row."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        path = Path(place, "rows.db")
        before = cpu()
        seconds = asyncio.run(side(path, writers, rows, durability))  # type: ignore[arg-type]
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
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="where the files are written (not tmpfs)")
    given = parser.parse_args()
    print(
        f"backend {_native.backend}, {given.writers} writers x {given.rows} rows, "
        f"SQLite of Python {sqlite3.sqlite_version}"
    )
    for durability in ("full", "relaxed"):
        results: dict[Callable[..., Awaitable[float]], list[tuple[float, float]]] = {ours: [], theirs: []}
        for _ in range(given.rounds):
            for side, measured in results.items():
                measured.append(measure(side, given.writers, given.rows, durability, given.folder))
        fastest, medians = {}, {}
        for side, measured in results.items():
            rates, spent = zip(*measured, strict=True)
            fastest[side], medians[side] = max(rates), statistics.median(rates)
            name = "Database" if side is ours else "aiosqlite"
            print(
                f"{durability:8} {name:10} {fastest[side]:10,.0f} rows/s (median {medians[side]:10,.0f})  "
                f"{min(spent):6.1f} us CPU a row"
            )
        ratio, of_medians = fastest[ours] / fastest[theirs], medians[ours] / medians[theirs]
        print(f"{durability:8} ratio      {ratio:10.1f}        (of medians {of_medians:6.1f})")
    runtime.close()


if __name__ == "__main__":
    main()
