"""Plays the recordings of CrewAI's OpenAI tests to the core's client and says which requests differ.

    python -m tests.conformance.recordings

Each test runs twice: with CrewAI's provider on the openai package, where the recorder hears the requests, and
installed, where a server on loopback does. Method, address, headers and JSON body must be the same, request by request,
and so must the test's outcome. Ends with 1 if anything differs.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.conformance.__main__ import outcome_of, run
from tests.conformance.environment import Suite, prepare

TESTS = ["llms/openai", "test_llm.py"]
LOOSE = {
    "accept-encoding": "the core unpacks gzip, and offers nothing else",
    "connection": "the core leaves it to HTTP",
    "content-length": "a matter of the transport",
    "cookie": "cookies of answers are not kept: connections are shared by all runs of a process",
    "host": "the server on loopback",
    "user-agent": "names the async client where the engine awaits a model that CrewAI calls in a thread",
    "x-stainless-async": "says the same",
}
"""Headers that are not compared, and why."""

Requests = dict[str, list[Any]]


def heard(suite: Suite, engine: str) -> tuple[dict[str, str], Requests]:
    """The outcome of each test and the requests that it sent."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "requests.json"
        os.environ["FASTCREW_CONFORMANCE_REQUESTS"] = str(log)
        outcomes = outcome_of(run(suite, engine, TESTS, "-n", "0", "-m", "vcr"))
        return outcomes, json.loads(log.read_text())


def compared(request: list[Any]) -> tuple[str, str, dict[str, str], Any]:
    """What of a request must be the same."""
    method, address, headers, body = request
    return method, address, {name: value for name, value in headers.items() if name not in LOOSE}, json.loads(body)


def differences(stock: Requests, core: Requests) -> list[str]:
    """A line for each test whose requests differ."""
    lines = []
    for test in sorted(stock.keys() | core.keys()):
        before, after = (list(map(compared, of.get(test, []))) for of in (stock, core))
        if len(before) != len(after):
            lines.append(f"{test}: {len(before)} requests by the openai package, {len(after)} by the core")
        lines += [
            f"{test}: request {number}: {part} {was!r} -> {now!r}"
            for number, (one, other) in enumerate(zip(before, after, strict=False))
            for part, was, now in zip(("method", "address", "headers", "body"), one, other, strict=True)
            if was != now
        ]
    return lines


def main() -> int:
    suite = prepare()
    stock_outcomes, stock = heard(suite, "stock")
    outcomes, core = heard(suite, "recordings")
    lines = differences(stock, core)
    lines += [
        f"{test}: {was} -> {outcomes.get(test)}" for test, was in stock_outcomes.items() if outcomes.get(test) != was
    ]
    for line in lines:
        print(line)
    count = sum(map(len, stock.values()))
    print(f"{len(stock)} recordings, {count} requests, {len(lines)} differences")
    return 1 if lines or not count else 0


if __name__ == "__main__":
    sys.exit(main())
