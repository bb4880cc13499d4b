"""What must work right after ``pip install``: run in a clean environment, outside the checkout, by ``make smoke``."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import sysconfig
import tempfile
from importlib.metadata import version
from pathlib import Path

os.environ |= {"CREWAI_DISABLE_TELEMETRY": "true", "OTEL_SDK_DISABLED": "true", "CREWAI_TRACING_ENABLED": "false"}
os.environ |= {"CREWAI_STORAGE_DIR": tempfile.mkdtemp(), "FASTCREW_ASYNC_BACKEND": "rust"}

from crewai import Agent, Crew, Task

import fastcrew_async
from fastcrew_async import AsyncCrew, Database
from fastcrew_async.testing import ScriptedLLM


def make_crew() -> Crew:
    writer = Agent(role="Writer", goal="Write", backstory="Brief.", llm=ScriptedLLM("It works."))
    return Crew(agents=[writer], tasks=[Task(description="Write.", expected_output="A word", agent=writer)])


async def main() -> None:
    results = await asyncio.gather(*(AsyncCrew(make_crew()).kickoff() for _ in range(10)))
    assert [result.raw for result in results] == ["It works."] * 10

    async with Database(Path(os.environ["CREWAI_STORAGE_DIR"]) / "smoke.db") as db:
        await db.execute("create table t (n integer)")
        await db.execute_many("insert into t values (?)", [(n,) for n in range(100)])
        assert (await db.fetch_one("select sum(n) from t"))[0] == 4950

    fastcrew_async.install()
    try:
        assert (await make_crew().akickoff()).raw == "It works."
    finally:
        fastcrew_async.uninstall()


assert Path(fastcrew_async.__file__).is_relative_to(sys.prefix), f"not the installed package: {fastcrew_async.__file__}"
asyncio.run(main())
fastcrew_async.install()
assert make_crew().kickoff().raw == "It works."
fastcrew_async.uninstall()
# The command is there, and without its extra it says what is missing.
program = [Path(sysconfig.get_path("scripts")) / "fastcrew-async", "status"]
command = subprocess.run(program, capture_output=True, text=True, check=False)
assert command.returncode == 0 or "pip install 'fastcrew-async[cli]'" in command.stderr, command.stderr
print(f"fastcrew-async {version('fastcrew-async')} works in a clean environment, {sys.version.split()[0]}")
