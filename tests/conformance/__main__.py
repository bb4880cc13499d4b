"""Runs CrewAI's tests twice and says what differs; ends with 1 if anything does that was not accepted."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.conformance.environment import FOLDER, HERE, Suite, prepare
from tests.conformance.outcomes import Difference, Outcomes, count, differences, judge, load_accepted
from tests.conformance.selection import PART, whole, within

LIMIT_S = 5400  # all of it takes a quarter of an hour on two idle cores


def run(suite: Suite, engine: str, tests: list[str], *options: str) -> dict[str, dict[str, str]]:
    """Each test's outcome and, where it did not pass, why; in a fresh folder that is also its home."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        report = Path(home) / "report.json"
        env = os.environ | {
            "HOME": home,
            "PYTEST_ADDOPTS": "",  # what is meant for our own tests
            "FASTCREW_CONFORMANCE": engine,
            "FASTCREW_CONFORMANCE_REPORT": str(report),
            # Its `tests` is CrewAI's, its fastcrew_async is this checkout's.
            "PYTHONPATH": os.pathsep.join([str(suite.tests.parent), str(FOLDER.parent)]),
        }
        command = [str(suite.python), "-m", "pytest", "-c", str(HERE / "pytest.ini"), "--rootdir", str(suite.tests)]
        command += [*options, "-q", "--no-header", *(str(suite.tests / test) for test in tests)]
        done = subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        if not report.is_file():
            raise RuntimeError(f"pytest ended with {done.returncode} and no report:\n{done.stdout}\n{done.stderr}")
        outcomes: dict[str, dict[str, str]] = json.loads(report.read_text())
        return outcomes


def outcome_of(results: dict[str, dict[str, str]]) -> Outcomes:
    return {test: result["outcome"] for test, result in results.items()}


def confirm(suite: Suite, engine: str, found: list[Difference], rounds: int = 3) -> list[Difference]:
    """The differences that stay when their tests run alone: a few of CrewAI's tests depend on the machine's load.

    A test counts as the same only if it is the same in every round.
    """
    tests = [difference.test for difference in found]
    stays: dict[str, Difference] = {}
    for _ in range(rounds):
        again = differences(
            outcome_of(run(suite, "stock", tests, "-n", "0")),
            outcome_of(run(suite, engine, tests, "-n", "0")),
        )
        stays.update((difference.test, difference) for difference in again)
    return list(stays.values())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("--part", action="store_true", help="only the files that run crews and agents most")
    parser.add_argument("--memory", action="store_true", help="only those of the memory, kept in a MemoryStore")
    parser.add_argument("--workers", type=int, default=4, help="processes; the tests mostly wait (%(default)s)")
    parser.add_argument("--reuse", action="store_true", help="take the last stock run instead of a new one")
    parser.add_argument("-k", dest="match", default="", help="only tests that match, as pytest's -k")
    arguments = parser.parse_args()

    suite = prepare()
    selected = ["memory"] if arguments.memory else list(PART) if arguments.part else whole(suite.tests)
    engine = "memory" if arguments.memory else "installed"
    options = ["-n", str(arguments.workers), "--dist", "loadfile", "-k", arguments.match]
    kept = FOLDER / f"stock-{suite.version}.json"

    def outcomes(engine: str, tests: list[str], *options: str) -> Outcomes:
        before = time.perf_counter()
        results = run(suite, engine, tests, *options)
        took = time.perf_counter() - before
        print(f"CrewAI {suite.version}, {engine}: {count(outcome_of(results))} in {took:.0f} s", flush=True)
        (FOLDER / f"{engine}.json").write_text(json.dumps(results, indent=1))
        return outcome_of(results)

    accepted = load_accepted(HERE / "accepted.toml")
    if arguments.part or arguments.memory:  # half the time: what passes with install() active is taken to pass without
        installed = outcomes(engine, selected, *options)
        stock = dict(installed)
        if odd := [test for test, outcome in installed.items() if outcome != "passed"]:
            stock |= outcomes("stock", odd, "-n", "0")
    else:
        if arguments.reuse and kept.is_file():
            stock = json.loads(kept.read_text())
        else:
            stock = outcomes("stock", selected, *options)
            if not arguments.match:
                kept.write_text(json.dumps(stock))
        installed = outcomes(engine, selected, *options)
        stock = {test: outcome for test, outcome in stock.items() if within(test, selected)}
    if arguments.match:  # only what this run reached
        stock = {test: outcome for test, outcome in stock.items() if test in installed}
    found = differences(stock, installed)
    if new := [difference for difference in found if difference not in accepted]:
        stays = confirm(suite, engine, new)
        for difference in new:
            if difference.test not in {stayed.test for stayed in stays}:
                print(f"unsteady: {difference.test} ({difference.stock} -> {difference.installed} once, then the same)")
        found = [difference for difference in found if difference in accepted] + stays

    wrong = judge(found, accepted, set(installed))
    for line in wrong:
        print(f"WRONG {line}")
    for difference in found:
        if difference in accepted:
            print(f"accepted {difference.test}: {accepted[difference]}")
    print(f"{len(installed)} tests, {len(found)} differ, {len(wrong)} of them wrong")
    return 1 if wrong or not installed else 0


if __name__ == "__main__":
    sys.exit(main())
