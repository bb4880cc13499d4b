from __future__ import annotations

import functools
import subprocess
import sys
from typing import Any
from unittest.mock import MagicMock

import pytest
from crewai.memory import recall_flow
from crewai.memory.unified_memory import Memory

from fastcrew_async.engine.memory_flow import MemoryFlow
from fastcrew_async.engine.seams import stock_methods

FLOW = MemoryFlow("crewai.memory.recall_flow", "RecallFlow", "__init__", "_do_search", "search_chunks")


async def test_as_crewai_made_it() -> None:
    assert await FLOW.in_place()


@pytest.mark.parametrize("step", ["__init__", "_do_search", "search_chunks"])
@pytest.mark.parametrize("how", ["mock", "wrapped", "own"])
async def test_a_replaced_method_is_noticed_whenever_it_was_replaced(
    step: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock = getattr(recall_flow.RecallFlow, step)

    def own(*args: Any, **kwargs: Any) -> Any:
        return stock(*args, **kwargs)

    method: Any = {"mock": MagicMock(), "wrapped": functools.wraps(stock)(own), "own": own}[how]
    monkeypatch.setattr(recall_flow.RecallFlow, step, method)
    assert not await FLOW.in_place()
    monkeypatch.undo()
    assert await FLOW.in_place()


@pytest.mark.parametrize("kind", [type("Mine", (recall_flow.RecallFlow,), {}), MagicMock()])
async def test_a_replaced_class_is_noticed(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall_flow, "RecallFlow", kind)
    assert not await FLOW.in_place()


def test_what_was_patched_before_it_was_taken_is_not_crewais(monkeypatch: pytest.MonkeyPatch) -> None:
    stock = Memory.recall
    monkeypatch.setattr(Memory, "recall", functools.wraps(stock)(lambda *args, **more: stock(*args, **more)))
    taken = stock_methods(Memory, "recall", "forget")
    memory = Memory.model_construct()
    assert taken.has(memory, "forget")
    assert not taken.has(memory, "recall")


def test_the_engine_is_imported_without_the_flows() -> None:
    program = (
        "import sys; import crewai; before = set(sys.modules); from fastcrew_async import AsyncCrew; "
        "print([name for name in sys.modules if name not in before and name.startswith('crewai.memory')])"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
