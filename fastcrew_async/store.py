"""One SQLite file, written in groups and read in parallel, without blocking the event loop.

    async with Database("app.db") as db:
        await db.execute("CREATE TABLE IF NOT EXISTS note (id INTEGER PRIMARY KEY, text TEXT)")
        result = await db.execute("INSERT INTO note (text) VALUES (?)", ["tea"])
        rows = await db.fetch_all("SELECT id, text FROM note")

Writes go through one queue to one thread, which commits all that has queued up in one transaction and acknowledges
after the commit. Reads run on pooled connections and never wait for a write. The file is in WAL mode, with foreign keys
enforced.

**Cancelling** the await of a write leaves one of two states, never a third: the write is withdrawn when its turn had
not come, and committed whole when it had. Cancelling a read interrupts its query.

**Do not open the same file with Python's** ``sqlite3`` **in the same process.** The compiled core brings an SQLite of
its own, POSIX locks belong to the process, and two SQLites in one process do not see each other's: rows get lost. Other
processes may open the file with anything. Several ``Database`` objects on one path share one writer and its readers.

**After a fork** the child cannot use the parent's objects, nor open the files that the parent had open: it gets
``ForkedProcessError``. Open databases after forking, or start processes by ``spawn``.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias, cast

from fastcrew_async import runtime
from fastcrew_async._native import Runtime, Store
from fastcrew_async.errors import DatabaseClosedError, DatabaseOpenError, ForkedProcessError

__all__ = ["Database", "DatabaseStats", "WriteResult"]

Value: TypeAlias = "int | float | str | bytes | None"
Row: TypeAlias = "tuple[Value, ...]"
Parameters: TypeAlias = "tuple[Value, ...] | list[Any] | Mapping[str, Any]"
Durability: TypeAlias = Literal["full", "relaxed"]


class WriteResult(NamedTuple):
    """What a write did."""

    rows_changed: int
    """Rows that were inserted, updated or deleted; those changed by triggers do not count."""
    last_row_id: int | None
    """The row id of the last row that *this* write inserted; None when it inserted none."""
    rows: list[Row]
    """The rows of ``RETURNING``."""


class DatabaseStats(NamedTuple):
    """Counts of one file since it was opened in this process."""

    queued: int
    """Writes that wait for the writer."""
    writes: int
    """Writes that were served by a commit."""
    commits: int
    """Groups that were committed."""
    largest_group: int
    """The most writes that shared a commit."""


class _Settings(NamedTuple):
    readers: int
    queue_size: int
    durability: Durability
    busy_timeout: float


class _File:
    """An open file and the databases of this process that share it."""

    def __init__(self, owner: Runtime, path: str, settings: _Settings) -> None:
        self.owner = owner
        self.settings = settings
        self.store = Store(owner, path, *settings)
        self.users: weakref.WeakSet[Database] = weakref.WeakSet()


_files: weakref.WeakValueDictionary[str, _File] = weakref.WeakValueDictionary()
_lock = threading.Lock()
# Open in the parent when this process was forked off. Kept for ever: closing them here would break the parent's locks.
_inherited: dict[str, _File] = {}


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    _inherited.update(_files)
    _files.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Database:
    """An SQLite file. The file is opened by the first operation, by ``open`` or by ``async with``.

    Args:
        path: The file; it is created where it is missing, its folder is not. ``:memory:`` is refused.
        readers: How many queries run at once.
        queue_size: How many writes queue up; further ones wait for a place, none is dropped.
        durability: ``"full"`` acknowledges a write when it is on disk (``synchronous=FULL``). ``"relaxed"``
            (``synchronous=NORMAL``) acknowledges before: a crash of the process loses nothing, a power cut may lose the
            last moments.
        busy_timeout: Seconds to wait for a file that another process holds before ``DatabaseBusyError``.

    Parameters of statements are a tuple or a list for ``?``, or a mapping for ``:name``. Values are None, bool (stored
    as 0 or 1), int (64 bits, else ``OverflowError``), float, str and bytes, else ``TypeError``. SQLite stores the float
    NaN as NULL.

    The database opens and commits transactions itself, so ``BEGIN`` and its kin, ``ATTACH``, ``VACUUM`` and most
    pragmas are refused with ``StatementError``. A write that fails, fails alone, also on a constraint deferred to the
    commit.

    Every method may raise a ``DatabaseError``: ``StatementError`` or ``IntegrityError`` for the statement,
    ``DatabaseOpenError``, ``...BusyError``, ``...LockedError``, ``...FullError``, ``...ReadOnlyError``,
    ``...CorruptError`` for the file, ``DatabaseClosedError`` after ``close``. A write that raised one of these changed
    nothing.

    The methods ending in ``_sync`` are for callers without an event loop; they wait with the GIL released.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        readers: int = 4,
        queue_size: int = 10_000,
        durability: Durability = "full",
        busy_timeout: float = 30.0,
    ) -> None:
        name = os.fspath(path)
        if not isinstance(name, str):
            raise TypeError(f"path must be a str or a path of str, not {type(name).__name__}")
        if not name or name == ":memory:" or name.startswith("file:"):
            raise DatabaseOpenError(f"{name!r} is not the path of a file; a temporary folder serves for tests")
        for what, number in (("readers", readers), ("queue_size", queue_size)):
            if isinstance(number, bool) or not isinstance(number, int):
                raise TypeError(f"{what} must be an int, not {type(number).__name__}")
            if not 1 <= number <= 1_000_000:
                raise ValueError(f"{what} must be from 1 to 1,000,000, not {number}")
        if durability not in ("full", "relaxed"):
            raise ValueError(f'durability must be "full" or "relaxed", not {durability!r}')
        if not 0 <= busy_timeout <= 86_400:
            raise ValueError(f"busy_timeout must be from 0 to 86,400 seconds, not {busy_timeout}")
        # Symbolic links stay: to resolve them would touch the disk, on the loop.
        self._path = os.path.normpath(name) if os.path.isabs(name) else os.path.abspath(name)
        self._settings = _Settings(readers, queue_size, durability, float(busy_timeout))
        self._file: _File | None = None
        self._closed = False

    @property
    def path(self) -> str:
        """The file's path, absolute."""
        return self._path

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed

    @classmethod
    async def open(
        cls,
        path: str | os.PathLike[str],
        *,
        readers: int = 4,
        queue_size: int = 10_000,
        durability: Durability = "full",
        busy_timeout: float = 30.0,
    ) -> Database:
        """A database whose file is known to open."""
        database = cls(path, readers=readers, queue_size=queue_size, durability=durability, busy_timeout=busy_timeout)
        return await database.__aenter__()

    async def __aenter__(self) -> Database:
        try:
            await self._store().open()
        except BaseException:
            # No __aexit__ follows; a later attempt starts afresh.
            if self._file is not None:
                with _lock:
                    self._file.users.discard(self)
                self._file = None
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def execute(self, sql: str, params: Parameters = ()) -> WriteResult:
        """Runs one statement that writes; returns when its commit is acknowledged."""
        return tuple.__new__(WriteResult, await self._store().execute(sql, params))

    async def execute_many(self, sql: str, rows: Iterable[Parameters]) -> WriteResult:
        """Runs one statement with each of ``rows``, all or none. The result sums up ``rows_changed``."""
        return WriteResult(*await self._store().execute_many(sql, rows))

    async def batch(self, statements: Iterable[tuple[str, Parameters]]) -> list[WriteResult]:
        """Runs several statements, all or none: the transaction of this database."""
        return [WriteResult(*result) for result in await self._store().batch(statements)]

    async def fetch_one(self, sql: str, params: Parameters = ()) -> Row | None:
        """The first row of a query, or None. The query is not run further than that."""
        return cast("Row | None", await self._store().fetch(sql, params, True))

    async def fetch_all(self, sql: str, params: Parameters = ()) -> list[Row]:
        """All rows of a query. They become Python objects on the loop: take thousands at a time, not millions."""
        return cast("list[Row]", await self._store().fetch(sql, params, False))

    async def close(self) -> None:
        """Waits for the writes that were queued, then closes the file; later calls raise ``DatabaseClosedError``."""
        if file := self._leave():
            # Where others share the file, opening it once more only waits for what was queued before.
            await (file.store.open() if file.users else file.store.close())
            self._forget(file)

    def execute_sync(self, sql: str, params: Parameters = ()) -> WriteResult:
        """The blocking twin of ``execute``."""
        return WriteResult(*self._store().execute_sync(sql, params))

    def execute_many_sync(self, sql: str, rows: Iterable[Parameters]) -> WriteResult:
        """The blocking twin of ``execute_many``."""
        return WriteResult(*self._store().execute_many_sync(sql, rows))

    def batch_sync(self, statements: Iterable[tuple[str, Parameters]]) -> list[WriteResult]:
        """The blocking twin of ``batch``."""
        return [WriteResult(*result) for result in self._store().batch_sync(statements)]

    def fetch_one_sync(self, sql: str, params: Parameters = ()) -> Row | None:
        """The blocking twin of ``fetch_one``."""
        return cast("Row | None", self._store().fetch_sync(sql, params, True))

    def fetch_all_sync(self, sql: str, params: Parameters = ()) -> list[Row]:
        """The blocking twin of ``fetch_all``."""
        return cast("list[Row]", self._store().fetch_sync(sql, params, False))

    def close_sync(self) -> None:
        """The blocking twin of ``close``."""
        if file := self._leave():
            if file.users:
                file.store.open_sync()
            else:
                file.store.close_sync()
            self._forget(file)

    def stats(self) -> DatabaseStats:
        """Counts of the file, over all databases of this process that share it."""
        return DatabaseStats(*self._store().stats())

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open" if self._file else "not opened yet"
        return f"<Database {self._path!r}, {state}>"

    def _store(self) -> Store:
        if self._closed:
            raise DatabaseClosedError(f"the database {self._path} is closed: make a new Database to go on")
        if self._file is None:
            self._file = self._share()
        return self._file.store

    def _share(self) -> _File:
        """The file of this path: that of another database of this process, or a new one."""
        owner = runtime.get()
        with _lock:
            if self._path in _inherited:
                raise ForkedProcessError(
                    f"{self._path} was open in the parent when process {os.getpid()} was forked off, so it cannot be "
                    "opened here: open it only after forking, or start the process by spawn"
                )
            file = _files.get(self._path)
            if file is None or file.owner is not owner or not file.users:
                file = _files[self._path] = _File(owner, self._path, self._settings)
            elif file.settings != self._settings:
                raise DatabaseOpenError(f"{self._path} is open in this process with other settings: {file.settings}")
            file.users.add(self)
            return file

    def _leave(self) -> _File | None:
        self._closed = True
        if self._file is not None:
            with _lock:
                self._file.users.discard(self)
        return self._file

    def _forget(self, file: _File) -> None:
        """The file is closed, unless somebody uses it or has opened it anew."""
        with _lock:
            if not file.users and _files.get(self._path) is file:
                del _files[self._path]
