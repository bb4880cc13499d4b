"""The result cache's contract, on the compiled core and on its Python twin."""

from __future__ import annotations

import json
import time
from enum import Enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastcrew_async._fallback.result_cache import canonical as in_python


@pytest.fixture
def make(backend: Any) -> Any:
    return backend.ResultCache


def keep(cache: Any, key: str, value: bytes, ttl: float = 60) -> None:
    state, ticket = cache.claim(key)
    assert state == "lead"
    assert cache.settle(key, ticket, value, ttl) == []


def has(cache: Any, key: str) -> bool:
    state, ticket = cache.claim(key)
    if state == "lead":
        cache.leave(key, ticket)
    return bool(state == "hit")


def test_a_result_is_kept(make: Any) -> None:
    cache = make(8, 1000)
    keep(cache, "a", b"tea")
    assert cache.claim("a") == ("hit", b"tea")
    assert cache.stats() == {"entries": 1, "bytes": 4, "evicted": 0}
    assert not has(cache, "b")
    cache.clear()
    assert not has(cache, "a")
    assert cache.stats() == {"entries": 0, "bytes": 0, "evicted": 0}


def test_it_is_forgotten_after_its_time(make: Any) -> None:
    cache = make(8, 1000)
    keep(cache, "a", b"tea", 0.02)
    keep(cache, "b", b"tea", 0)
    assert not has(cache, "b")
    time.sleep(0.03)
    assert not has(cache, "a")
    assert cache.stats()["bytes"] == 0


def test_the_least_recently_used_goes_first(make: Any) -> None:
    cache = make(2, 1000)
    keep(cache, "a", b"1")
    keep(cache, "b", b"2")
    assert has(cache, "a")
    keep(cache, "c", b"3")
    assert (has(cache, "a"), has(cache, "b"), has(cache, "c")) == (True, False, True)
    assert cache.stats() == {"entries": 2, "bytes": 4, "evicted": 1}


def test_bytes_are_bounded_and_one_too_large_is_not_kept(make: Any) -> None:
    cache = make(100, 10)
    for key in "abcd":
        keep(cache, key, b"1234")
    assert cache.stats() == {"entries": 2, "bytes": 10, "evicted": 2}
    keep(cache, "é", b"123456789")
    assert not has(cache, "é")
    assert cache.stats()["entries"] == 2
    nothing = make(0, 10)
    keep(nothing, "a", b"1")
    assert not has(nothing, "a")


def test_one_leads_and_the_others_are_told(make: Any) -> None:
    cache = make(8, 1000)
    (_, leader), (one, first), (other, second) = (cache.claim("a") for _ in range(3))
    assert (one, other) == ("wait", "wait")
    assert cache.claim("b")[0] == "lead"
    assert cache.settle("a", leader, b"tea", 60) == [first, second]
    assert cache.settle("a", leader, b"again", 60) == []
    assert cache.claim("a") == ("hit", b"tea")


def test_nothing_to_keep_lets_the_others_go(make: Any) -> None:
    cache = make(8, 1000)
    (_, leader), (_, waiter) = cache.claim("a"), cache.claim("a")
    assert cache.settle("a", leader, None, 60) == [waiter]
    assert cache.claim("a")[0] == "lead"


def test_a_leader_that_leaves_hands_over_to_the_first(make: Any) -> None:
    cache = make(8, 1000)
    (_, leader), (_, first), (_, second), (_, third) = (cache.claim("a") for _ in range(4))
    assert cache.leave("a", second) is None
    assert cache.leave("a", leader) == first
    assert cache.leave("a", leader) is None
    assert cache.settle("a", leader, b"late", 60) == []
    assert cache.settle("a", first, b"tea", 60) == [third]
    assert cache.leave("a", first) is None


@pytest.mark.parametrize("ttl", [-1.0, float("nan"), float("inf")])
def test_a_wrong_time_is_refused(make: Any, ttl: float) -> None:
    cache = make(8, 1000)
    _, leader = cache.claim("a")
    with pytest.raises(ValueError, match="is not a number of seconds"):
        cache.settle("a", leader, b"1", ttl)


class Colour(str, Enum):
    RED = "red"


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": {"y": [1], "x": None}}, {"a": {"x": None, "y": [1]}}, True),
        ({"a": 1}, {"a": "1"}, False),
        ({"a": 1}, {"a": 1.0}, False),
        ({"a": 1}, {"a": True}, False),
        ({"a": None}, {"a": "null"}, False),
        ({"a": None}, {}, False),
        ({"a": "x\ny"}, {"a": "x\\ny"}, False),
        ({'a":"b': "c"}, {"a": "b", "c": ""}, False),
        ({"a": [1, 2]}, {"a": [2, 1]}, False),
        ({"a": "é"}, {"a": "e\u0301"}, False),
        ({"a": 0.1}, {"a": 0.1}, True),
    ],
)
def test_the_same_text_for_the_same_arguments_only(backend: Any, one: Any, other: Any, same: bool) -> None:
    assert (backend.canonical(one) == backend.canonical(other)) is same


@pytest.mark.parametrize(
    "odd",
    [
        {1: "a"},
        {"a": object()},
        {"a": b"x"},
        {"a": (1,)},
        {"a": Colour.RED},
        {Colour.RED: 1},
        {"a": float("nan")},
        {"a": float("inf")},
        {"a": "\ud800"},
        {"\ud800": 1},
        {"a": 10**5000},
        deep(1000),
        "\udfff",
        object(),
    ],
    ids=range(14),
)
def test_what_is_no_plain_json_has_no_text(backend: Any, odd: Any) -> None:
    assert backend.canonical(odd) is None


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(plain)
def test_both_write_the_same_and_it_reads_back(value: Any) -> None:
    core = pytest.importorskip("fastcrew_async._core", reason="the compiled core is not built here")
    text = core.canonical(value)
    assert text == in_python(value)
    assert json.loads(text) == value
