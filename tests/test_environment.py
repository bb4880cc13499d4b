"""The variables of the environment, and what may be given for settings."""

from __future__ import annotations

import math
from typing import Any

import pytest

from fastcrew_async import Limit, Limits, Retry, ToolPolicy, config, configure, environment, settings


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "_settings", None)


NOT_SECONDS: list[Any] = [math.nan, math.inf, -math.inf, -1, 10**400, 1e308, True, "5", None, [], 1j]


@pytest.mark.parametrize("value", NOT_SECONDS)
def test_what_is_no_number_of_seconds(value: Any) -> None:
    assert not environment.is_seconds(value)


@pytest.mark.parametrize("value", [0, -1, 1.0, math.nan, 2**53, 10**400, True, "5", None])
def test_what_is_no_whole_number(value: Any) -> None:
    assert not environment.is_whole(value, 1)


@pytest.mark.parametrize("value", ["", " \t", "half \ud800", 5, None, b"x"])
def test_what_is_no_name(value: Any) -> None:
    assert not environment.is_name(value)


def test_what_is_none_of_these() -> None:
    assert environment.is_seconds(0)
    assert environment.is_seconds(0.5)
    assert environment.is_whole(2**53 - 1, 1)
    assert environment.is_name("Zürich 1")


@pytest.mark.parametrize(
    "given",
    [
        lambda: ToolPolicy(timeout=10**400),
        lambda: ToolPolicy(cache_ttl=1e308),
        lambda: ToolPolicy(concurrency=2**64),
        lambda: Retry(backoff=10**400),
        lambda: Retry(longest=-(10**400)),
        lambda: Limit(window=10**400),
        lambda: Limit(concurrent=2**53),
        lambda: Limits(keys={"model:": Limit()}),
        lambda: Limits(keys={"kickoffs: ": Limit()}),
        lambda: Limits(keys={"model:\ud800": Limit()}),
        lambda: Limits(tool=Limit(tokens=5)),
        lambda: Limits(keys={"kickoffs": Limit(tokens=5)}),
        lambda: configure(replay_runs=2**64),
        lambda: configure(tool_cache_bytes=2**64),
        lambda: configure(tool_timeout=10**400),
        lambda: configure(storage_path="a\0b"),
        lambda: configure(tools={" ": ToolPolicy()}),
    ],
)
def test_values_that_would_fail_later_are_refused_where_they_are_given(given: Any) -> None:
    before = settings()
    with pytest.raises(ValueError, match=r"must be|is not|limits nothing") as refused:
        given()
    assert not isinstance(refused.value, UnicodeError)
    assert settings() is before


@pytest.mark.parametrize("name", [environment.WORKERS, environment.ABANDONED])
@pytest.mark.parametrize("text", ["many", "1.5", "nan", "-5", "9" * 30])
def test_the_size_of_the_worker_pool_is_looked_at_with_the_settings(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(ValueError, match=r"use a whole number of . to 1,000,000|set a whole number") as refused:
        settings()
    assert name in str(refused.value)
    assert text in str(refused.value)


def test_a_value_out_of_range_is_told_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTCREW_ASYNC_MAX_DEPTH", "0")
    with pytest.raises(ValueError, match="FASTCREW_ASYNC_MAX_DEPTH: max_depth=0 is out of range"):
        settings()


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("FASTCREW_ASYNC_MAX_DEPHT", "FASTCREW_ASYNC_MAX_DEPTH"),
        ("FASTCREW_ASYNC_LIMIT", "FASTCREW_ASYNC_LIMITS"),
        ("FASTCREW_ASYNC_WORKERS", "FASTCREW_ASYNC_MAX_WORKERS"),
        ("FASTCREW_ASYNC_BACKENDS", "FASTCREW_ASYNC_BACKEND"),
    ],
)
def test_a_misspelt_variable_is_refused_with_the_right_name(
    name: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(ValueError, match=f"{name} is not read by anything: did you mean {meant}"):
        settings()


def test_a_variable_of_other_programs_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTCREW_ASYNC_TEST_LOOP", "asyncio")
    monkeypatch.setenv("FASTCREW_ASYNC_PORT", "80")
    settings()
    assert environment.unknown(config.VARIABLES.values())[0] == "FASTCREW_ASYNC_PORT"
