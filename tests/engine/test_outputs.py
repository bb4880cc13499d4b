from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crewai import Crew
from crewai.utilities.task_output_storage_handler import TaskOutputStorageHandler

import fastcrew_async
from fastcrew_async import AsyncCrew
from fastcrew_async.engine import outputs
from fastcrew_async.engine.outputs import TaskOutputs, database, kept, latest_rows, outputs_of, replayable
from fastcrew_async.install.apply import install, uninstall
from tests import crews

EACH_RUN = "SELECT run, count(*) FROM replay_rows GROUP BY run ORDER BY run"


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file and a CrewAI folder of the test's own."""
    monkeypatch.setenv("CREWAI_STORAGE_DIR", str(tmp_path))
    before = fastcrew_async.settings()
    fastcrew_async.configure(storage_path=tmp_path / "ours.db", replay_runs=1000)
    yield tmp_path / "ours.db"
    fastcrew_async.configure(storage_path=before.storage_path, replay_runs=before.replay_runs)


@pytest.fixture
def installed() -> Iterator[None]:
    install()
    yield
    uninstall()


def run(crew: Crew, topic: str) -> list[str]:
    """Runs the crew; the ids of its tasks."""
    asyncio.run(AsyncCrew(crew).kickoff({"topic": topic}))
    return [str(task.id) for task in crew.tasks]


def runs() -> list[int]:
    """How many rows each kept run has."""
    return [int(str(row[1])) for row in database().fetch_all_sync(EACH_RUN)]


def test_every_run_keeps_its_own_rows() -> None:
    crew = crews.crew(crews.echo, tasks=2)
    run(crew, "tea")
    run(crew, "milk")
    run(crews.crew(crews.echo), "water")
    assert runs() == [2, 2, 1]


def test_a_row_has_the_form_of_crewais_storage() -> None:
    crew = crews.crew(crews.echo)
    (task_id,) = run(crew, "tea")
    (row,) = latest_rows()
    stock = {"task_id", "expected_output", "output", "task_index", "inputs", "was_replayed", "timestamp"}
    assert row.keys() == stock | {"task_key"}
    assert (row["task_id"], row["task_index"], row["was_replayed"]) == (task_id, 0, 0)
    assert row["inputs"] == {"topic": "tea"}
    assert row["output"]["raw"] == "tea"
    assert row["expected_output"] == "A word"


async def test_the_row_is_in_the_file_when_the_effect_is_done() -> None:
    crew = crews.crew(crews.echo)
    await AsyncCrew(crew).kickoff({"topic": "tea"})
    rows = await database().fetch_all("SELECT inputs FROM replay_rows")
    assert rows == [('{"topic": "tea"}',)]


def test_any_kept_run_is_replayed(installed: None) -> None:
    crew = crews.crew(crews.echo, tasks=2)
    first = run(crew, "tea")
    other = crews.crew(crews.echo, tasks=2)
    run(other, "milk")
    assert [row["inputs"] for row in latest_rows()] == [{"topic": "milk"}] * 2
    assert crew.replay(first[1]).raw == "tea"
    assert runs() == [2, 2]  # the replayed task's row takes the place of its run's
    replayed = database().fetch_all_sync("SELECT task_id, was_replayed FROM replay_rows ORDER BY was_replayed DESC")
    assert replayed[0] == (first[1], 1)
    assert [row[1] for row in replayed] == [1, 0, 0, 0]
    assert isinstance(crew._task_output_handler, TaskOutputs)
    assert crew._task_output_handler._chosen is None


def test_a_task_that_no_kept_run_has_is_told(installed: None) -> None:
    crew = crews.crew(crews.echo)
    run(crew, "tea")
    with pytest.raises(ValueError, match="Task with id gone not found"):
        crew.replay("gone")
    assert isinstance(crew._task_output_handler, TaskOutputs)


def test_what_only_crewais_own_file_has_is_replayed_from_there(installed: None) -> None:
    crew = crews.crew(crews.echo)
    task = crew.tasks[0]
    output = {"description": "x", "summary": "x", "raw": "x", "output_format": "raw", "agent": "Researcher"}
    TaskOutputStorageHandler().add(task, {**output, "pydantic": None, "json_dict": None}, 0, {"topic": "old"})
    run(crews.crew(crews.echo), "tea")
    assert crew.replay(str(task.id)).raw == "old"


def test_load_gives_the_latest_run_else_what_crewai_has(installed: None) -> None:
    stock = TaskOutputStorageHandler()
    assert stock.load() == []
    run(crews.crew(crews.echo), "tea")
    assert [row["inputs"] for row in stock.load() or ()] == [{"topic": "tea"}]


def test_our_file_and_crewais_are_never_the_same(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two copies of SQLite on one file lose rows: the core's file is never opened by Python's ``sqlite3``."""
    opened: list[str] = []
    connect = sqlite3.connect

    def noted(path: Any, *args: Any, **kwargs: Any) -> Any:
        opened.append(Path(path).name)
        return connect(path, *args, **kwargs)

    monkeypatch.setattr(sqlite3, "connect", noted)
    install()
    try:
        crew = crews.crew(crews.echo)
        (task_id,) = run(crew, "tea")
        crew.replay(task_id)
        TaskOutputStorageHandler().load()
    finally:
        uninstall()
    assert file.exists()
    assert file.name not in opened


def test_old_runs_are_removed_beyond_the_number_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "_PRUNE_EVERY", 1)
    fastcrew_async.configure(replay_runs=2)
    crew = crews.crew(crews.echo, tasks=2)
    for topic in ("tea", "milk", "water", "wine"):
        run(crew, topic)
    assert runs() == [2, 2]
    kept_inputs = {str(row[0]) for row in database().fetch_all_sync("SELECT inputs FROM replay_rows")}
    assert kept_inputs == {'{"topic": "water"}', '{"topic": "wine"}'}


def test_runs_that_begin_at_the_same_moment_keep_their_rows_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_000_000_000)
    for topic in ("tea", "milk"):
        run(crews.crew(crews.echo), topic)
    assert runs() == [1, 1]
    assert [row["inputs"] for row in latest_rows()] == [{"topic": "milk"}]


def test_0_runs_stores_nothing_and_makes_no_file(file: Path) -> None:
    fastcrew_async.configure(replay_runs=0)
    run(crews.crew(crews.echo), "tea")
    assert not file.exists()


def test_reset_removes_all_runs_but_not_inside_a_for_each() -> None:
    crew = crews.crew(crews.echo)
    run(crew, "tea")
    with kept(crew):
        crew._task_output_handler.reset()
    assert runs() == [1]
    crew.reset_memories("kickoff_outputs")
    assert runs() == []
    assert latest_rows() == []


def test_for_each_keeps_the_runs_before_it(installed: None) -> None:
    crew = crews.crew(crews.echo)
    run(crew, "tea")
    crew.kickoff_for_each([{"topic": "milk"}, {"topic": "water"}])
    assert len(runs()) == 3


def test_a_handler_of_the_users_own_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(TaskOutputStorageHandler):
        pass

    crew = crews.crew(crews.echo)
    crew._task_output_handler = own = Own()
    assert outputs_of(crew) is None
    with kept(crew), replayable(crew, "any"):
        assert crew._task_output_handler is own
    patched = crews.crew(crews.echo)
    monkeypatch.setattr(TaskOutputStorageHandler, "update", lambda *args: None)
    assert outputs_of(patched) is None
    run(crew, "tea")
    assert latest_rows() == []


def test_each_crew_gets_its_handler_once() -> None:
    crew = crews.crew()
    assert outputs_of(crew) is outputs_of(crew)
    assert outputs_of(crew) is not outputs_of(crews.crew())


FORKING = """
import asyncio, os, sys
from tests import crews
from fastcrew_async import AsyncCrew, configure
configure(storage_path=sys.argv[1])
crew = AsyncCrew(crews.crew(crews.echo))
asyncio.run(crew.kickoff({"topic": "tea"}))
child = os.fork()
if child == 0:
    code = 1
    try:
        asyncio.run(crew.kickoff({"topic": "milk"}))
        code = 0
    finally:
        os._exit(code)
asyncio.run(crew.kickoff({"topic": "water"}))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_parent_and_child_go_on_after_a_fork() -> None:
    """In a process of their own: CrewAI's event bus, once it has had handlers, waits in a child for threads that the
    fork has not taken along."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKING, str(fastcrew_async.settings().storage_path)],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert runs() == [1, 1, 1]
