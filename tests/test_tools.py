"""What may be set for a tool, and what is counted of it."""

from __future__ import annotations

from typing import Any

import pytest

from fastcrew_async import ToolPolicy, config, configure, tools


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "_settings", None)
    monkeypatch.setattr(tools, "_tallies", {})


@pytest.mark.parametrize("field", ["timeout", "cache_ttl"])
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "5", True])
def test_what_is_no_number_of_seconds_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{field}=.* is not a number of seconds; use a number above 0, or "):
        ToolPolicy(**{field: value})


@pytest.mark.parametrize("value", [0, -1, 1.5, "5", True])
def test_what_is_no_number_of_calls_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"concurrency=.* is not a whole number of 1 or more; use None for no limit"):
        ToolPolicy(concurrency=value)


@pytest.mark.parametrize("wrong", [None, 5, [], {"search": {"timeout": 5}}, {1: ToolPolicy()}])
def test_what_is_no_mapping_to_policies_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r'use \{"name of the tool": ToolPolicy\(timeout=10\)\}'):
        configure(tools=wrong)
    assert config.settings().tools == {}


@pytest.mark.parametrize("name", ["tool_cache_entries", "tool_cache_bytes"])
def test_a_wrong_size_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}=-1 is not a whole number of 0 or more"):
        configure(**{name: -1})


def test_a_wrong_timeout_for_all_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTCREW_ASYNC_TOOL_TIMEOUT", "-3")
    with pytest.raises(ValueError, match=r"tool_timeout=-3\.0 is not a number of seconds"):
        config.settings()


def test_a_change_of_the_given_mapping_changes_nothing() -> None:
    given = {"search": ToolPolicy(timeout=5)}
    configure(tools=given)
    given.clear()
    assert config.settings().tools == {"search": ToolPolicy(timeout=5)}


def test_calls_are_counted_by_name() -> None:
    tools.count("search", 0.5)
    tools.count("search", 1.0, error=True)
    tools.count("search", 0.25, timeout=True, abandoned=True)
    tools.count("read", 0.0, cache_hit=True)
    assert tools.stats() == {
        "search": {"calls": 3, "errors": 1, "timeouts": 1, "cache_hits": 0, "abandoned": 1, "seconds": 1.75},
        "read": {"calls": 1, "errors": 0, "timeouts": 0, "cache_hits": 1, "abandoned": 0, "seconds": 0.0},
    }


def test_names_made_up_at_run_time_do_not_fill_the_memory() -> None:
    for number in range(tools._MOST_NAMES + 10):
        tools.count(f"tool {number}", 0.0)
    assert len(tools.stats()) == tools._MOST_NAMES
    assert f"tool {tools._MOST_NAMES + 9}" in tools.stats()
