"""The same operations on CrewAI's own store and on this one give the same answers."""

from __future__ import annotations

import tempfile
from datetime import timedelta
from typing import Any

from crewai.memory.storage.lancedb_storage import LanceDBStorage
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from fastcrew_async.memory.store import MemoryStore
from tests.memory.records import START, record, unit

SCOPES = ["/a", "/a/b", "/a/b/c", "/ab", "/a-b", "/x%y", "/x_y"]
ASKED = [None, "/", "/a", "/a/", "a", "/a/b", "/x%", "/none", ""]
numbers = st.integers(0, 11)
records = st.lists(
    st.tuples(
        numbers, st.sampled_from(SCOPES), st.lists(st.sampled_from(["c", "d", "e'"]), max_size=3), st.integers(0, 2)
    ),
    min_size=1,
    max_size=4,
)
asked = st.sampled_from(ASKED)
operations = st.one_of(
    st.tuples(st.just("save"), records),
    st.tuples(st.just("update"), numbers, st.sampled_from(SCOPES)),
    st.tuples(st.just("ids"), st.lists(numbers, min_size=1, max_size=3)),
    st.tuples(st.just("scope"), st.sampled_from(["/a", "/a/b", "a", "/none", "/x_"])),
    st.tuples(st.just("older"), numbers),
    st.tuples(st.just("tagged"), asked, st.sampled_from(["c", "e'"]), st.integers(0, 2)),
    st.tuples(st.just("reset"), st.sampled_from(["/a", "/a/b", "/x%y", "/none", None])),
)


class Times:
    """Times that are all different, as the order of equal ones is nobody's promise."""

    def __init__(self) -> None:
        self.count = 0

    def next(self, number: int) -> Any:
        self.count += 1
        return START + timedelta(minutes=number, microseconds=self.count)


def apply(store: Any, operation: Any, times: Times) -> Any:
    name, *args = operation
    if name == "save":
        return store.save(
            [
                record(n, scope=scope, categories=tags, metadata={"n": m}, embedding=unit(n), created_at=times.next(n))
                for n, scope, tags, m in args[0]
            ]
        )
    if name == "update":
        number, scope = args
        return store.update(record(number, scope=scope, embedding=unit(number + 50), created_at=times.next(number)))
    if name == "ids":
        return store.delete(record_ids=[f"r{n}" for n in args[0]])
    if name == "scope":
        return store.delete(scope_prefix=args[0])
    if name == "older":
        return store.delete(older_than=START + timedelta(minutes=args[0]))
    if name == "tagged":
        return store.delete(scope_prefix=args[0], categories=[args[1]], metadata_filter={"n": args[2]})
    return store.reset(args[0])


def told(found: Any) -> Any:
    return (found.id, found.scope, found.categories, found.metadata, found.created_at, found.importance, found.source)


def state(store: Any, query: list[float]) -> dict[str, Any]:
    """All that the protocol can say."""
    everything = store.list_records()
    return {
        "records": [told(found) for found in everything],
        "pages": [[told(found) for found in store.list_records(prefix, limit=3, offset=1)] for prefix in ASKED],
        "infos": [store.get_scope_info(prefix or "/") for prefix in ASKED],
        "scopes": [store.list_scopes(prefix or "/") for prefix in ASKED],
        "categories": [store.list_categories(prefix) for prefix in ASKED],
        "counts": [store.count(prefix) for prefix in ASKED],
        "near": [
            sorted((round(score, 4), told(found)[4]) for found, score in store.search(query, prefix, limit=1000))
            for prefix in ASKED
        ],
        "near tagged": sorted(
            told(found)[4] for found, _ in store.search(query, "/a", ["c"], {"n": 1}, limit=1000, min_score=0.2)
        ),
    }


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(operations, min_size=1, max_size=6))
def test_the_same_operations_give_the_same_answers(done: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        theirs = LanceDBStorage(f"{folder}/theirs", vector_dim=8, compact_every=0)
        ours = MemoryStore(f"{folder}/ours")
        try:
            their_times, our_times = Times(), Times()
            for turn, operation in enumerate(done, 100):
                # CrewAI cannot update, and reads nothing, before its table is there; a reset removes it.
                apply(theirs, ("save", [(turn, "/a", [], 0)]), their_times)
                apply(ours, ("save", [(turn, "/a", [], 0)]), our_times)
                if operation[0] == "tagged":  # CrewAI deletes others of the same id too
                    known = [found.id for found in ours.list_records(limit=1000)]
                    assume(len(known) == len(set(known)))
                assert apply(ours, operation, our_times) == apply(theirs, operation, their_times)
                assert state(ours, unit(99)) == state(theirs, unit(99))
        finally:
            ours.close()
