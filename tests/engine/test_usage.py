"""What a model call is expected to take, and what it took."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fastcrew_async.engine import usage


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 13}, (13, 7)),
        ({"input_tokens": 5, "output_tokens": 7}, (12, 7)),
        ({"total_tokens": 13}, (13, 0)),
        ({"output_tokens": 7}, (7, 7)),
        ({"total_tokens": -1}, None),
        ({"total_tokens": "many"}, None),
        ({}, None),
        (None, None),
    ],
)
def test_of_the_fields_of_an_answer(fields: Any, found: Any) -> None:
    assert usage.of_fields(fields) == found


def test_of_a_body() -> None:
    """What the model itself has written of tokens does not count, nor the parts of a part."""
    written = b'{"choices": [{"content": "{\\"usage\\": {\\"total_tokens\\": 9999}}", "n": {"total_tokens": 8888}}],'
    assert usage.of_body(written + b' "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}}') == (
        12,
        7,
    )
    details = b'"completion_tokens_details": {"reasoning_tokens": 3}'
    assert usage.of_body(b'{"usage":{"input_tokens":5,"output_tokens":7,' + details + b"}}") == (12, 7)
    assert usage.of_body(b'{"choices": []}') is None
    assert usage.of_body(b"") is None


def test_expected() -> None:
    messages = [{"role": "user", "content": "x" * 400}, {"role": "user", "content": None}]
    assert usage.expected(SimpleNamespace(), messages, None, 50.0) == 151
    assert usage.expected(SimpleNamespace(max_tokens=1000), "x" * 400, None, 50.0) == 1101
    assert usage.expected(SimpleNamespace(max_tokens=10**30), "", None, 50.0) == 2**50
    assert usage.expected(SimpleNamespace(), "", [{"name": "search"}], 0.0) > 4


def counted(total: int, answers: int) -> dict[str, int]:
    return {"total_tokens": total, "completion_tokens": answers}


def test_of_a_counter() -> None:
    counters = usage.Counters()
    llm = SimpleNamespace(_token_usage=counted(100, 10))
    assert counters.end(llm) is None
    counters.begin(llm)
    counters.begin(llm)
    llm._token_usage.update(counted(130, 20))
    assert counters.end(llm) == (30, 10)
    assert counters.end(llm) is None
    llm._token_usage = counted(0, 0)  # a new run on the same copy
    counters.begin(llm)
    llm._token_usage.update(counted(7, 3))
    assert counters.end(llm) == (7, 3)
    copy = SimpleNamespace(_token_usage=llm._token_usage)  # that counts with the original
    counters.begin(copy)
    llm._token_usage.update(counted(9, 4))
    assert counters.end(copy) == (2, 1)
    assert counters.end(llm) is None
    assert counters.end(SimpleNamespace()) is None
    counters.begin(SimpleNamespace())


def test_counters_that_are_no_longer_used_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "_MOST_COUNTERS", 2)
    counters = usage.Counters()
    models = [SimpleNamespace(_token_usage=counted(0, 0)) for _ in range(3)]
    for llm in models:
        counters.begin(llm)
        llm._token_usage.update(counted(5, 1))
    assert [counters.end(llm) for llm in models] == [None, (5, 1), (5, 1)]
