"""CrewAI's memory storage on the core.

    memory = Memory(storage=MemoryStore("notes"), embedder=..., llm=...)

The folder holds ``records.db``, an SQLite file that is the truth, and ``vectors-*``, files that are read where they
lie. Several processes may use one folder. See docs/memory.md.

Source of the protocol: ``crewai/memory/storage/backend.py: StorageBackend`` of CrewAI 1.15.30; of what its methods
mean: ``crewai/memory/storage/lancedb_storage.py: LanceDBStorage``.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

from crewai.memory.types import MemoryRecord, ScopeInfo

from fastcrew_async import runtime
from fastcrew_async._native import Memories, Runtime
from fastcrew_async.errors import ForkedProcessError
from fastcrew_async.memory import compaction, rows, similarity
from fastcrew_async.memory.words import WordEmbedder, unwrapped

__all__ = ["MemoryStats", "MemoryStore"]

Method: TypeAlias = Literal["bm25", "tfidf"]
Matches: TypeAlias = "list[tuple[MemoryRecord, float]]"


class MemoryStats(NamedTuple):
    """The sizes of a store, and counts of what this process wrote to it."""

    records: int
    dimensions: int
    """Of its vectors; 0 where there was none yet."""
    slots: int
    """Places for vectors that were used, and how many of these belong to records that are gone."""
    dead_slots: int
    records_bytes: int
    """Of the file of records, and what of it is free."""
    free_bytes: int
    vectors_bytes: int
    """Of the slots that were used."""
    queued: int
    """Writes that wait for the writer."""
    writes: int
    """Writes that were served by a commit."""
    commits: int
    """Groups that were committed."""
    largest_group: int
    """The most writes that shared a commit."""


class _Folder:
    """A folder that this process has open, for as long as a store uses it."""

    def __init__(self, owner: Runtime, path: str, readers: int, busy_timeout: float) -> None:
        self.owner = owner
        self.settings = (readers, busy_timeout)
        self.core = Memories(owner, path, readers, busy_timeout)
        self.upkeep = compaction.Upkeep()
        self.users: weakref.WeakSet[MemoryStore] = weakref.WeakSet()


_folders: weakref.WeakValueDictionary[str, _Folder] = weakref.WeakValueDictionary()
_lock = threading.Lock()
# Open in the parent when this process was forked off. Kept for ever: closing them here would break the parent's locks.
_inherited: dict[str, _Folder] = {}


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    _inherited.update(_folders)
    _folders.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def default_path() -> str:
    """Where CrewAI keeps memories (``$CREWAI_STORAGE_DIR``, or its folder of user data), a folder of our own."""
    base = os.environ.get("CREWAI_STORAGE_DIR")
    if not base:
        from crewai_core.paths import db_storage_path

        base = db_storage_path()
    return os.path.join(base, "fastcrew_memory")


class MemoryStore:
    """A ``crewai.memory.storage.backend.StorageBackend``: records, their vectors, and exact searches.

    Args:
        path: The folder; it is created where it is missing. None is ``fastcrew_memory`` where CrewAI keeps memories.
        metric: How near two vectors are. ``"cosine"`` and ``"euclid"`` score ``1 / (1 + squared distance)``, as
            CrewAI's own store does, the cosine of the vectors made 1 long; ``"dot"`` scores
            ``1 / (1 + exp(-product))``. Or the name of a similarity of yours: see ``register``.
        stemmed: Whether searches by words take English words by their stems (Porter's): "saved" finds "saving".
        readers: How many searches and listings run at once.
        busy_timeout: Seconds to wait for a store that another process is writing to.

    Every method has an async twin of its name with an ``a`` before it, which never holds up the event loop. A write
    returns when it is on disk. After ``close`` the next call opens the folder again.

    Raises:
        crewai.memory.storage.backend.EmbeddingDimensionMismatchError: a vector's length is not that of the others.
        ValueError: a vector holds NaN or an infinite number, a text holds a lone surrogate.
        DatabaseError: the files cannot be opened or written; see :mod:`fastcrew_async.errors`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        metric: str = "cosine",
        stemmed: bool = True,
        readers: int = 4,
        busy_timeout: float = 30.0,
    ) -> None:
        similarity.check(metric)
        if isinstance(readers, bool) or not isinstance(readers, int) or not 1 <= readers <= 1000:
            raise ValueError(f"readers must be an int from 1 to 1,000, not {readers!r}")
        if not 0 <= busy_timeout <= 86_400:
            raise ValueError(f"busy_timeout must be from 0 to 86,400 seconds, not {busy_timeout}")
        name = os.fspath(default_path() if path is None else path)
        if not isinstance(name, str) or not name:
            raise ValueError(f"path must be the path of a folder, not {path!r}")
        self._path = os.path.normpath(name) if os.path.isabs(name) else os.path.abspath(name)
        self._metric = metric
        self._is_built_in = metric in similarity.BUILT_IN
        self._stemmed = bool(stemmed)
        self._settings = (readers, float(busy_timeout))
        self._folder: _Folder | None = None

    @property
    def path(self) -> str:
        """The folder's path, absolute."""
        return self._path

    @property
    def metric(self) -> str:
        """How near two vectors are."""
        return self._metric

    register = staticmethod(similarity.register)

    def __repr__(self) -> str:
        return f"<MemoryStore {self._path!r}>"

    # A copy of a memory shares its store, as it shares the files.
    def __copy__(self) -> MemoryStore:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> MemoryStore:
        return self

    # --- the protocol -------------------------------------------------------------------------------------------------

    def save(self, records: Sequence[MemoryRecord]) -> None:
        """Add records. One whose id is there already is added beside it, as CrewAI's own store does."""
        if records:
            self._core().save_sync(map(rows.incoming, records))

    async def asave(self, records: Sequence[MemoryRecord]) -> None:
        """The async twin of ``save``."""
        if records:
            await self._core().save(map(rows.incoming, records))

    def update(self, record: MemoryRecord) -> None:
        """Put a record in the place of all that have its id."""
        self.replace([record])

    async def aupdate(self, record: MemoryRecord) -> None:
        """The async twin of ``update``."""
        await self.areplace([record])

    def replace(self, records: Sequence[MemoryRecord]) -> None:
        """Put records in the place of all that have their ids, in one step: no search sees a part of it."""
        if records:
            self._core().replace_sync(map(rows.incoming, records))
            self._tidy(len(records))

    async def areplace(self, records: Sequence[MemoryRecord]) -> None:
        """The async twin of ``replace``."""
        if records:
            await self._core().replace(map(rows.incoming, records))
            await self._atidy(len(records))

    def touch_records(self, record_ids: Sequence[str]) -> None:
        """Set ``last_accessed`` of these records to now."""
        if record_ids:
            self._core().touch_sync(list(record_ids), rows.now().isoformat())

    async def atouch_records(self, record_ids: Sequence[str]) -> None:
        """The async twin of ``touch_records``."""
        if record_ids:
            await self._core().touch(list(record_ids), rows.now().isoformat())

    def get_record(self, record_id: str) -> MemoryRecord | None:
        """The record of this id, or None."""
        return _one(self._core().get_sync(str(record_id)))

    async def aget_record(self, record_id: str) -> MemoryRecord | None:
        """The async twin of ``get_record``."""
        return _one(await self._core().get(str(record_id)))

    def search(
        self,
        query_embedding: Sequence[float],
        scope_prefix: str | None = None,
        categories: Sequence[str] | None = None,
        metadata_filter: dict[str, Any] | None = None,
        limit: int = 10,
        min_score: float = 0.0,
        *,
        source: str | None = None,
        include_private: bool = True,
        newer_than: datetime | None = None,
        older_than: datetime | None = None,
    ) -> Matches:
        """The nearest records with their scores, the best first. Exact: every record that the filters take is ranked.

        Args:
            query_embedding: What to be near to.
            scope_prefix: What a record's scope begins with.
            categories: A record has one of them.
            metadata_filter: A record's metadata has all these values.
            limit: How many at most.
            min_score: The least score.
            source: With ``include_private=False``, whose private records are found too.
            include_private: Whether private records are found.
            newer_than: A record was created then or later.
            older_than: A record was created before.
        """
        visible_to = None if include_private else source or ""
        asked = rows.wanted(_prefix(scope_prefix), categories, metadata_filter, visible_to, newer_than, older_than)
        text, vector = unwrapped(query_embedding)
        if text is None:
            query = rows.vector(vector)
            search = self._core().search_sync if self._is_built_in else partial(similarity.search, self._core())
            return _matches(search(self._metric, query, asked, max(limit, 0), min_score))
        found = self._core().by_words_sync(*self._worded(text, vector, "tfidf", asked, limit))
        return [match for match in _matches(found) if match[1] >= min_score]

    async def asearch(
        self,
        query_embedding: Sequence[float],
        scope_prefix: str | None = None,
        categories: Sequence[str] | None = None,
        metadata_filter: dict[str, Any] | None = None,
        limit: int = 10,
        min_score: float = 0.0,
        *,
        source: str | None = None,
        include_private: bool = True,
        newer_than: datetime | None = None,
        older_than: datetime | None = None,
    ) -> Matches:
        """The async twin of ``search``."""
        visible_to = None if include_private else source or ""
        asked = rows.wanted(_prefix(scope_prefix), categories, metadata_filter, visible_to, newer_than, older_than)
        text, vector = unwrapped(query_embedding)
        if text is None:
            query = rows.vector(vector)
            search = self._core().search if self._is_built_in else partial(similarity.asearch, self._core())
            return _matches(await search(self._metric, query, asked, max(limit, 0), min_score))
        found = await self._core().by_words(*self._worded(text, vector, "tfidf", asked, limit))
        return [match for match in _matches(found) if match[1] >= min_score]

    def search_words(
        self,
        text: str,
        scope_prefix: str | None = None,
        categories: Sequence[str] | None = None,
        metadata_filter: dict[str, Any] | None = None,
        limit: int = 10,
        *,
        method: Method = "bm25",
        embedding: Sequence[float] = (),
        source: str | None = None,
        include_private: bool = True,
        newer_than: datetime | None = None,
        older_than: datetime | None = None,
    ) -> Matches:
        """The records that have words of ``text``, the best first; the filters are those of ``search``.

        Args:
            text: Words. There is no query language: what other engines take for operators is words, or blanks.
            method: ``"bm25"`` (k1 1.2, b 0.75, ``ln(1 + (N - n + 0.5) / (n + 0.5))``, which is never negative), or
                ``"tfidf"``: the cosine of the words' weights, from 0 to 1, 1 for a text of the same words.
            embedding: A vector to be near to as well. The two rankings are fused by their reciprocal ranks (constant
                60), and the score is 1 where both put a record first.
        """
        visible_to = None if include_private else source or ""
        asked = rows.wanted(_prefix(scope_prefix), categories, metadata_filter, visible_to, newer_than, older_than)
        return _matches(self._core().by_words_sync(*self._worded(text, embedding, method, asked, limit)))

    async def asearch_words(
        self,
        text: str,
        scope_prefix: str | None = None,
        categories: Sequence[str] | None = None,
        metadata_filter: dict[str, Any] | None = None,
        limit: int = 10,
        *,
        method: Method = "bm25",
        embedding: Sequence[float] = (),
        source: str | None = None,
        include_private: bool = True,
        newer_than: datetime | None = None,
        older_than: datetime | None = None,
    ) -> Matches:
        """The async twin of ``search_words``."""
        visible_to = None if include_private else source or ""
        asked = rows.wanted(_prefix(scope_prefix), categories, metadata_filter, visible_to, newer_than, older_than)
        return _matches(await self._core().by_words(*self._worded(text, embedding, method, asked, limit)))

    def embedder(self, embedder: Callable[[list[str]], Any] | None = None) -> WordEmbedder:
        """What ``Memory(embedder=...)`` takes for search by words, without any provider of embeddings; with
        ``embedder``, by words and by its vectors."""
        return WordEmbedder(embedder)

    def delete(
        self,
        scope_prefix: str | None = None,
        categories: Sequence[str] | None = None,
        record_ids: Sequence[str] | None = None,
        older_than: datetime | None = None,
        metadata_filter: dict[str, Any] | None = None,
    ) -> int:
        """Delete what meets all conditions that are given (everything, where none is), and tell how many.

        ``record_ids`` without categories and metadata name the records by themselves, as in CrewAI. Its own store
        deletes more than it is asked to in four cases, and this one does not: with ``scope_prefix`` the records of the
        scope ``/`` too, with ``scope_prefix`` and ``older_than`` also the newer ones of the scope, with ``categories``
        or ``metadata_filter`` also what is not among ``record_ids``, and everything with an empty list of
        ``record_ids`` and no more.
        """
        asked = _doomed(scope_prefix, categories, record_ids, older_than, metadata_filter)
        return self._delete(asked)

    async def adelete(
        self,
        scope_prefix: str | None = None,
        categories: Sequence[str] | None = None,
        record_ids: Sequence[str] | None = None,
        older_than: datetime | None = None,
        metadata_filter: dict[str, Any] | None = None,
    ) -> int:
        """The async twin of ``delete``."""
        asked = _doomed(scope_prefix, categories, record_ids, older_than, metadata_filter)
        return await self._adelete(asked)

    def list_records(self, scope_prefix: str | None = None, limit: int = 200, offset: int = 0) -> list[MemoryRecord]:
        """The records of a scope and of those below, the newest first."""
        if limit <= 0 or offset < 0:
            return []
        found = self._core().newest_sync(_rooted(scope_prefix), limit, offset, True)
        return [rows.outgoing(row) for row in found]

    async def alist_records(
        self, scope_prefix: str | None = None, limit: int = 200, offset: int = 0
    ) -> list[MemoryRecord]:
        """The async twin of ``list_records``."""
        if limit <= 0 or offset < 0:
            return []
        found = await self._core().newest(_rooted(scope_prefix), limit, offset, True)
        return [rows.outgoing(row) for row in found]

    def get_scope_info(self, scope: str) -> ScopeInfo:
        """What lies in a scope and in those below."""
        path = scope.rstrip("/") or "/"
        return _info(path, self._core().scope_info_sync(_rooted(path)))

    async def aget_scope_info(self, scope: str) -> ScopeInfo:
        """The async twin of ``get_scope_info``."""
        path = scope.rstrip("/") or "/"
        return _info(path, await self._core().scope_info(_rooted(path)))

    def list_scopes(self, parent: str = "/") -> list[str]:
        """The scopes directly below a scope."""
        return _children(parent.rstrip("/") + "/", self._core().scopes_sync(_prefix(parent)))

    async def alist_scopes(self, parent: str = "/") -> list[str]:
        """The async twin of ``list_scopes``."""
        return _children(parent.rstrip("/") + "/", await self._core().scopes(_prefix(parent)))

    def list_categories(self, scope_prefix: str | None = None) -> dict[str, int]:
        """The categories of what lies in a scope, and how many records have each."""
        return dict(self._core().categories_sync(_prefix(scope_prefix)))

    async def alist_categories(self, scope_prefix: str | None = None) -> dict[str, int]:
        """The async twin of ``list_categories``."""
        return dict(await self._core().categories(_prefix(scope_prefix)))

    def count(self, scope_prefix: str | None = None) -> int:
        """How many records lie in a scope and in those below."""
        return int(self._core().count_sync(_rooted(scope_prefix)))

    async def acount(self, scope_prefix: str | None = None) -> int:
        """The async twin of ``count``."""
        return int(await self._core().count(_rooted(scope_prefix)))

    def reset(self, scope_prefix: str | None = None) -> None:
        """Delete what lies in a scope and in those below; without a scope everything, and the vectors' length is free
        again."""
        self._delete(_reset(scope_prefix))

    async def areset(self, scope_prefix: str | None = None) -> None:
        """The async twin of ``reset``."""
        await self._adelete(_reset(scope_prefix))

    # --- the files ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Wait for the writes that are queued and close the files, unless another store of this process uses them."""
        if folder := self._leave():
            folder.core.close_sync()

    async def aclose(self) -> None:
        """The async twin of ``close``."""
        if folder := self._leave():
            await folder.core.close()

    def compact(self, slice_size: int = compaction.SLICE) -> int:
        """Give the places of deleted vectors back, in slices of so many vectors, between which others write; tells how
        many files were removed. A file is rewritten when a fifth of it is gone, but for the one that is written to.

        Deletions and updates do it by themselves where half of a file is gone.
        """
        return compaction.drive(self._core(), compaction.compact(slice_size))

    async def acompact(self, slice_size: int = compaction.SLICE) -> int:
        """The async twin of ``compact``."""
        return await compaction.adrive(self._core(), compaction.compact(slice_size))

    def stats(self) -> MemoryStats:
        """Sizes and counts of the store."""
        core = self._core()
        return MemoryStats._make([*core.sizes_sync()[:-1], *core.writes()])

    async def astats(self) -> MemoryStats:
        """The async twin of ``stats``."""
        core = self._core()
        sizes = await core.sizes()
        return MemoryStats._make([*sizes[:-1], *core.writes()])

    def _delete(self, doomed: Any) -> int:
        count = int(self._core().delete_sync(*doomed))
        self._tidy(count)
        return count

    async def _adelete(self, doomed: Any) -> int:
        count = int(await self._core().delete(*doomed))
        await self._atidy(count)
        return count

    def _tidy(self, removed: int) -> None:
        if removed and (folder := self._folder):
            compaction.drive(folder.core, folder.upkeep.after(removed))

    async def _atidy(self, removed: int) -> None:
        if removed and (folder := self._folder):
            await compaction.adrive(folder.core, folder.upkeep.after(removed))

    def _worded(self, text: str, vector: Sequence[float], method: str, asked: Any, limit: int) -> tuple[Any, ...]:
        near = (self._metric, rows.vector(vector)) if len(vector) else None
        if near and not self._is_built_in:
            raise ValueError(
                f"words and vectors are ranked together by cosine, dot or euclid, not by {self._metric!r}: "
                "leave the embedding out, or take a store of another metric"
            )
        text = text.encode(errors="replace").decode()  # a lone surrogate is no word
        return text, method, self._stemmed, near, asked, max(limit, 0)

    def _core(self) -> Memories:
        folder = self._folder
        if folder is None or folder.owner.closed or self._path in _inherited:
            folder = self._folder = self._share()
        return folder.core

    def _share(self) -> _Folder:
        """The folder of this path: that of another store of this process, or a new one."""
        owner = runtime.get()
        with _lock:
            if self._path in _inherited:
                raise ForkedProcessError(
                    f"{self._path} was open in the parent when process {os.getpid()} was forked off, so it cannot be "
                    "opened here: open it only after forking, or start the process by spawn"
                )
            folder = _folders.get(self._path)
            if folder is None or folder.owner is not owner or not folder.users:
                folder = _folders[self._path] = _Folder(owner, self._path, *self._settings)
            folder.users.add(self)
            return folder

    def _leave(self) -> _Folder | None:
        """The folder, where this was its last user."""
        folder, self._folder = self._folder, None
        if folder is None:
            return None
        with _lock:
            folder.users.discard(self)
            if folder.users:
                return None
            if _folders.get(self._path) is folder:
                del _folders[self._path]
        return folder


def _prefix(scope: str | None) -> str | None:
    """None for the root, as everything begins with it."""
    return scope.rstrip("/") if scope is not None and scope.strip("/") else None


def _rooted(scope: str | None) -> str | None:
    prefix = _prefix(scope)
    return prefix if prefix is None or prefix.startswith("/") else f"/{prefix}"


def _doomed(
    scope_prefix: str | None,
    categories: Sequence[str] | None,
    record_ids: Sequence[str] | None,
    older_than: datetime | None,
    metadata_filter: dict[str, Any] | None,
) -> tuple[Any, Any, Any, bool]:
    """Which records to delete, as the core takes it."""
    ids = [str(record_id) for record_id in record_ids] if record_ids else None
    narrowed = bool(categories or metadata_filter)
    if ids is not None and not narrowed:
        return ids, None, None, False
    prefix = _prefix(scope_prefix) if narrowed else _rooted(scope_prefix)
    if prefix is None and not narrowed and older_than is None:
        return None if record_ids is None else [], None, None, False
    asked = rows.wanted(prefix, categories, metadata_filter)
    return ids, (asked, older_than.isoformat() if older_than is not None else None), None, False


def _reset(scope_prefix: str | None) -> tuple[Any, Any, Any, bool]:
    prefix = _prefix(scope_prefix)
    return None, None, None if prefix is None else (prefix, f"{prefix}/\uffff"), True


def _one(row: rows.Outgoing | None) -> MemoryRecord | None:
    return None if row is None else rows.outgoing(row)


def _matches(found: list[tuple[rows.Outgoing, float]]) -> Matches:
    return [(rows.outgoing(row), score) for row, score in found]


def _info(path: str, found: Any) -> ScopeInfo:
    scopes, categories, oldest, newest = found
    return ScopeInfo(
        path=path,
        record_count=sum(count for _, count in scopes),
        categories=sorted(name for name, _ in categories),
        oldest_record=None if oldest is None else rows.moment(oldest),
        newest_record=None if newest is None else rows.moment(newest),
        child_scopes=_children((_rooted(path) or "") + "/", scopes),
    )


def _children(parent: str, scopes: list[tuple[str, int]]) -> list[str]:
    """The next parts of the paths below ``parent``, which ends in a slash."""
    parts = {path[len(parent) :].split("/", 1)[0] for path, _ in scopes if path.startswith(parent)}
    return sorted(parent + part for part in parts if part)
