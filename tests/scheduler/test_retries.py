"""The contract of a run's retries, on the compiled core and on its Python twin."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastcrew_async._fallback.retries import Retries as InPython
from fastcrew_async._native import Retries as InUse


@pytest.fixture
def make(backend: Any) -> Any:
    return backend.Retries


def test_the_wait_doubles_up_to_the_longest(make: Any) -> None:
    retries = make(9, 1.0, 5.0, 99)
    assert [retries.failed(failures, 1.0) for failures in range(1, 6)] == [1, 2, 4, 5, 5]


def test_chance_takes_up_to_half_of_it_off(make: Any) -> None:
    retries = make(9, 4.0, 100.0, 99)
    assert [retries.failed(1, chance) for chance in (0.0, 0.5, 1.0)] == [2, 3, 4]


def test_the_last_attempt_has_no_other_and_costs_nothing(make: Any) -> None:
    retries = make(2, 1.0, 5.0, 9)
    assert (retries.failed(2, 0.0), retries.left) == (None, 9)
    assert (retries.failed(1, 0.0), retries.left) == (0.5, 8)


def test_the_budget_is_shared_by_threads_and_never_overdrawn(make: Any) -> None:
    retries = make(2, 1.0, 1.0, 300)
    with ThreadPoolExecutor(4) as threads:
        granted = list(threads.map(lambda _: retries.failed(1, 0.0), range(1000)))
    assert (sum(wait is not None for wait in granted), retries.left) == (300, 0)


def test_many_failures_are_no_overflow(make: Any) -> None:
    assert make(2**32 - 1, 1.0, 30.0, 9).failed(2**32 - 2, 1.0) == 30


@given(
    st.integers(1, 6),
    st.floats(0, 100),
    st.floats(0, 100),
    st.integers(0, 12),
    st.lists(st.tuples(st.integers(1, 8), st.floats(0, 1)), max_size=20),
)
def test_both_give_the_same(
    attempts: int, backoff: float, longest: float, budget: int, failures: list[tuple[int, float]]
) -> None:
    twins = [kind(attempts, backoff, longest, budget) for kind in (InPython, InUse)]
    for count, chance in failures:
        first, second = (twin.failed(count, chance) for twin in twins)
        assert first == pytest.approx(second)
    assert twins[0].left == twins[1].left
