"""Every case of the table, run by us, is what stock CrewAI makes of it."""

from __future__ import annotations

import pytest

from . import cases
from .case import Case
from .compare import differences
from .recording import record, stock_recording
from .ways import OURS, Way


def our_runs() -> list[tuple[Case, Way]]:
    return [
        (case, way)
        for case in cases.ALL
        for way in OURS[case.kind]
        if not {way.name, way.reference} & dict(case.not_for).keys()
    ]


@pytest.mark.parametrize(("case", "way"), our_runs(), ids=lambda value: value.name)
def test_ours_equals_stock(case: Case, way: Way) -> None:
    expected = stock_recording(case, way.reference)
    assert differences(expected, record(case, way)) == ""
