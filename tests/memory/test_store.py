"""What the store keeps and finds; each test on both backends."""

from __future__ import annotations

import asyncio
import copy
import math
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from crewai.memory.storage.backend import EmbeddingDimensionMismatchError, StorageBackend
from crewai.memory.types import MemoryRecord

from fastcrew_async.memory.store import MemoryStore
from tests.memory.records import START, record, unit


def ids(found: list[tuple[MemoryRecord, float]]) -> list[str]:
    return [match.id for match, _ in found]


def test_it_is_a_storage_backend(store: MemoryStore) -> None:
    assert isinstance(store, StorageBackend)
    assert store.search([1.0, 0.0]) == []
    assert store.count() == 0
    assert store.get_record("none") is None
    assert store.list_records() == []
    assert store.delete() == 0


def test_a_record_comes_back_as_it_was(store: MemoryStore) -> None:
    given = record(
        1,
        content="naïve \x00 café 🫖" * 1000,
        scope="/a/../b",
        categories=["x", "y", "x\x00z"],
        metadata={"n": 1, "deep": {"list": [1, None, "é"]}, "\ud800": "\udfff", "": ""},
        importance=0.25,
        source="user\x00 1",
        private=True,
        embedding=[0.5, -0.25, 3.0],
        created_at=datetime(2026, 5, 4, 3, 2, 1, 7, tzinfo=timezone(timedelta(hours=2))),
    )
    store.save([given])
    found = store.get_record("r1")
    assert found is not None
    assert found == given
    assert found.embedding == given.embedding
    assert found.created_at.utcoffset() == timedelta(hours=2)
    assert store.list_records() == [given]
    assert store.list_categories() == {"x": 1, "y": 1, "x\x00z": 1}
    assert store.get_scope_info("/a").child_scopes == ["/a/.."]


class Lazy(list[MemoryRecord]):
    """Records that are made when they are asked for, each after ``before``."""

    def __init__(self, records: list[MemoryRecord], before: Callable[[MemoryRecord], object]) -> None:
        super().__init__(records)
        self.before = before

    def __iter__(self) -> Any:
        for one in super().__iter__():
            self.before(one)
            yield one


@pytest.mark.parametrize("place", [0, 127, 128, 300, 999])
def test_a_save_of_many_with_one_that_is_refused_saves_none(store: MemoryStore, place: int) -> None:
    store.save([record(-1, embedding=unit(-1))])
    given = [record(n, embedding=unit(n), scope="/s", categories=["c"]) for n in range(1000)]
    for wrong, error in (([1.0, math.nan], ValueError), (unit(1, 9), EmbeddingDimensionMismatchError)):
        given[place].embedding = wrong
        with pytest.raises(error):
            store.save(given)
    assert (store.count(), store.list_scopes(), store.list_categories()) == (1, [], {})
    given[place].embedding = unit(place)
    store.save(given)
    assert store.count() == 1001
    assert [ids(store.search(unit(n), limit=1)) for n in (-1, 0, 127, 128, 999)] == [
        [f"r{n}"] for n in (-1, 0, 127, 128, 999)
    ]


def test_names_of_a_save_that_is_undone_are_not_taken_for_known(store: MemoryStore) -> None:
    store.save([record(0, embedding=unit(0), categories=["kept"], scope="/kept")])
    many = [record(n, categories=["kept", f"c{n}"], scope=f"/s{n}", source=f"me{n}") for n in range(1, 300)]
    wrong = record(300, embedding=[1.0])
    with pytest.raises(EmbeddingDimensionMismatchError):
        store.save([*many, wrong])
    assert store.list_categories() == {"kept": 1}
    store.save([record(n, categories=[f"d{n}"], scope=f"/t{n}") for n in range(300, 400)])
    store.save(many)
    for turn in (1, 2):
        assert store.list_categories() == {
            "kept": 1 + 299 * turn,
            **{f"c{n}": turn for n in range(1, 300)},
            **{f"d{n}": 1 for n in range(300, 400)},
        }
        assert {found.id for found in store.list_records("/s123")} == {"r123"}
        assert {found.id for found, _ in store.search_words("thought", categories=["c7"])} == {"r7"}
        assert {(found.id, found.source) for found in store.list_records("/s299")} == {("r299", "me299")}
        if turn == 1:
            store.save(many)


def test_records_that_are_slow_to_come_keep_nobody_waiting(store: MemoryStore) -> None:
    def before(one: MemoryRecord) -> None:
        if one.id in ("r200", "r390"):  # it waits for the writer itself
            store.save([record(int(one.id[1:]) + 1000, embedding=unit(0))])

    store.save(Lazy([record(n, embedding=unit(n)) for n in range(400)], before))
    assert store.count() == 402
    assert {found.id for found in store.list_records(limit=500)} >= {"r0", "r399", "r1200", "r1390"}


def test_a_first_save_that_is_refused_leaves_a_store_that_works(store: MemoryStore) -> None:
    with pytest.raises(EmbeddingDimensionMismatchError):
        store.save([record(1, embedding=[1.0, 0.0]), record(2, embedding=[1.0, 0.0, 0.0])])
    assert store.count() == 0
    store.save([record(3, embedding=[1.0, 0.0])])
    assert ids(store.search([1.0, 0.0])) == ["r3"]


async def test_many_look_while_a_new_store_is_made(backend: SimpleNamespace, tmp_path: Path) -> None:
    for number in range(5):
        store = MemoryStore(tmp_path / str(number))
        looking = []
        for _ in range(50):
            looking.append(asyncio.ensure_future(store.asearch([1.0, 0.0])))
            await asyncio.sleep(0.0002)
        assert await asyncio.wait_for(asyncio.gather(*looking), 30) == [[]] * 50
        await asyncio.to_thread(store.close)


def test_ten_megabytes_are_kept(store: MemoryStore) -> None:
    text = "memory " * 1_500_000
    store.save([record(1, content=text)])
    found = store.get_record("r1")
    assert found is not None
    assert found.content == text


def test_the_nearest_come_first_with_crewais_scores(store: MemoryStore) -> None:
    store.save([record(n, embedding=unit(n)) for n in range(200)])
    query = unit(1000)

    def near(number: int) -> float:
        return sum(a * b for a, b in zip(query, unit(number), strict=True))

    expected = sorted(range(200), key=near, reverse=True)[:10]
    found = store.search(query)
    assert ids(found) == [f"r{number}" for number in expected]
    for (_, score), number in zip(found, expected, strict=True):
        assert score == pytest.approx(1 / (1 + 2 - 2 * near(number)), abs=1e-6)
    assert store.search(query, min_score=found[3][1]) == found[:4]
    assert store.search(query, limit=0) == []
    assert len(store.search(query, limit=1000)) == 200


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclid"])
def test_each_metric_ranks_by_its_definition(backend: SimpleNamespace, tmp_path: Path, metric: str) -> None:
    store = MemoryStore(tmp_path, metric=metric)
    vectors = {f"r{n}": [x * (1 + n % 7) for x in unit(n, 5)] for n in range(60)} | {"r60": [0.0] * 5}
    store.save([record(n, embedding=vectors[f"r{n}"]) for n in range(61)])
    query = [0.3, -2.0, 0.1, 0.0, 1.0]

    def near(vector: list[float]) -> float:
        product = math.fsum(a * b for a, b in zip(query, vector, strict=True))
        if metric == "dot":
            return product
        if metric == "euclid":
            return -math.dist(query, vector)
        lengths = math.hypot(*query) * math.hypot(*vector)
        return product / lengths if lengths else 0.0

    expected = sorted(vectors, key=lambda name: near(vectors[name]), reverse=True)
    assert ids(store.search(query, limit=61)) == expected
    assert ids(store.search(query, limit=5)) == expected[:5]
    assert all(0 <= score <= 1 for _, score in store.search(query, limit=61))
    store.close()


def test_filters_come_before_the_ranking(store: MemoryStore) -> None:
    """Ten of a thousand are wanted, and none of them is near."""
    vectors = sorted((unit(n, 4) for n in range(300)), key=lambda vector: vector[0], reverse=True)
    far = {n: vector for n, vector in enumerate(vectors) if n >= 290}
    store.save(
        [
            record(
                n,
                embedding=vector,
                scope="/far/away" if n in far else "/near",
                categories=["c", "rare"] if n in far else ["c"],
                metadata={"kind": {"deep": [1]}, "n": n} if n in far else {"n": n},
                source="ann" if n in far else None,
                private=n in far and n % 2 == 0,
            )
            for n, vector in enumerate(vectors)
        ]
    )
    query = [1.0, 0.0, 0.0, 0.0]
    wanted = [f"r{n}" for n in far]
    assert ids(store.search(query, scope_prefix="/far")) == wanted
    assert ids(store.search(query, categories=["none", "rare"])) == wanted
    assert ids(store.search(query, metadata_filter={"kind": {"deep": [True]}})) == wanted
    assert ids(store.search(query, newer_than=START + timedelta(minutes=290))) == wanted
    assert ids(store.search(query, metadata_filter={"n": 295.0, "kind": {"deep": [1.0]}})) == ["r295"]
    assert ids(store.search(query, metadata_filter={"kind": None}, limit=300)) == [f"r{n}" for n in range(290)]
    assert store.search(query, metadata_filter={"kind": math.nan}) == []
    assert store.search(query, scope_prefix="/f%") == []
    public = [f"r{n}" for n in far if n % 2]
    assert ids(store.search(query, scope_prefix="/far/", include_private=False)) == public
    assert ids(store.search(query, scope_prefix="/far", include_private=False, source="bob")) == public
    assert ids(store.search(query, scope_prefix="/far", include_private=False, source="ann")) == wanted
    early = store.search(query, older_than=START + timedelta(minutes=3))
    assert ids(early) == ["r0", "r1", "r2"]


def test_records_without_a_vector_are_kept_and_not_near_to_anything(store: MemoryStore) -> None:
    store.save([record(1), record(2, embedding=[]), record(3, embedding=[1.0, 0.0])])
    assert ids(store.search([1.0, 0.0])) == ["r3"]
    assert store.count() == 3
    found = store.get_record("r2")
    assert found is not None
    assert found.embedding is None


def test_an_update_takes_the_place_of_all_of_its_id(store: MemoryStore) -> None:
    store.save([record(1, embedding=[1.0, 0.0], categories=["old"]), record(1, embedding=[1.0, 0.0])])
    assert store.count() == 2
    store.update(record(1, content="new", embedding=[0.0, 1.0], scope="/b", categories=["new"]))
    assert [match.content for match, _ in store.search([1.0, 0.0])] == ["new"]
    assert store.list_categories() == {"new": 1}
    assert store.list_scopes("/") == ["/b"]
    store.update(record(2, embedding=[0.0, 1.0]))
    assert store.count() == 2


def test_touched_records_tell_when(store: MemoryStore) -> None:
    store.save([record(1), record(2)])
    store.touch_records(["r1", "none"])
    touched, left = store.get_record("r1"), store.get_record("r2")
    assert touched is not None
    assert left is not None
    assert touched.last_accessed > START == left.last_accessed


def test_lists_are_newest_first_in_pages(store: MemoryStore) -> None:
    store.save([record(n, scope="/a" if n % 3 else "/b") for n in range(20)])
    assert [found.id for found in store.list_records(limit=3, offset=1)] == ["r18", "r17", "r16"]
    assert [found.id for found in store.list_records("b", limit=3)] == ["r18", "r15", "r12"]
    assert [found.id for found in store.list_records("/b/", limit=300)] == [f"r{n}" for n in range(18, -1, -3)]
    assert store.list_records(limit=-1) == store.list_records(offset=-1) == store.list_records("/c") == []


def test_scopes_and_categories_are_counted(store: MemoryStore) -> None:
    scopes = ["/", "/a", "/a/b", "/a/b/c", "/ab", "/z/y"]
    store.save([record(n, scope=scope, categories=[f"c{n % 2}", "all"]) for n, scope in enumerate(scopes)])
    assert store.list_scopes() == ["/a", "/ab", "/z"]
    assert store.list_scopes("/a") == ["/a/b"]
    info = store.get_scope_info("/a/")
    assert (info.path, info.record_count, info.child_scopes) == ("/a", 4, ["/a/b"])
    assert (info.oldest_record, info.newest_record) == (record(1).created_at, record(4).created_at)
    assert info.categories == ["all", "c0", "c1"]
    everything = store.get_scope_info("/")
    assert (everything.record_count, everything.oldest_record) == (6, START)
    nothing = store.get_scope_info("/none")
    assert (nothing.record_count, nothing.newest_record, nothing.categories) == (0, None, [])
    assert (store.count(), store.count("/"), store.count("a/b")) == (6, 6, 2)
    assert store.list_categories("/a/b") == {"all": 2, "c0": 1, "c1": 1}
    store.delete(record_ids=["r2"])
    assert store.list_categories("/a/b") == {"all": 1, "c1": 1}


def test_deletions_take_what_they_name_and_no_more(store: MemoryStore) -> None:
    def fill() -> None:
        store.reset()
        store.save(
            [
                record(n, scope=["/", "/a", "/a/b"][n % 3], categories=[f"c{n % 2}"], metadata={"n": n % 4})
                for n in range(12)
            ]
        )

    def left() -> list[int]:
        return sorted(int(found.id[1:]) for found in store.list_records())

    fill()
    assert store.delete(record_ids=[]) == 0
    assert store.delete(record_ids=["r1", "r1", "none"], scope_prefix="/elsewhere") == 1
    assert store.delete(scope_prefix="a") == 7
    assert left() == [0, 3, 6, 9]
    assert store.delete(older_than=record(6).created_at) == 2
    assert left() == [6, 9]
    fill()
    assert store.delete(scope_prefix="/a", older_than=record(5).created_at) == 3
    assert left() == [0, 3, 5, 6, 7, 8, 9, 10, 11]
    assert store.delete(categories=["c0"], metadata_filter={"n": 2}) == 2
    assert left() == [0, 3, 5, 7, 8, 9, 11]
    assert store.delete(categories=["c1"], record_ids=["r3", "r8"]) == 1
    assert store.delete() == 6
    assert store.count() == 0


def test_a_reset_frees_the_length_of_vectors(store: MemoryStore) -> None:
    store.save([record(1, embedding=[1.0, 0.0]), record(2, embedding=[1.0, 0.0], scope="/a")])
    store.reset("/a")
    assert store.count() == 1
    with pytest.raises(EmbeddingDimensionMismatchError) as caught:
        store.save([record(3, embedding=[1.0] * 3)])
    assert (caught.value.stored_dim, caught.value.new_dim) == (2, 3)
    store.reset()
    store.save([record(3, embedding=[1.0] * 3)])
    assert ids(store.search([1.0, 1.0, 1.0])) == ["r3"]


def test_a_vector_of_whole_numbers_is_one_of_floats(store: MemoryStore) -> None:
    constructed = MemoryRecord.model_construct(**{**record(1).model_dump(), "embedding": [1, True, 2.5, -(2**60)]})
    store.save([constructed])
    assert store.list_records()[0].embedding == [1.0, 1.0, 2.5, -float(2**60)]


def test_bad_vectors_are_refused_by_name_before_anything_changes(store: MemoryStore) -> None:
    good = record(1, embedding=[1.0, 0.0])
    for vector in ([math.nan, 1.0], [1.0, math.inf], [1e300, 0.0]):
        with pytest.raises(ValueError, match=r"vector of record .r2. holds (nan|NaN|inf) at place"):
            store.save([good, record(2, embedding=vector)])
        with pytest.raises(ValueError, match="the query's vector holds"):
            store.search(vector)
    with pytest.raises(EmbeddingDimensionMismatchError):
        store.save([good, record(2, embedding=[1.0])])
    with pytest.raises(ValueError, match=r"65.?536"):
        store.save([record(2, embedding=[1.0] * 65_537)])
    for wrong_type in (["0.5", 1.0], [None, 1.0], [[1.0], 1.0]):
        constructed = MemoryRecord.model_construct(**{**good.model_dump(), "embedding": wrong_type})
        with pytest.raises(TypeError, match="must be real number"):
            store.save([good, constructed])
    with pytest.raises(TypeError):
        store.save([good, record(2, metadata={"set": {1}})])
    assert store.count() == 0
    store.save([good])
    for wrong in ([], [1.0, 2.0, 3.0]):
        with pytest.raises(EmbeddingDimensionMismatchError):
            store.search(wrong)
    with pytest.raises(EmbeddingDimensionMismatchError):
        store.update(record(1, embedding=[1.0]))
    assert store.list_records() == [good]


def test_texts_that_no_file_can_hold_are_refused_by_name(store: MemoryStore) -> None:
    for field in ("content", "scope", "source", "id"):
        broken = record(1).model_copy(update={field: "a\ud800"})
        with pytest.raises(ValueError, match=rf"{field} of record .* lone surrogate at place 1"):
            store.save([broken])
    assert store.count() == 0


def test_what_is_saved_is_there_for_the_next_store(store: MemoryStore) -> None:
    store.save([record(n, embedding=unit(n)) for n in range(20)])
    found = store.search(unit(3))
    store.close()
    again = MemoryStore(store.path)
    assert again.search(unit(3)) == found
    again.close()
    assert store.count() == 20  # a closed store opens again
    assert copy.deepcopy(store) is store


def test_both_backends_read_each_others_files(tmp_path: Path, backend: SimpleNamespace) -> None:
    """Written by one, read by the other, one after the other."""
    from fastcrew_async import runtime

    store = MemoryStore(tmp_path / "m")
    store.save([record(n, embedding=unit(n)) for n in range(30)])
    store.delete(record_ids=["r3"])
    expected = [(match.id, score) for match, score in store.search(unit(3))]
    store.close()
    other = _other(backend)
    twin = other.Memories(other.Runtime(), str(tmp_path / "m"), 1, 5.0)
    from fastcrew_async.memory import rows

    found = twin.search_sync("cosine", rows.vector(unit(3)), rows.wanted(None), 10, 0.0)
    assert [values["id"] for (values, _), _ in found] == [name for name, _ in expected]
    assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-6)
    twin.save_sync([rows.incoming(record(100, embedding=unit(3)))])
    twin.close_sync()
    assert runtime.get().closed is False
    assert ids(store.search(unit(3), limit=1)) == ["r100"]
    store.close()


def _other(backend: SimpleNamespace) -> SimpleNamespace:
    if backend.name == "rust":
        from fastcrew_async._fallback.memory import Memories
        from fastcrew_async._fallback.runtime import Runtime

        return SimpleNamespace(Memories=Memories, Runtime=Runtime)
    core = pytest.importorskip("fastcrew_async._core", reason="the compiled core is not built here")
    return SimpleNamespace(Memories=core.Memories, Runtime=core.Runtime)


async def test_the_async_half_is_the_same(store: MemoryStore) -> None:
    async def sync(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(call, *args, **kwargs)

    await store.asave([record(n, embedding=unit(n), scope="/a/b", categories=["c"]) for n in range(5)])
    found = await store.asearch(unit(2), limit=3)
    assert len(found) == 3
    assert found == await sync(store.search, unit(2), limit=3)
    await store.aupdate(record(2, content="new"))
    await store.atouch_records(["r2"])
    changed = await store.aget_record("r2")
    assert changed is not None
    assert changed.content == "new"
    assert changed.last_accessed > START
    assert await store.alist_records("/a") == await sync(store.list_records, "/a")
    assert await store.aget_scope_info("/a") == await sync(store.get_scope_info, "/a")
    assert await store.alist_scopes("/a") == ["/a/b"]
    assert await store.alist_categories() == {"c": 4}
    assert await store.acount() == 5
    assert await store.adelete(record_ids=["r1"]) == 1
    await store.areset("/a")
    assert await store.acount() == 1
    assert await store.alist_records(limit=0) == []
    await store.aclose()


def test_arguments_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="metric must be"):
        MemoryStore(tmp_path, metric="manhattan")
    with pytest.raises(ValueError, match="readers must be"):
        MemoryStore(tmp_path, readers=0)
    with pytest.raises(ValueError, match="busy_timeout must be"):
        MemoryStore(tmp_path, busy_timeout=-1)
    with pytest.raises(ValueError, match="path must be"):
        MemoryStore("")
