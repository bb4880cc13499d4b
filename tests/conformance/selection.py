"""Which of CrewAI's tests are run."""

from __future__ import annotations

from pathlib import Path

# Model clients, the command line, stores and reports: no crew and no agent loop. What is not a test is left out too.
LEFT_OUT_FOLDERS = ("a2a", "ci", "cli", "llms", "rag", "skills", "telemetry", "cassettes", "__pycache__")
# Tests a script that CrewAI's repository has and its sdist does not.
LEFT_OUT_FILES = ("test_jev_evaluation_runner.py",)

# The part that runs crews and agents most: a few minutes.
PART = (
    "test_crew.py",
    "test_task.py",
    "agents/test_agent.py",
    "agents/test_agent_executor.py",
    "agents/test_native_tool_calling.py",
)


def whole(tests: Path) -> list[str]:
    """Every file and folder of `tests` that is not left out."""
    files = [file.name for file in tests.glob("test_*.py") if file.name not in LEFT_OUT_FILES]
    folders = [entry.name for entry in tests.iterdir() if entry.is_dir() and entry.name not in LEFT_OUT_FOLDERS]
    return sorted(files) + sorted(folders)


def within(test: str, selected: list[str]) -> bool:
    """Whether the test, as pytest names it, is in one of the selected files and folders."""
    return any(test.startswith((f"{name}::", f"{name}/")) for name in selected)
