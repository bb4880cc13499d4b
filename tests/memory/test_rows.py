"""Records on their way to the store and back: what is told quickly is told as the slow way tells it."""

from __future__ import annotations

import copy
import json
import math
import pickle
from array import array
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from crewai.memory.types import MemoryMatch, MemoryRecord

from fastcrew_async.memory import rows, tags
from fastcrew_async.memory.store import MemoryStore


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"k": 7, "name": 'a "quoted" text\n', "ü": "ö\ud800", "huge": 10**30, "": ""},
        {"k": 7, "flag": True, "none": None, "share": 0.5},
        {"nested": {"a": [1, "b", None]}, "k": 1},
        {1: "an int for a key"},
    ],
)
def test_metadata_is_told_as_json_dumps_tells_it(metadata: dict[Any, Any]) -> None:
    text, named = rows._metadata(metadata)
    assert text == json.dumps(metadata)
    assert named == tags.of_metadata(json.loads(text))


def test_a_list_becomes_the_numbers_that_an_array_has() -> None:
    given = [0.1, -3.0, 7, True, 1e-46, 1e39, -math.inf]
    assert rows.vector(given) == array("f", given).tobytes()
    assert rows.vector(tuple(given)) == rows.vector(given)
    assert rows.vector([]) == b""


@pytest.mark.parametrize("wrong", ["0.5", None, [1.0]])
def test_a_list_with_what_is_no_number_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="must be real number"):
        rows.vector([0.5, wrong])


def given() -> MemoryRecord:
    return MemoryRecord(
        content="a text",
        categories=["a", 'b "c"'],
        metadata={"k": [1, None], "ü": "ö"},
        source="me",
        embedding=[0.5, 1.0],
    )


def test_a_record_is_told_in_what_the_core_takes() -> None:
    record = given()
    identity, content, scope, categories, metadata, _, _, times, owner, packed = rows.incoming(record)
    assert (identity, content, scope) == (record.id, "a text", "/")
    assert (json.loads(categories), json.loads(metadata)) == (record.categories, record.metadata)
    assert times == (rows.microseconds(record.created_at), rows.microseconds(record.last_accessed), None)
    assert (owner, packed) == (("me", False), [0.5, 1.0])


def test_a_record_comes_back_as_it_went(store: MemoryStore) -> None:
    record = given()
    store.save([record])
    (first,), (second,) = store.list_records(), store.list_records()
    assert first == second == record
    # Nothing of a record is another's.
    first.categories.append("more")
    first.metadata["k"] = 2
    first.model_fields_set.discard("id")
    assert second == record
    assert "id" in second.model_fields_set


LOOKS: dict[str, Callable[[MemoryRecord], Any]] = {
    "fields that are set": lambda record: record.model_fields_set,
    "more fields": lambda record: (record.model_extra, record.__pydantic_extra__),
    "private attributes": lambda record: record.__pydantic_private__,
    "dump": MemoryRecord.model_dump,
    "JSON": MemoryRecord.model_dump_json,
    "of what is set": lambda record: record.model_dump(exclude_unset=True),
    "in a match": lambda record: MemoryMatch(record=record, score=1.0).model_dump_json(),
    "text": lambda record: (repr(record), str(record)),
    "pairs": lambda record: dict(record),
    "copies": lambda record: [record.model_copy(), record.model_copy(deep=True), copy.copy(record)],
    "a changed copy": lambda record: record.model_copy(update={"content": "another"}).model_dump(),
    "pickled": lambda record: pickle.loads(pickle.dumps(record)),
    "changed": lambda record: (setattr(record, "content", "another"), record.model_dump()),
    "what is not there": lambda record: getattr(record, "missing", "nothing"),
}


@pytest.mark.parametrize("look", LOOKS)
def test_a_record_that_was_found_is_one_like_any_other(store: MemoryStore, look: str) -> None:
    store.save([given().model_copy(update={"id": "a"})])
    (found,) = store.list_records()
    made = MemoryRecord(**{name: getattr(store.list_records()[0], name) for name in MemoryRecord.model_fields})
    assert LOOKS[look](found) == LOOKS[look](made)
    assert found == made
    assert found.embedding == [0.5, 1.0]


@pytest.mark.parametrize(
    "metadata",
    [
        {
            "k": 7,
            "name": "Ann, of {the} [house]: \u00fc",
            "": "",
            "share": 0.1,
            "less": -1e-300,
            "none": None,
            "on": True,
        },
        {"huge": 10**30, "negative": -(2**63), "whole": 1.0, "small": 5e-324, "large": 1.7976931348623157e308},
        {"quote": '"', "escape": "\\", "line": "a\nb", "surrogate": "\ud800", "nul": "\x00"},
        {"infinite": math.inf, "list": [1, {"a": []}], "object": {"a": {}}},
        {'a "key"': {}, "k": "v"},
    ],
)
def test_metadata_comes_back_as_json_tells_it(store: MemoryStore, metadata: dict[str, Any]) -> None:
    store.save([MemoryRecord(content="a", metadata=metadata, categories=[key for key in metadata if key])])
    (found,) = store.list_records()
    assert repr(found.metadata) == repr(json.loads(json.dumps(metadata)))
    assert found.categories == [key for key in metadata if key]


@pytest.mark.parametrize("zone", [None, timezone.utc, timezone(timedelta(hours=-3, seconds=7))])
def test_times_come_back_with_their_zones(store: MemoryStore, zone: timezone | None) -> None:
    for time in (datetime(2024, 2, 29, 12, tzinfo=zone), datetime(1, 1, 2, 3, 4, 5, 6, tzinfo=zone)):
        store.save([MemoryRecord(id="a", content="a", created_at=time, last_accessed=time)])
        assert (store.list_records()[0].created_at, store.list_records()[0].last_accessed) == (time, time)
        assert store.list_records()[0].created_at.tzinfo == zone
        store.reset()


def test_now_is_in_utc_and_without_a_zone() -> None:
    before = datetime.now(timezone.utc)
    assert before <= rows.now().replace(tzinfo=timezone.utc) <= datetime.now(timezone.utc)
    assert rows.now().tzinfo is None
