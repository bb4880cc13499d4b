"""The store in plain Python: ``sqlite3``, one thread that writes, a few that read; the rules are ``src/store``'s.

A caller that waits for a place in the queue and one that waits in it both wait for their answer, so here they stand in
one line.
"""

from __future__ import annotations

import logging
import os
import random
import sqlite3
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any

from fastcrew_async import core_log
from fastcrew_async._fallback import statement
from fastcrew_async._fallback.bridge import Awaitable, Operation
from fastcrew_async._fallback.runtime import Runtime
from fastcrew_async.errors import (
    DatabaseClosedError,
    DatabaseOpenError,
    DatabaseReadOnlyError,
    IntegrityError,
    RuntimeClosedError,
    StatementError,
)

# A group ends at this many works, or at this age (seconds).
_GROUP_SIZE = 1024
_GROUP_TIME = 0.05
# After a checkpoint the log file is cut to this size (bytes); past the limit it is emptied even if readers always
# overlap, which waits for them a little.
_LOG_KEPT = 16 * 2**20
_LOG_LIMIT = 64 * 2**20
_LOG_PATIENCE_MS = 250
# A query looks whether its caller has left after so many steps of SQLite's machine.
_LOOK_EVERY = 100_000
# What takes longer (seconds) is worth a line of the log.
_LONG = 1.0

Outcome = tuple[int, "int | None", list[tuple[Any, ...]]]
Act = Callable[[sqlite3.Connection], Any]


class _Job:
    def __init__(self, act: Act | None) -> None:
        # None only opens the file, and marks a place in the queue.
        self.act = act
        self.future: Future[Any] = Future()
        self.since = time.monotonic()

    def finish(self, answer: Any) -> None:
        if isinstance(answer, BaseException):
            self.future.set_exception(answer)
        else:
            self.future.set_result(answer)


class _Writer:
    """The one thread that writes: it commits what has queued up in one transaction, and answers after the COMMIT."""

    def __init__(self, path: str, durability: str, busy_timeout: float) -> None:
        self._path = path
        self._synchronous = {"full": "FULL", "relaxed": "NORMAL"}[durability]
        self._busy_timeout = busy_timeout
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._is_last = threading.Event()
        self._connection: sqlite3.Connection | None = None
        self._ours_at = time.monotonic()
        self._log_limit = _LOG_LIMIT
        self.opened = False
        self.writes = self.commits = self.largest_group = 0
        self._thread = threading.Thread(target=self._run, name="fastcrew-writer", daemon=True)
        self._thread.start()

    @property
    def queued(self) -> int:
        return len(self._jobs)

    @property
    def closing(self) -> bool:
        return self._closing

    def put(self, job: _Job) -> None:
        with self._changed:
            if self._closing:
                raise _closed()
            self._jobs.append(job)
            self._changed.notify()

    def close(self) -> None:
        """Refuse new work; the file stays open until :meth:`end`."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    def end(self) -> None:
        """Wait for what is queued and close the file, which no reader has open any more: of two connections that close
        at once each sees the other's lock, and neither removes the write-ahead log."""
        self._is_last.set()
        self._thread.join()

    def _next(self, wait: bool) -> _Job | None:
        """The next job whose caller still waits; None when there is none, or none will ever come."""
        with self._changed:
            while True:
                if self._jobs:
                    job = self._jobs.popleft()
                    if job.future.set_running_or_notify_cancel():
                        return job
                elif self._closing or not wait:
                    return None
                else:
                    self._changed.wait()

    def _run(self) -> None:
        while job := self._next(wait=True):
            group: list[tuple[_Job, Any]] = []
            try:
                self._serve(job, group)
            except BaseException as error:  # a defect must not leave callers waiting
                self._drop_connection()
                core_log.database.error("%s: the writer goes on after this: %r", self._path, error)
                for waiting in (job, *(member for member, _ in group)):
                    if not waiting.future.done():
                        waiting.finish(error)
        self._is_last.wait()
        self._drop_connection()

    def _serve(self, first: _Job, group: list[tuple[_Job, Any]]) -> None:
        try:
            self._patiently(first.since, None if first.act is None else "BEGIN IMMEDIATE")
        except Exception as error:
            return first.finish(error)
        if first.act is None:
            return first.finish(None)
        connection = self._writing()
        began = time.monotonic()
        job: _Job | None = first
        while job is not None:
            group.append((job, self._run_in_savepoint(connection, job)))
            if not connection.in_transaction:
                # SQLite itself rolled the transaction back (OR ROLLBACK, a full disk): the last work did it.
                return self._serve_one_by_one(group)
            full = len(group) >= _GROUP_SIZE or time.monotonic() - began > _GROUP_TIME
            job = None if full else self._next(wait=False)
        failure = self._commit(len(group))
        if isinstance(failure, IntegrityError) and len(group) > 1:
            # A deferred constraint is judged at COMMIT; alone, each work meets its own.
            return self._serve_one_by_one(group)
        for job, answer in group:
            job.finish(failure if failure and not isinstance(answer, BaseException) else answer)
        self._keep_log_small()

    def _serve_one_by_one(self, group: list[tuple[_Job, Any]]) -> None:
        """The transaction is gone. Works that had failed keep their error; the others run again, each in its own."""
        for job, answer in group:
            if not isinstance(answer, BaseException):
                try:
                    self._patiently(job.since, "BEGIN IMMEDIATE")
                    answer = self._run_in_savepoint(self._writing(), job)
                    if not isinstance(answer, BaseException):
                        answer = self._commit(1) or answer
                except Exception as error:
                    answer = error
                self._roll_back()
            job.finish(answer)

    def _patiently(self, since: float, sql: str | None) -> None:
        """Opens the file where needed and runs ``sql``, again and again while another process holds the file."""
        deadline = max(since, self._ours_at) + self._busy_timeout
        held: float | None = None
        while True:
            try:
                if self._connection is None:
                    self._connection = self._open()
                    self.opened = True
                if sql:
                    self._connection.execute(sql)
                self._ours_at = time.monotonic()
                if held is not None:
                    waited = self._ours_at - held
                    level = logging.DEBUG if waited < _LONG else logging.WARNING
                    core_log.database.log(level, "%s: another process held the file for %.1fs", self._path, waited)
                return
            except sqlite3.Error as error:
                if not statement.is_busy(error):
                    raise statement.translate(self._path, error) from error
                left = deadline - time.monotonic()
                if held is None:
                    held = time.monotonic()
                    text = "%s: another process writes, trying again for %.1fs"
                    core_log.database.debug(text, self._path, max(left, 0.0))
                if left <= 0:
                    core_log.database.info("%s: given up, another process held the file too long", self._path)
                    raise statement.translate(self._path, error) from error
            # Scattered, so that many processes all get their turn.
            time.sleep(min(left, random.uniform(0.0005, 0.002)))

    def _open(self) -> sqlite3.Connection:
        folder = os.path.dirname(self._path)
        if os.path.isdir(self._path):
            raise DatabaseOpenError(f"{self._path} is a folder: give the path of a file")
        if not os.path.isdir(folder):
            raise DatabaseOpenError(f"{self._path}: the folder {folder} does not exist: create it first")
        if os.path.exists(self._path) and not os.access(self._path, os.W_OK):
            raise DatabaseReadOnlyError(f"{self._path}: the file does not allow writing")
        connection = sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise DatabaseOpenError(
                    f"{self._path}: the file system offers no write-ahead log (journal mode {mode}): "
                    "choose a local disk"
                )
            for setting in (
                f"PRAGMA synchronous = {self._synchronous}",
                "PRAGMA foreign_keys = ON",
                "PRAGMA temp_store = MEMORY",
                f"PRAGMA journal_size_limit = {_LOG_KEPT}",
                "CREATE TEMP TABLE fastcrew_mark (id INTEGER PRIMARY KEY)",
            ):
                connection.execute(setting)
        except BaseException:
            connection.close()
            raise
        core_log.database.debug("%s: opened", self._path)
        return connection

    def _run_in_savepoint(self, connection: sqlite3.Connection, job: _Job) -> Any:
        """The work's answer, or its exception."""
        if job.act is None:
            return None
        connection.execute("SAVEPOINT caller")
        try:
            answer = job.act(connection)
        except Exception as error:
            answer = statement.translate(self._path, error)
            if connection.in_transaction:
                connection.execute("ROLLBACK TO caller")
        if connection.in_transaction:
            connection.execute("RELEASE caller")
        return answer

    def _commit(self, writes: int) -> Exception | None:
        began = time.monotonic()
        try:
            self._writing().execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            return statement.translate(self._path, error)
        self._ours_at = time.monotonic()
        if self._ours_at - began >= _LONG:
            text = "%s: a commit of %d writes took %.1fs"
            core_log.database.warning(text, self._path, writes, self._ours_at - began)
        self.writes += writes
        self.commits += 1
        self.largest_group = max(self.largest_group, writes)
        return None

    def _roll_back(self) -> None:
        """Ends an open transaction; a connection that cannot is replaced by the next work."""
        if self._connection is not None and self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except sqlite3.Error:
                self._drop_connection()

    def _keep_log_small(self) -> None:
        """SQLite's own checkpoints never empty a log that some reader always uses; this one waits for the readers."""
        try:
            size = os.path.getsize(self._path + "-wal")
        except OSError:
            return
        if size < self._log_limit:
            return
        connection = self._writing()
        connection.execute(f"PRAGMA busy_timeout = {_LOG_PATIENCE_MS}")
        (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        connection.execute("PRAGMA busy_timeout = 0")
        self._log_limit = size + _LOG_LIMIT if busy else _LOG_LIMIT
        if busy:
            text = "%s-wal: readers keep it from being emptied, it has %d bytes"
            core_log.database.info(text, self._path, size)

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _writing(self) -> sqlite3.Connection:
        assert self._connection is not None
        return self._connection


class _Readers:
    """Connections that only read, one for each of a few threads."""

    def __init__(self, path: str, readers: int, busy_timeout: float) -> None:
        self._path = path
        self._busy_timeout = busy_timeout
        self._threads = ThreadPoolExecutor(readers, "fastcrew-readers")
        self._of_thread = threading.local()
        self._connections: list[sqlite3.Connection] = []

    def submit(self, query: _Query) -> Future[Any]:
        try:
            return self._threads.submit(self._read, query)
        except RuntimeError:
            raise _closed() from None

    def close(self) -> None:
        self._threads.shutdown()
        while self._connections:
            self._connections.pop().close()

    def _read(self, query: _Query) -> Any:
        try:
            return query.run(self._connection())
        except (sqlite3.Error, sqlite3.Warning) as error:  # Python 3.10 warns of a second statement
            failure = statement.translate(self._path, error)
            if isinstance(failure, DatabaseReadOnlyError):
                failure = StatementError(
                    "fetch_one() and fetch_all() only read: use execute(), its result has the rows of RETURNING"
                )
            raise failure from error

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._of_thread, "connection", None)
        if connection is None:
            connection = sqlite3.connect(
                self._path, timeout=self._busy_timeout, isolation_level=None, check_same_thread=False
            )
            self._connections.append(connection)
            connection.execute("PRAGMA query_only = ON")
            connection.execute("PRAGMA temp_store = MEMORY")
            self._of_thread.connection = connection
        return connection


class _Query:
    def __init__(self, sql: str, params: Any, one: bool) -> None:
        self._sql, self._params, self._one = sql, params, one
        self.left = False
        """The caller has gone: no runaway query keeps a connection."""

    def run(self, connection: sqlite3.Connection) -> Any:
        connection.set_progress_handler(lambda: self.left, _LOOK_EVERY)
        cursor = connection.execute(self._sql, self._params)
        answer = cursor.fetchone() if self._one else cursor.fetchall()
        cursor.close()
        return answer


class Store:
    """One SQLite file. ``fastcrew_async.Database`` is the usual way to it."""

    def __init__(
        self, runtime: Runtime, path: str, readers: int, queue_size: int, durability: str, busy_timeout: float
    ) -> None:
        runtime.check_process("runtime")
        self._runtime = runtime
        self._queue_size = queue_size
        self._writer = _Writer(path, durability, busy_timeout)
        self._readers = _Readers(path, readers, busy_timeout)
        # Forgotten without close(): what is queued is written, then the file is closed.
        weakref.finalize(self, _abandon, self._writer, self._readers).atexit = False

    def open(self) -> Awaitable[None]:
        return self._wait(lambda: self._write(None))

    def open_sync(self) -> None:
        self._wait_sync(self._write(None))

    def execute(self, sql: str, parameters: Any) -> Awaitable[Outcome]:
        act = _one(sql, parameters)
        return self._wait(lambda: self._write(act))

    def execute_sync(self, sql: str, parameters: Any) -> Any:
        return self._wait_sync(self._write(_one(sql, parameters)))

    def execute_many(self, sql: str, rows: Iterable[Any]) -> Awaitable[Outcome]:
        act = _many(sql, rows)
        return self._wait(lambda: self._write(act))

    def execute_many_sync(self, sql: str, rows: Iterable[Any]) -> Any:
        return self._wait_sync(self._write(_many(sql, rows)))

    def batch(self, statements: Iterable[Any]) -> Awaitable[list[Outcome]]:
        act = _batch(statements)
        return self._wait(lambda: self._write(act))

    def batch_sync(self, statements: Iterable[Any]) -> Any:
        return self._wait_sync(self._write(_batch(statements)))

    def fetch(self, sql: str, parameters: Any, one: bool) -> Awaitable[Any]:
        query = _query(sql, parameters, one)

        async def start() -> Any:
            await self._wait(self._opening)
            try:
                return await self._wait(lambda: self._readers.submit(query))
            finally:
                query.left = True

        return Awaitable(start)

    def fetch_sync(self, sql: str, parameters: Any, one: bool) -> Any:
        query = _query(sql, parameters, one)
        self._wait_sync(self._opening())
        return self._wait_sync(self._readers.submit(query))

    def close(self) -> Awaitable[None]:
        closed = self._closing()
        return self._wait(lambda: closed)

    def close_sync(self) -> None:
        self._wait_sync(self._closing())

    def stats(self) -> tuple[int, int, int, int]:
        writer = self._writer
        return min(writer.queued, self._queue_size), writer.writes, writer.commits, writer.largest_group

    def _write(self, act: Act | None) -> Future[Any]:
        self._runtime.check_process("Database")
        job = _Job(act)
        self._writer.put(job)
        return job.future

    def _opening(self) -> Future[Any]:
        """The writer creates the file and sets its format, once; from then on reads do not pass it."""
        self._runtime.check_process("Database")
        if self._writer.closing:
            raise _closed()
        if not self._writer.opened:
            return self._write(None)
        opened: Future[Any] = Future()
        opened.set_result(None)
        return opened

    def _closing(self) -> Future[Any]:
        self._runtime.check_process("Database")
        self._writer.close()
        closed: Future[Any] = Future()

        def close() -> None:
            self._readers.close()
            self._writer.end()
            closed.set_result(None)

        threading.Thread(target=close, name="fastcrew-closing", daemon=True).start()
        return closed

    def _wait(self, begin: Callable[[], Future[Any]]) -> Awaitable[Any]:
        async def start() -> Any:
            operation: Operation[Any] = Operation(self._runtime)
            try:
                future = begin()
            except BaseException:
                self._runtime.leave(operation)
                raise

            def done(future: Future[Any]) -> None:
                if not future.cancelled():
                    error = future.exception()
                    operation.complete(None if error else future.result(), error)

            future.add_done_callback(done)
            try:
                return await operation.wait()
            finally:
                # A write whose turn has come runs on: it is committed whole.
                future.cancel()

        return Awaitable(start)

    def _wait_sync(self, future: Future[Any]) -> Any:
        if self._runtime.closed:
            future.cancel()
            raise RuntimeClosedError("the runtime is closed; fastcrew_async.runtime.get() makes a new one")
        try:
            return future.result()
        except CancelledError:
            raise _closed() from None


def _abandon(writer: _Writer, readers: _Readers) -> None:
    writer.close()

    def close() -> None:
        readers.close()
        writer.end()

    threading.Thread(target=close, name="fastcrew-closing", daemon=True).start()


def _one(sql: str, parameters: Any) -> Act:
    statement.check_write(sql)
    cells = statement.cells(parameters)
    return lambda connection: _run(connection, sql, cells)


def _many(sql: str, rows: Iterable[Any]) -> Act:
    statement.check_write(sql)
    numbered = list(enumerate(statement.many(rows), 1))

    def act(connection: sqlite3.Connection) -> Outcome:
        changed, row_id, returned = 0, None, []
        for number, cells in numbered:
            outcome = _run_numbered("row" if len(numbered) > 1 else "", number, connection, sql, cells)
            changed += outcome[0]
            row_id = row_id if outcome[1] is None else outcome[1]
            returned += outcome[2]
        return changed, row_id, returned

    return act


def _batch(statements: Iterable[Any]) -> Act:
    pairs = statement.batch(statements)
    for sql, _ in pairs:
        statement.check_write(sql)
    return lambda connection: [
        _run_numbered("statement", number, connection, sql, cells) for number, (sql, cells) in enumerate(pairs, 1)
    ]


def _query(sql: str, parameters: Any, one: bool) -> _Query:
    statement.check_read(sql)
    return _Query(sql, statement.bound(sql, statement.cells(parameters)), one)


def _run(connection: sqlite3.Connection, sql: str, cells: Any) -> Outcome:
    cells = statement.bound(sql, cells)
    counts = statement.changes_rows(sql)
    if counts:
        # SQLite keeps the last row id of the connection, that is of another caller: row 0 here means "none yet".
        connection.execute("INSERT OR REPLACE INTO temp.fastcrew_mark VALUES (0)")
    before = connection.total_changes
    cursor = connection.execute(sql, cells)
    rows = cursor.fetchall()
    row_id = cursor.lastrowid or None
    cursor.close()
    if not counts or connection.total_changes == before:
        return 0, None, rows
    (changed,) = connection.execute("SELECT changes()").fetchone()
    return changed, row_id, rows


def _run_numbered(what: str, number: int, connection: sqlite3.Connection, sql: str, cells: Any) -> Outcome:
    try:
        return _run(connection, sql, cells)
    except Exception as error:
        failure = statement.translate("", error)
        raise statement.numbered(what, number, failure) if what else failure from error


def _closed() -> DatabaseClosedError:
    return DatabaseClosedError("the database is closed; make a new Database to go on")
