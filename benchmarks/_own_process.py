"""One measurement in a process of its own, with a storage folder of its own and CrewAI's telemetry off."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from typing import Any

QUIET = {"CREWAI_DISABLE_TELEMETRY": "true", "OTEL_SDK_DISABLED": "true", "CREWAI_TRACING_ENABLED": "false"}


def figures(file: str, measured: str) -> dict[str, Any]:
    """What ``file --measure measured`` prints as its last JSON object; CrewAI may add a panel of its own at the exit.

    Raises:
        RuntimeError: it failed; the message has the end of what it wrote to stderr.
    """
    with tempfile.TemporaryDirectory() as storage:
        done = subprocess.run(
            [sys.executable, file, "--measure", measured],
            env=os.environ | QUIET | {"CREWAI_STORAGE_DIR": storage},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"{measured}: the measurement failed\n{done.stderr[-4000:]}")
    told = [line for line in done.stdout.splitlines() if line.startswith("{")][-1]
    found: dict[str, Any] = json.JSONDecoder().raw_decode(told)[0]  # a thread of CrewAI's may print behind it
    return found
