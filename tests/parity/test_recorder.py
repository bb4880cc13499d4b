"""The recorder itself: two recordings of stock CrewAI are equal, so what is compared is deterministic."""

from __future__ import annotations

import os

import pytest

from . import cases
from .case import Case
from .cases.building import solo
from .compare import differences
from .models import final
from .recording import record, stock_recording
from .ways import STOCK, Way, stock_way

# The other ways take as long again and share the engine, so they are checked when the table changes.
WAYS = None if os.environ.get("PARITY_ALL_STOCK") else ("akickoff", "kickoff_async", "akickoff_for_each")


def stock_runs() -> list[tuple[Case, Way]]:
    return [
        (case, way)
        for case in cases.ALL
        for way in STOCK[case.kind]
        if (WAYS is None or (way.name in WAYS and not (case.kind == "crew" and way.name == "kickoff_async")))
        and way.name not in dict(case.not_for)
    ]


@pytest.mark.parametrize(("case", "way"), stock_runs(), ids=lambda value: value.name)
def test_stock_equals_itself(case: Case, way: Way) -> None:
    assert differences(stock_recording(case, way.name), record(case, way)) == ""


def test_every_name_is_unique() -> None:
    names = [case.name for case in cases.ALL]
    assert len(names) == len(set(names))


def test_a_change_is_found() -> None:
    one = record(Case("x", lambda r: solo(r, [final("one")])), stock_way("crew", "akickoff"))
    two = record(Case("x", lambda r: solo(r, [final("two")])), stock_way("crew", "akickoff"))
    assert "trace" in differences(one, two)
    assert "results" in differences(one, two)
    assert "rows" in differences(one, two)
