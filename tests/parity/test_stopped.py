"""Runs stopped by a hook, a tool's policy or a malformed guardrail: as in CrewAI, but all scopes are closed."""

from __future__ import annotations

from copy import deepcopy

import pytest
from crewai.events.event_context import VALID_EVENT_PAIRS

from .case import Case
from .cases import failures, odd_texts, planning
from .compare import differences
from .recording import Recording, record, stock_recording
from .ways import OURS, Way

STOPPED = [*failures.STOPPED, *odd_texts.STOPPED, *planning.STOPPED]
RUNS = [(case, way) for case in STOPPED for way in OURS["crew"]]


def without_links(recording: Recording) -> Recording:
    """Without what an unclosed scope changes: the links of later events."""
    recording = deepcopy(recording)
    for row in recording.trace:
        row[1].pop("parent", None)
        row[1].pop("started", None)
    recording.open_scopes = []
    return recording


@pytest.mark.parametrize(("case", "way"), RUNS, ids=lambda value: value.name)
def test_all_but_the_links_equals_stock(case: Case, way: Way) -> None:
    expected = stock_recording(case, way.reference)
    assert differences(without_links(expected), without_links(record(case, way))) == ""


@pytest.mark.parametrize(("case", "way"), RUNS, ids=lambda value: value.name)
def test_every_scope_is_closed_by_its_own_event(case: Case, way: Way) -> None:
    recording = record(case, way)
    types = [row[0].split()[1] for row in recording.trace]
    assert recording.open_scopes == [0]
    for row, kind in zip(recording.trace, types, strict=True):
        if "started" in row[1]:
            opener = int(row[1]["started"].removeprefix("<event ").removesuffix(">"))
            assert types[opener] == VALID_EVENT_PAIRS[kind]


def test_stock_leaves_scopes_open() -> None:
    stopped = [case for case in STOPPED if case not in planning.STOPPED]
    left = [case.name for case in stopped if stock_recording(case, "akickoff").open_scopes != [0]]
    assert len(left) == 12
