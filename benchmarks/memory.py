"""Memories: this store beside CrewAI's LanceDBStorage and a numpy product, on the same data in one run.

    python benchmarks/memory.py                       # 10,000 x 384 and 20,000 x 1536, and words
    python benchmarks/memory.py --large 1000000       # and so many of 384 dimensions, this store only

p50 is the median wall time of a call, CPU the mean of all threads of the process. Recall is judged by numpy.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import os
import resource
import sqlite3
import statistics
import tempfile
import time
import warnings
from array import array
from collections.abc import Callable
from typing import Any

warnings.simplefilter("ignore")

import numpy as np  # noqa: E402
from crewai.memory.storage.lancedb_storage import LanceDBStorage  # noqa: E402
from crewai.memory.types import MemoryRecord  # noqa: E402

from fastcrew_async.memory.store import MemoryStore  # noqa: E402

CALLS = 50
WORDS = 30_000


def measured(call: Callable[[int], Any], calls: int = CALLS) -> tuple[float, float]:
    """Median wall and mean CPU of a call, in milliseconds."""
    call(0)
    walls, cpu = [], time.process_time()
    for number in range(calls):
        began = time.perf_counter()
        call(number)
        walls.append(time.perf_counter() - began)
    return statistics.median(walls) * 1e3, (time.process_time() - cpu) / calls * 1e3


def measured_once(call: Callable[[], Any]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return (time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3


def line(name: str, *cells: tuple[float, float]) -> None:
    shown = "  ".join(f"{wall:9.3f} ms {cpu:9.3f} ms CPU" for wall, cpu in cells)
    ratio = f"  x{cells[1][0] / cells[0][0]:.1f}, CPU x{cells[1][1] / cells[0][1]:.1f}" if len(cells) > 1 else ""
    print(f"  {name:<24}{shown}{ratio}", flush=True)


def vectors(count: int, dim: int, seed: int = 0) -> Any:
    found = np.random.default_rng(seed).standard_normal((count, dim), dtype=np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def records(matrix: Any) -> list[MemoryRecord]:
    return [
        MemoryRecord(
            id=f"r{n}",
            content=f"thought {n} about things that came up in step {n % 97}",
            scope=f"/s/{n % 10}",
            categories=[f"c{n % 100}"],
            metadata={"k": n % 1000},
            embedding=vector.tolist(),
        )
        for n, vector in enumerate(matrix)
    ]


def bulk(saves: list[Callable[[list[MemoryRecord]], None]], given: list[MemoryRecord]) -> list[tuple[float, float]]:
    """Milliseconds of 1000 records for each, by turns, as the load of a machine comes and goes."""
    took = [(0.0, 0.0)] * len(saves)
    for at in range(0, len(given), 1000):
        for number, save in enumerate(saves):
            wall, cpu = measured_once(functools.partial(save, given[at : at + 1000]))
            took[number] = took[number][0] + wall, took[number][1] + cpu
    return [(wall / len(given) * 1e3, cpu / len(given) * 1e3) for wall, cpu in took]


class Flushed:
    """LanceDBStorage flushes nothing: this one has its new files on disk when a save returns, as our store has."""

    def __init__(self, folder: str) -> None:
        self.storage, self.folder = LanceDBStorage(folder), folder
        self.known: set[str] = set()

    def save(self, given: list[MemoryRecord]) -> None:
        self.storage.save(given)
        for place, _, names in os.walk(self.folder):
            new = {os.path.join(place, name) for name in names} - self.known
            for path in [*new, place] if new else []:
                file = os.open(path, os.O_RDONLY)
                os.fsync(file)
                os.close(file)
            self.known |= new


def compare(count: int, dim: int, folder: str) -> None:
    matrix, asked = vectors(count, dim), vectors(CALLS, dim, 1)
    queries = [query.tolist() for query in asked]
    given = records(matrix)
    ours, theirs = MemoryStore(f"{folder}/ours{dim}"), LanceDBStorage(f"{folder}/theirs{dim}")
    print(f"{count:,} x {dim}: this store, LanceDBStorage, and how many times less")
    flushed = Flushed(f"{folder}/flushed{dim}")
    here, there, on_disk = bulk([ours.save, theirs.save, flushed.save], given)
    line("save, 1000 in a call", here, there)
    line("  and they are on disk", here, on_disk)
    theirs.optimize()
    both = (ours, theirs)
    line("search", *(measured(lambda n, s=store: s.search(queries[n])) for store in both))
    for name, narrowed in {
        "search, scope (1/10)": {"scope_prefix": "/s/3"},
        "search, category (1/100)": {"categories": ["c7"]},
        "search, metadata (10)": {"metadata_filter": {"k": 7}},
    }.items():
        line(name, *(measured(lambda n, s=store, a=narrowed: s.search(queries[n], **a)) for store in both))
        found = [statistics.mean(len(store.search(query, **narrowed)) for query in queries) for store in both]
        print(f"    found of 10 wanted: {found[0]:.1f} and {found[1]:.1f}")
    line("list of 200", *(measured(lambda n, s=store: s.list_records(), 20) for store in both))
    line("scope info", *(measured(lambda n, s=store: s.get_scope_info("/"), 20) for store in both))
    one = MemoryRecord(id="one", content="one", embedding=queries[0])
    line("save of one", *(measured(lambda n, s=store: s.save([one]), 20) for store in both))
    ours.delete(record_ids=["one"])
    # After the others: its threads go on spinning for a while.
    line("numpy: product and sort", measured(lambda n: np.argpartition(matrix @ asked[n], -10)[-10:]))
    best = np.argsort(-(matrix @ asked.T), axis=0)[:10].T
    hits = sum(
        len({match.id for match, _ in ours.search(query)} & {f"r{n}" for n in row})
        for query, row in zip(queries, best, strict=True)
    )
    print(f"  recall@10 {hits / CALLS / 10:.4f}")
    asyncio.run(savers(ours, queries[0]))
    ours.close()


async def savers(store: MemoryStore, vector: list[float]) -> None:
    """A hundred that save one record after the other."""

    async def save(name: int) -> None:
        for turn in range(20):
            await store.asave([MemoryRecord(id=f"{name}.{turn}", content="one", embedding=vector)])

    groups = (await store.astats()).commits
    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(save(name) for name in range(100)))
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    groups = (await store.astats()).commits - groups
    print(
        f"  100 savers at once: {wall / 2:.3f} ms a save acknowledged on disk, {cpu / 2:.3f} ms CPU, {groups} commits; "
        f"a flush of 4 KB alone: {flush(store.path):.3f} ms"
    )


def flush(folder: str) -> float:
    """Median milliseconds until 4 KB are on disk."""
    took = []
    with open(f"{folder}/flushed", "wb", buffering=0) as file:
        for _ in range(50):
            file.write(bytes(4096))
            began = time.perf_counter()
            os.fsync(file.fileno())
            took.append(time.perf_counter() - began)
    os.remove(f"{folder}/flushed")
    return statistics.median(took) * 1e3


def words(count: int, folder: str) -> None:
    chance = np.random.default_rng(2)
    rank = np.minimum(chance.zipf(1.15, size=(count, 24)), WORDS)
    texts = [" ".join(f"w{number}" for number in row) for row in rank.tolist()]
    queries = [" ".join(f"w{n}" for n in row) for row in np.minimum(chance.zipf(1.15, (CALLS, 3)) + 5, WORDS).tolist()]
    store = MemoryStore(f"{folder}/words", stemmed=False)
    for at in range(0, count, 1000):
        store.save([MemoryRecord(id=f"r{n}", content=texts[n]) for n in range(at, min(at + 1000, count))])
    began = time.perf_counter()
    store.search_words(queries[0])
    print(f"words of {count:,} records: the index is built in {time.perf_counter() - began:.2f} s, at the first search")
    line("BM25", measured(lambda n: store.search_words(queries[n])))
    line("TF-IDF cosine", measured(lambda n: store.search_words(queries[n], method="tfidf")))
    fts = sqlite3.connect(f"{folder}/fts.db")
    fts.execute("CREATE VIRTUAL TABLE t USING fts5(text)")
    fts.executemany("INSERT INTO t (text) VALUES (?)", ((text,) for text in texts))
    fts.commit()
    sql = "SELECT rowid FROM t WHERE t MATCH ? ORDER BY bm25(t) LIMIT 10"
    line("SQLite FTS5", measured(lambda n: fts.execute(sql, (queries[n].replace(" ", " OR "),)).fetchall()))
    try:
        from rank_bm25 import BM25Okapi
    except ImportError:
        print("  rank-bm25 is not installed")
    else:
        okapi = BM25Okapi([text.split() for text in texts])
        line("rank-bm25", measured(lambda n: okapi.get_top_n(queries[n].split(), texts, 10), 5))
    store.close()


def large(count: int, folder: str) -> None:
    dim, path = 384, f"{folder}/large"
    store = MemoryStore(path)
    core = store._core()
    began = time.perf_counter()
    for at in range(0, count, 5000):
        rows = vectors(min(5000, count - at), dim, at)
        times = (0, 0, None)
        core.save_sync(
            [
                (f"r{at + n}", f"thought {at + n}", "/", "[]", "{}", [], 0.5, times, (None, False), row.tobytes())
                for n, row in enumerate(rows)
            ]
        )
    print(f"{count:,} x {dim}: saved in {time.perf_counter() - began:.0f} s")
    store.close()
    query = array("f", vectors(1, dim, 1)[0].tolist())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    store = MemoryStore(path)
    store.count()
    print(f"  opened in {(time.perf_counter() - began) * 1e3:.1f} ms")
    line("first search", measured_once(lambda: store.search(query)))
    line("search", measured(lambda n: store.search(query), 10))
    codes = store.stats().slots * dim
    print(f"  the codes are {codes / 1e6:.0f} MB, the vectors {codes * 4 / 1e6:.0f} MB")
    with open("/proc/self/status") as status:
        resident = {key: value.strip() for key, value in (row.split(":", 1) for row in status) if key.startswith("Rss")}
    print(f"  resident: {resident} (peak before opening {before / 1024:.0f} MB)")
    store.close()
    plain = np.ones(codes // 8, np.int64)
    line("numpy: a sum over as many bytes", measured(lambda n: plain.sum(), 10))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", type=int, default=0)
    parser.add_argument("--words", type=int, default=100_000)
    parser.add_argument("--only", choices=["small", "wide", "words", "large"])
    given = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    with tempfile.TemporaryDirectory() as folder:
        if given.only in (None, "small"):
            compare(10_000, 384, folder)
        if given.only in (None, "wide"):
            compare(20_000, 1536, folder)
        if given.only in (None, "words"):
            words(given.words, folder)
        if given.large:
            large(given.large, folder)


if __name__ == "__main__":
    main()
