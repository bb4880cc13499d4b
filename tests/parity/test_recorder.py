"""The recorder itself: two recordings of stock CrewAI are equal, so what is compared is deterministic."""

from __future__ import annotations

import pytest

from . import cases
from .case import Case
from .compare import differences
from .recording import record
from .ways import STOCK, Way


def stock_runs() -> list[tuple[Case, Way]]:
    return [(case, way) for case in cases.ALL for way in STOCK[case.kind]]


@pytest.mark.parametrize(("case", "way"), stock_runs(), ids=lambda value: getattr(value, "name", None))
def test_stock_equals_itself(case: Case, way: Way) -> None:
    assert differences(record(case, way), record(case, way)) == ""
