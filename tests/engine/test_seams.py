from __future__ import annotations

import threading
from typing import Any

import pytest

from fastcrew_async.engine.effects import Effect
from fastcrew_async.engine.seams import OURS, Pair, Theirs, replaced


class Stock:
    def run(self, value: str) -> str:
        raise AssertionError("CrewAI's own must not be called")

    async def arun(self, value: str) -> str:
        raise AssertionError("CrewAI's own must not be called")


PAIR = Pair.of(Stock, "run", "arun")


class SyncOnly(Stock):
    def run(self, value: str) -> str:
        return f"{value} by sync on {threading.current_thread() is threading.main_thread()}"


class AsyncOnly(Stock):
    async def arun(self, value: str) -> str:
        return f"{value} by async"


class Both(SyncOnly, AsyncOnly):
    pass


def theirs(owner: Any) -> Effect:
    return Theirs(owner, PAIR, "x")


async def test_crewais_own_is_ours() -> None:
    assert theirs(Stock()).perform() is OURS
    assert await theirs(Stock()).aperform() is OURS


@pytest.mark.parametrize(
    ("cls", "in_place", "on_loop"),
    [
        (SyncOnly, "x by sync on True", "x by sync on False"),
        (AsyncOnly, OURS, "x by async"),
        (Both, "x by sync on True", "x by async"),
    ],
)
async def test_a_subclass_that_overrides_is_called(cls: type, in_place: Any, on_loop: Any) -> None:
    assert theirs(cls()).perform() == in_place
    assert await theirs(cls()).aperform() == on_loop


async def test_an_attribute_of_one_object_is_called() -> None:
    owner, other = Stock(), Stock()
    owner.run = lambda value: f"{value} by attribute"  # type: ignore[method-assign]
    assert theirs(owner).perform() == "x by attribute"
    assert await theirs(owner).aperform() == "x by attribute"
    assert theirs(other).perform() is OURS


async def test_a_patched_class_is_called_until_the_patch_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    owner = Stock()
    with monkeypatch.context() as patch:
        patch.setattr(Stock, "run", lambda self, value: f"{value} by patch")
        assert theirs(owner).perform() == "x by patch"
        assert await theirs(owner).aperform() == "x by patch"
    assert theirs(owner).perform() is OURS


def test_replaced() -> None:
    assert not replaced(Stock(), "run", PAIR.sync)
    assert replaced(SyncOnly(), "run", PAIR.sync)
    assert replaced(object(), "run", PAIR.sync)
