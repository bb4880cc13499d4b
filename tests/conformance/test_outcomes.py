"""The comparison is exact in both directions."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.environment import HERE
from tests.conformance.outcomes import Difference, count, differences, judge, load_accepted

STOCK = {"a": "passed", "b": "passed", "c": "failed", "d": "passed"}
INSTALLED = {"a": "passed", "b": "failed", "c": "passed", "e": "passed"}


def test_every_kind_of_difference_is_found():
    assert differences(STOCK, INSTALLED) == [
        Difference("b", "passed", "failed"),
        Difference("c", "failed", "passed"),
        Difference("d", "passed", "missing"),
        Difference("e", "missing", "passed"),
    ]


def test_a_difference_is_wrong_until_it_is_accepted():
    found = [Difference("b", "passed", "failed")]
    assert judge(found, {}, {"b"}) == ["b: passed without install(), failed with it"]
    assert judge(found, {found[0]: "a reason"}, {"b"}) == []


def test_an_accepted_difference_that_is_gone_is_wrong():
    accepted = {Difference("b", "passed", "failed"): "a reason"}
    (wrong,) = judge([], accepted, {"b"})
    assert "edit the list" in wrong
    assert judge([], accepted, ran={"other"}) == []


def test_an_accepted_difference_holds_for_its_outcomes_only():
    accepted = {Difference("b", "passed", "failed"): "a reason"}
    assert len(judge([Difference("b", "passed", "error")], accepted, {"b"})) == 2


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (['test = "b"\nstock = "passed"\ninstalled = "passed"\nreason = "one two three four five"'], "no difference"),
        (['test = "b"\nstock = "passed"\ninstalled = "broken"\nreason = "one two three four five"'], "no difference"),
        (['test = "b"\nstock = "passed"\ninstalled = "failed"\nreason = "because"'], "needs a reason"),
        (
            ['test = "b"\nstock = "passed"\ninstalled = "failed"\nreason = "one two three four five"'] * 2,
            "listed twice",
        ),
    ],
)
def test_a_list_with_a_bad_entry_is_refused(tmp_path: Path, entries: list[str], message: str):
    listed = tmp_path / "accepted.toml"
    listed.write_text("".join(f"[[difference]]\n{entry}\n" for entry in entries))
    with pytest.raises(ValueError, match=message):
        load_accepted(listed)


def test_the_list_of_the_project_is_well_formed():
    for difference in load_accepted(HERE / "accepted.toml"):
        assert "::" in difference.test


def test_counts():
    assert count(STOCK) == "3 passed, 1 failed"
    assert count({}) == "nothing ran"
