"""Records on their way to the store and back: what is told quickly is told as the slow way tells it."""

from __future__ import annotations

import json
import math
from array import array
from typing import Any

import pytest
from crewai.memory.types import MemoryRecord

from fastcrew_async.memory import rows, tags


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


def test_a_record_comes_back_as_it_went() -> None:
    given = MemoryRecord(
        content="a text",
        categories=["a", 'b "c"'],
        metadata={"k": [1, None], "ü": "ö"},
        source="me",
        embedding=[0.5, 1.0],
    )
    identity, content, scope, categories, metadata, _, importance, times, owner, packed = rows.incoming(given)
    assert times[2] is None
    created, accessed = (given.created_at.isoformat(), given.last_accessed.isoformat())
    row = identity, content, scope, categories, metadata, importance, created, accessed, *owner, packed
    assert packed == [0.5, 1.0]
    row = *row[:-1], rows.vector(packed)
    first, second = rows.outgoing(row), rows.outgoing(row)
    assert first == second == given
    assert first.model_dump() == given.model_dump()
    assert first.embedding == given.embedding
    # Nothing of a record is another's.
    first.categories.append("more")
    first.metadata["k"] = 2
    first.model_fields_set.discard("id")
    assert second == given
    assert "id" in second.model_fields_set
