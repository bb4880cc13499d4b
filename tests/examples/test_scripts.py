"""The short examples, and the programs in the README, run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*arguments: str, folder: Path) -> str:
    environment = os.environ | {
        "CREWAI_DISABLE_TELEMETRY": "true",
        "OTEL_SDK_DISABLED": "true",
        "CREWAI_TRACING_ENABLED": "false",
        "CREWAI_STORAGE_DIR": str(folder),
        "PYTHONPATH": str(ROOT),
    }
    environment.pop("OPENAI_API_KEY", None)
    command = [sys.executable, *arguments]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_quickstart(tmp_path: Path) -> None:
    out = run(str(ROOT / "examples" / "quickstart.py"), folder=tmp_path)
    assert out.splitlines()[-3:] == [
        "tea: Much can be said about tea.",
        "rain: Much can be said about rain.",
        "sleep: Much can be said about sleep.",
    ]


def test_batch(tmp_path: Path) -> None:
    out = run(str(ROOT / "examples" / "batch.py"), "200", folder=tmp_path)
    assert out.splitlines()[-1] == "198 parcels have arrived, 2 are lost: [99, 199]"


def programs(document: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / document).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("document", ["README.md", "docs/getting-started.md", "docs/database.md", "docs/telemetry.md"])
def test_programs_of_the_documents(document: str, tmp_path: Path) -> None:
    found = programs(document)
    assert found
    for number, program in enumerate(found):
        script = tmp_path / f"program{number}.py"
        script.write_text(program, encoding="utf-8")
        run(str(script), folder=tmp_path)
