from __future__ import annotations

from pathlib import Path

import pytest

from fastcrew_async import config
from fastcrew_async.config import Settings, configure, settings

VARIABLES = ("FASTCREW_ASYNC_SLICE_SECONDS", "FASTCREW_ASYNC_COLLECTOR", "FASTCREW_ASYNC_REPLAY_RUNS")


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(config, "_settings", None)


def test_defaults() -> None:
    assert settings() == Settings(slice_seconds=0.002, collector_policy=True, replay_runs=1000, storage_path=None)


def test_the_environment_is_read_at_the_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTCREW_ASYNC_SLICE_SECONDS", "0")
    monkeypatch.setenv("FASTCREW_ASYNC_COLLECTOR", "off")
    monkeypatch.setenv("FASTCREW_ASYNC_REPLAY_RUNS", "7")
    assert settings() == Settings(slice_seconds=0.0, collector_policy=False, replay_runs=7)
    monkeypatch.setenv("FASTCREW_ASYNC_REPLAY_RUNS", "8")
    assert settings().replay_runs == 7


@pytest.mark.parametrize("name", VARIABLES)
def test_an_empty_variable_is_an_unset_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, " ")
    assert settings() == Settings()


@pytest.mark.parametrize(("text", "on"), [("1", True), ("TRUE", True), ("yes", True), ("0", False), ("no", False)])
def test_switches(text: str, on: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTCREW_ASYNC_COLLECTOR", text)
    assert settings().collector_policy is on


@pytest.mark.parametrize(
    ("name", "text", "fix"),
    [
        ("FASTCREW_ASYNC_SLICE_SECONDS", "quick", "set a number"),
        ("FASTCREW_ASYNC_COLLECTOR", "perhaps", "use 1 or 0"),
        ("FASTCREW_ASYNC_REPLAY_RUNS", "many", "whole number"),
        ("FASTCREW_ASYNC_REPLAY_RUNS", "1.5", "whole number"),
        ("FASTCREW_ASYNC_REPLAY_RUNS", "inf", "whole number"),
        ("FASTCREW_ASYNC_REPLAY_RUNS", "-1", "use 0 to store nothing"),
        ("FASTCREW_ASYNC_SLICE_SECONDS", "11", "use 0 to 10 seconds"),
        ("FASTCREW_ASYNC_SLICE_SECONDS", "nan", "use 0 to 10 seconds"),
    ],
)
def test_bad_variables_name_the_value_and_the_fix(
    name: str, text: str, fix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(ValueError, match=fix) as raised:
        settings()
    assert text in str(raised.value)
    monkeypatch.delenv(name)
    assert settings() == Settings()


def test_configure_changes_some_and_keeps_the_others() -> None:
    configure(replay_runs=3)
    assert configure(storage_path=Path("here")) is settings()
    assert settings() == Settings(replay_runs=3, storage_path=Path("here"))


def test_a_path_may_be_text() -> None:
    assert configure(storage_path="here").storage_path == Path("here")


@pytest.mark.parametrize(
    "change",
    [
        {"replay_runs": -1},
        {"replay_runs": True},
        {"replay_runs": "5"},
        {"slice_seconds": -1},
        {"slice_seconds": "5"},
        {"collector_policy": "off"},
        {"refuse_repeats": 1},
        {"storage_path": 7},
        {"storage_path": ""},
    ],
)
def test_values_out_of_range_change_nothing(change: dict[str, object]) -> None:
    before = settings()
    with pytest.raises(ValueError, match=f"{next(iter(change))}={next(iter(change.values()))!r}"):
        configure(**change)
    assert settings() is before


def test_unknown_settings_are_named_with_the_known_ones() -> None:
    with pytest.raises(TypeError, match=r"unknown setting 'slice'; .*slice_seconds") as raised:
        configure(slice=1)
    assert "storage_path" in str(raised.value)
