"""What starting costs beside CrewAI's own import: `python benchmarks/imports.py [-n PROCESSES] [--check]`.

The CPU time that each step adds to those before it, in a new process; the median of all processes. With `--check` it
exits with 1 where importing the engine, or install(), costs more than its bound, which is meant for an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys

BOUNDS_MS = {"from fastcrew_async import AsyncCrew": 60.0, "fastcrew_async.install()": 50.0}

STEPS = (
    "from crewai import Agent, Crew, Task",
    "import fastcrew_async",
    "from fastcrew_async import AsyncCrew",
    "fastcrew_async.install()",
)

PROGRAM = """
import json, time
steps = json.loads({steps!r})
times = []
for step in steps:
    begun = time.process_time()
    exec(step)
    times.append(1000 * (time.process_time() - begun))
print(json.dumps(times))
"""


def measure() -> list[float]:
    """CPU milliseconds of each step, in a new process."""
    program = PROGRAM.format(steps=json.dumps(STEPS))
    environment = os.environ | {"CREWAI_DISABLE_TELEMETRY": "true", "OTEL_SDK_DISABLED": "true"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # with it every process compiles what others find compiled
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    times: list[float] = json.loads(done.stdout.splitlines()[-1])
    return times


def main() -> int:
    parser = argparse.ArgumentParser(description="What starting costs.")
    parser.add_argument("-n", type=int, default=7, metavar="PROCESSES")
    parser.add_argument("--check", action="store_true", help="fail where a bound is passed")
    options = parser.parse_args()
    measure()  # compiles what is not compiled yet
    runs = [measure() for _ in range(options.n)]
    over = False
    for step, times in zip(STEPS, zip(*runs, strict=True), strict=True):
        median, bound = statistics.median(times), BOUNDS_MS.get(step)
        over = over or (bound is not None and median > bound)
        allowed = f", at most {bound:.0f}" if bound is not None else ""
        print(f"{step:<40} {median:8.1f} ms CPU ({min(times):.1f} to {max(times):.1f}{allowed})")
    return 1 if over and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
