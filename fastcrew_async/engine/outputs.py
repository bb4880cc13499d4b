"""Task outputs kept for ``replay``: a row a task, and every run keeps its own.

CrewAI has one table for the whole machine that each run empties (``crewai/utilities/task_output_storage_handler.py``);
a second crew, or a second process, takes the first one's replay away. Here rows carry the run they belong to, in a
file of our own, and the oldest runs are removed once there are more than the setting ``replay_runs``.
"""

from __future__ import annotations

import inspect
import itertools
import json
import os
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from crewai.utilities.crew_json_encoder import CrewJSONEncoder
from crewai.utilities.task_output_storage_handler import TaskOutputStorageHandler
from crewai_core.paths import db_storage_path

from fastcrew_async import workers
from fastcrew_async.config import settings
from fastcrew_async.engine.effects import Effect
from fastcrew_async.engine.fields import private
from fastcrew_async.engine.texts import key_of_task
from fastcrew_async.errors import DatabaseClosedError
from fastcrew_async.store import Database

_Statement = tuple[str, tuple[Any, ...]]

# One tree only: a row is written for every task, and looked up by its task for a replay only.
_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS replay_rows (
        run INTEGER NOT NULL, position INTEGER NOT NULL, task_id TEXT NOT NULL, task_key TEXT NOT NULL,
        expected_output TEXT, output TEXT NOT NULL, inputs TEXT NOT NULL, was_replayed INTEGER NOT NULL,
        written_at REAL NOT NULL, PRIMARY KEY (run, position)) WITHOUT ROWID""",
)
_WRITE = "INSERT OR REPLACE INTO replay_rows VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_READ = "SELECT * FROM replay_rows WHERE run = ? ORDER BY position"
_LATEST_OF_TASK = "SELECT max(run) FROM replay_rows WHERE task_id = ?"
_LATEST = "SELECT max(run) FROM replay_rows"
_PRUNE = """DELETE FROM replay_rows WHERE run <= (
    SELECT run FROM replay_rows GROUP BY run ORDER BY run DESC LIMIT 1 OFFSET ?)"""
_PRUNE_EVERY = 100
_STOCK = {name: getattr(TaskOutputStorageHandler, name) for name in ("add", "load", "reset", "update")}


class _OfCrewAI(TaskOutputStorageHandler):
    """CrewAI's own file, past what ``install()`` puts in the place of ``load``."""

    load = _STOCK["load"]


_encode = CrewJSONEncoder().encode
_lock = threading.Lock()
_runs_begun = itertools.count()
_last_run = 0
_databases: dict[str, Database] = {}
_prepared: weakref.WeakSet[Database] = weakref.WeakSet()


def storage_file() -> Path:
    """Where task outputs are kept."""
    return settings().storage_path or Path(db_storage_path()) / "fastcrew_async.db"


def database() -> Database:
    """The file of task outputs; it is opened by its first statement. Looks for the folder once, which may block."""
    found = _known()
    if found is None:
        path = storage_file()
        with _lock:
            # A write survives the end of the process at once, and a power cut after the next checkpoint.
            found = _databases.setdefault(_key(), Database(path, durability="relaxed"))
    return found


def _known() -> Database | None:
    return _databases.get(_key())


def _key() -> str:
    chosen = settings().storage_path
    return str(chosen) if chosen else os.environ.get("CREWAI_STORAGE_DIR", "")


def _with_schema(file: Database, statements: list[_Statement]) -> list[_Statement]:
    return statements if file in _prepared else [*((statement, ()) for statement in _SCHEMA), *statements]


def _before_fork() -> None:
    """Close the files, so that parent and child each open them anew: no child can use, or open, a file that its parent
    had open when it was forked off. Nothing opens one meanwhile, as the lock is held until after the fork."""
    _lock.acquire()
    files = list(_databases.values())
    _databases.clear()
    for file in files:
        with suppress(Exception):  # then the child is told of it at its first write
            file.close_sync()


def _after_fork_in_parent() -> None:
    _lock.release()


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


class _Write(Effect):
    """One atomic batch on the file; the first one of a process makes the table. A file that was
    closed for a fork is opened again."""

    __slots__ = ("statements",)

    starts = False  # what is acknowledged is kept

    def __init__(self, statements: list[_Statement]) -> None:
        self.statements = statements

    def perform(self) -> None:
        while True:
            file = database()
            try:
                file.batch_sync(_with_schema(file, self.statements))
            except DatabaseClosedError:
                if _known() is file:
                    raise
            else:
                return _prepared.add(file)

    async def aperform(self) -> None:
        while True:
            known = _known()
            file: Database = known if known is not None else await workers.pool().run(database)
            try:
                await file.batch(_with_schema(file, self.statements))
            except DatabaseClosedError:
                if _known() is file:
                    raise
            else:
                return _prepared.add(file)


def _read(query: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    file = database()
    if file not in _prepared:
        _Write([]).perform()
    return file.fetch_all_sync(query, parameters)


def latest_rows() -> list[dict[str, Any]]:
    """The rows of the latest run of all, in the form of CrewAI's storage."""
    found = _read(_LATEST)
    return [] if found[0][0] is None else _rows(found[0][0])


def _rows(run: int) -> list[dict[str, Any]]:
    return [
        {
            "task_id": row[2],
            "task_key": row[3],
            "expected_output": row[4],
            "output": json.loads(str(row[5])),
            "task_index": row[1],
            "inputs": json.loads(str(row[6])),
            "was_replayed": row[7],
            "timestamp": row[8],
        }
        for row in _read(_READ, (run,))
    ]


def _new_run() -> int:
    """A number for a run: its start in nanoseconds, so that later runs, of any process, have larger ones. The last 16
    bits are the process's, so that no two processes choose the same."""
    global _last_run
    with _lock:
        _last_run = max(time.time_ns() >> 16, _last_run + 1)
        return _last_run << 16 | os.getpid() & 0xFFFF


class TaskOutputs:
    """The task outputs of one crew, with the interface of CrewAI's ``TaskOutputStorageHandler``."""

    def __init__(self) -> None:
        self.run = _new_run()
        self.keeping = 0
        self._chosen: int | None = None

    def begin_run(self) -> None:
        """Following rows belong to a new run."""
        self.run = _new_run()

    def write(self, task_index: int, log: dict[str, Any]) -> Effect | None:
        """An effect: keep one row; it is in the file when the effect is done. None where no runs are to be kept."""
        if settings().replay_runs == 0:
            return None
        row = self._row(task_index, log)
        statements: list[_Statement] = [(_WRITE, row)]
        if task_index == 0 and next(_runs_begun) % _PRUNE_EVERY == 0:
            statements.append((_PRUNE, (settings().replay_runs,)))
        return _Write(statements)

    def choose(self, task_id: str) -> bool:
        """Make :meth:`load` give the latest run that has this task. False when no run that is still kept has it."""
        found = _read(_LATEST_OF_TASK, (task_id,))
        self._chosen = found[0][0]
        return self._chosen is not None

    def unchoose(self) -> None:
        """Make :meth:`load` give the latest run again."""
        self._chosen = None

    def load(self) -> list[dict[str, Any]]:
        """The rows of the chosen run, else of the latest one, in the order of the tasks."""
        return latest_rows() if self._chosen is None else _rows(self._chosen)

    def update(self, task_index: int, log: dict[str, Any]) -> None:
        """Keep one row; a replayed task replaces the row of the run it was replayed from."""
        if log.get("was_replayed") and self._chosen is not None:
            self.run = self._chosen
        effect = self.write(task_index, log)
        if effect is not None:
            effect.perform()

    def reset(self) -> None:
        """Remove the rows of all runs, as ``crew.reset_memories("kickoff_outputs")`` asks for."""
        if self.keeping:
            return
        _Write([("DELETE FROM replay_rows", ())]).perform()

    def _row(self, task_index: int, log: dict[str, Any]) -> tuple[Any, ...]:
        task = log["task"]
        return (
            self.run,
            task_index,
            str(task.id),
            key_of_task(task),
            task.expected_output,
            _encode(log["output"]),
            _encode(log["inputs"] or {}),
            int(log.get("was_replayed", False)),
            time.time(),
        )


def outputs_of(crew: Any) -> TaskOutputs | None:
    """The crew's task outputs, put in the place of CrewAI's own handler. None where the user has one of theirs."""
    own = private(crew)
    handler = own["_task_output_handler"]
    if isinstance(handler, TaskOutputs):
        return handler
    if type(handler) is not TaskOutputStorageHandler or any(
        _unwrapped(getattr(TaskOutputStorageHandler, name)) is not stock for name, stock in _STOCK.items()
    ):
        return None
    ours = own["_task_output_handler"] = TaskOutputs()
    return ours


def _unwrapped(method: Any) -> Any:
    return inspect.unwrap(method) if hasattr(method, "__wrapped__") else method


@contextmanager
def kept(crew: Any) -> Iterator[None]:
    """While inside, ``reset`` removes nothing: CrewAI ends its ``for_each`` calls with it."""
    outputs = outputs_of(crew)
    if outputs is None:
        yield
        return
    outputs.keeping += 1
    try:
        yield
    finally:
        outputs.keeping -= 1


@contextmanager
def replayable(crew: Any, task_id: str) -> Iterator[None]:
    """While inside, the crew's handler gives the run that has the task; CrewAI's own file, where only that has it."""
    outputs = outputs_of(crew)
    if outputs is None:
        yield
    elif outputs.choose(str(task_id)):
        try:
            yield
        finally:
            outputs.unchoose()
    else:
        crew._task_output_handler = _OfCrewAI()
        try:
            yield
        finally:
            crew._task_output_handler = outputs
