"""The contract of a call's frame, on the compiled core and on its Python twin."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from fastcrew_async.errors import FastcrewError, ToolRecursionError


@pytest.fixture
def make(backend: Any) -> Any:
    return backend.CallFrame


def nested(make: Any, names: list[str], limit: int = 100) -> Any:
    frame = None
    for name in names:
        frame = make(frame, "tool", name, None, limit)
    return frame


def test_a_chain_is_listed_from_the_outermost_call(make: Any) -> None:
    crew = make(None, "crew", "staff", None, 9)
    tool = make(crew, "tool", "search", None, 9)
    assert (crew.depth, tool.depth) == (1, 2)
    assert tool.chain() == [("crew", "staff"), ("tool", "search")]


def test_past_the_limit_the_chain_is_named(make: Any) -> None:
    assert nested(make, ["a", "b", "c"], 3).depth == 3
    with pytest.raises(ToolRecursionError) as refused:
        nested(make, ["a", "b", "c", "d"], 3)
    assert str(refused.value) == "4 nested calls are more than max_depth=3 allows: a > b > c > d"
    assert isinstance(refused.value, FastcrewError)
    assert isinstance(refused.value, RecursionError)


def test_the_middle_of_a_long_chain_is_left_out(make: Any) -> None:
    with pytest.raises(ToolRecursionError, match=r": 0 > 1 > 2 > 3 > 4 > \(3 more\) > 8 > 9 > 10 > 11 > 12$"):
        nested(make, [str(number) for number in range(13)], 12)


def test_the_same_call_further_up_is_refused_and_one_beside_it_is_not(make: Any) -> None:
    first = make(None, "tool", "search", '{"q": 1}', 9)
    between = make(first, "tool", "other", '{"q": 1}', 9)
    make(between, "tool", "search", '{"q": 2}', 9)
    make(between, "tool", "search", None, 9)
    make(None, "tool", "search", '{"q": 1}', 9)
    with pytest.raises(
        ToolRecursionError, match="search is called with the same arguments as further up the chain: search > other > s"
    ):
        make(between, "tool", "search", '{"q": 1}', 9)


def test_what_a_call_has_left_running_is_not_nested_in_it(make: Any) -> None:
    crew = make(None, "crew", "staff", None, 9)
    tool = make(crew, "tool", "search", "{}", 9)
    tool.end()
    left = make(tool, "tool", "search", "{}", 9)
    assert left.depth == 2
    assert left.chain() == [("crew", "staff"), ("tool", "search")]
    crew.end()
    assert left.chain() == [("tool", "search")]
    assert make(crew, "crew", "next", None, 9).depth == 1


def test_a_very_long_chain_goes_on_a_small_stack(make: Any) -> None:
    depths: list[int] = []

    def work() -> None:
        frame = nested(make, ["n"] * 50_000, 50_000)
        depths.append(frame.depth)
        del frame

    before = threading.stack_size(256 * 1024)
    try:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(60)
    finally:
        threading.stack_size(before)
    assert depths == [50_000]
