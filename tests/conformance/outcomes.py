"""Two runs of the same tests, compared against the differences that were accepted."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

OUTCOMES = ("passed", "failed", "error", "skipped", "missing")
Outcomes = dict[str, str]


@dataclass(frozen=True)
class Difference:
    """One test that ends otherwise with install() active."""

    test: str
    stock: str
    installed: str


def load_accepted(path: Path) -> dict[Difference, str]:
    """The accepted differences and the reason of each.

    Raises:
        ValueError: an entry is doubled, not a difference, or has no reason.
    """
    accepted: dict[Difference, str] = {}
    seen: set[str] = set()
    for entry in tomllib.loads(path.read_text()).get("difference", []):
        difference = Difference(entry["test"], entry["stock"], entry["installed"])
        if difference.test in seen:
            raise ValueError(f"{path}: {difference.test} is listed twice")
        if difference.stock == difference.installed or not {difference.stock, difference.installed} <= set(OUTCOMES):
            raise ValueError(
                f"{path}: {difference.test}: {difference.stock} -> {difference.installed} is no difference"
            )
        if len(entry.get("reason", "").split()) < 5:
            raise ValueError(f"{path}: {difference.test} needs a reason that explains it")
        seen.add(difference.test)
        accepted[difference] = entry["reason"]
    return accepted


def differences(stock: Outcomes, installed: Outcomes) -> list[Difference]:
    """Every test whose outcome is not the same in both runs, in order of its name."""
    both = ((test, stock.get(test, "missing"), installed.get(test, "missing")) for test in stock | installed)
    return sorted((Difference(*row) for row in both if row[1] != row[2]), key=lambda difference: difference.test)


def judge(found: list[Difference], accepted: dict[Difference, str], ran: set[str]) -> list[str]:
    """What is wrong: a difference that was not accepted, or an accepted one that `ran` and is not there.

    `ran` are the tests of this run, so that a run of a part says nothing about the rest.
    """
    wrong = [f"{d.test}: {d.stock} without install(), {d.installed} with it" for d in found if d not in accepted]
    gone = [d for d in accepted if d not in found and d.test in ran]
    wrong += [
        f"{d.test}: accepted as {d.stock} -> {d.installed}, which is not what happened; edit the list" for d in gone
    ]
    return wrong


def count(outcomes: Outcomes) -> str:
    """``456 passed, 1 failed``: the numbers of a run."""
    counted = Counter(outcomes.values())
    return ", ".join(f"{counted[name]} {name}" for name in OUTCOMES if counted[name]) or "nothing ran"
