"""CrewAI's knowledge in a ``MemoryStore``.

    Knowledge(collection_name="docs", sources=[...], storage=KnowledgeStore("docs"))

Source of the protocol: ``crewai/knowledge/storage/base_knowledge_storage.py`` of CrewAI 1.15.30; of what its methods
mean and of the scores: ``crewai/knowledge/storage/knowledge_storage.py`` and ``crewai/rag/chromadb``.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from hashlib import blake2b, sha256
from typing import Any
from urllib.parse import quote

from crewai.knowledge.storage.base_knowledge_storage import BaseKnowledgeStorage
from crewai.memory.types import MemoryRecord
from crewai.rag.types import SearchResult
from pydantic import Field, PrivateAttr

from fastcrew_async import workers
from fastcrew_async.memory import rows
from fastcrew_async.memory.store import Matches, MemoryStore, default_path

_logger = logging.getLogger(__name__)
_BATCH = 100
"""Texts for one call of the embedder, as in CrewAI."""


class KnowledgeStore(BaseKnowledgeStorage):
    """A ``crewai.knowledge.storage.base_knowledge_storage.BaseKnowledgeStorage``: chunks of text in a ``MemoryStore``.

    Args:
        collection_name: What keeps these documents apart from others.
        embedder: What CrewAI takes (``{"provider": ..., "config": ...}``, a provider), or a function from texts to
            vectors. None searches by words (BM25), without any provider.
        store: A ``MemoryStore`` to share, or the path of one. None is a folder for this collection alone, below
            ``fastcrew_knowledge`` where CrewAI keeps memories.

    Results and scores are those of CrewAI's own storage, ``(1 + cosine) / 2`` (those of ``store``, where that has
    another metric). By words a score is the share of the best match's, so 1 for the best. The async methods run the
    embedder on a worker thread, and all else in the core.

    Raises:
        TypeError: ``embedder`` or ``store`` is none of these.
        ValueError: CrewAI knows no such provider of embeddings.
    """

    collection_name: str | None = None
    embedder: Any = Field(default=None, exclude=True)
    _store: MemoryStore = PrivateAttr()
    _embed: Any = PrivateAttr(default=None)
    _embed_query: Any = PrivateAttr(default=None)
    _shared: bool = PrivateAttr(default=False)

    def __init__(
        self,
        collection_name: str | None = None,
        *,
        embedder: Any = None,
        store: MemoryStore | str | os.PathLike[str] | None = None,
    ) -> None:
        fields: dict[str, Any] = {"collection_name": collection_name, "embedder": embedder}
        super().__init__(**fields)
        if not isinstance(store, (MemoryStore, str, os.PathLike, type(None))):
            raise TypeError(f"store must be a MemoryStore or the path of one, not {store!r}")
        self._embed, self._embed_query = _functions(embedder)
        self._shared = store is not None
        self._store = store if isinstance(store, MemoryStore) else MemoryStore(store or _default_path(collection_name))

    @property
    def store(self) -> MemoryStore:
        """Where the documents are."""
        return self._store

    # --- the protocol -------------------------------------------------------------------------------------------------

    def save(self, documents: list[str], metadata: dict[str, Any] | None = None) -> None:
        """Add documents; one that is there already is not added again.

        Args:
            documents: Texts, usually the chunks of a source.
            metadata: What ``metadata_filter`` finds them by.

        Raises:
            crewai.memory.storage.backend.EmbeddingDimensionMismatchError: the embedder's vectors have another length
                than those of before: ``reset()`` first.
            Exception: what the embedder raised.
        """
        for batch in self._batches(documents, metadata):
            found = [self._store.get_record(record.id) for record in batch]
            if self._embed is not None:
                _set_vectors(batch, self._embed(_texts(batch)))
            self._store.replace(_changed(batch, found))

    async def asave(self, documents: list[str], metadata: dict[str, Any] | None = None) -> None:
        """The async twin of ``save``."""
        for batch in self._batches(documents, metadata):
            found = [await self._store.aget_record(record.id) for record in batch]
            if self._embed is not None:
                _set_vectors(batch, await workers.pool().run(self._embed, _texts(batch)))
            await self._store.areplace(_changed(batch, found))

    def search(
        self,
        query: list[str],
        limit: int = 5,
        metadata_filter: dict[str, Any] | None = None,
        score_threshold: float = 0.6,
    ) -> list[SearchResult]:
        """The documents that answer the query best, with their scores. One that fails, which the log then tells, finds
        nothing, as in CrewAI.

        Args:
            query: Texts, which are joined.
            limit: How many at most.
            metadata_filter: A document's metadata has all these values.
            score_threshold: The least score.
        """
        try:
            text = _query(query)
            asked: Any = {"scope_prefix": self._scope, "metadata_filter": metadata_filter, "limit": limit}
            if self._embed_query is None:
                return _by_words(self._store.search_words(text, **asked), score_threshold)
            vector = self._embed_query([text])[0]
            return _by_vector(self._store, self._store.search(vector, **asked), score_threshold)
        except Exception:
            _logger.exception("Searching the knowledge in %s failed", self._store.path)
            return []

    async def asearch(
        self,
        query: list[str],
        limit: int = 5,
        metadata_filter: dict[str, Any] | None = None,
        score_threshold: float = 0.6,
    ) -> list[SearchResult]:
        """The async twin of ``search``."""
        try:
            text = _query(query)
            asked: Any = {"scope_prefix": self._scope, "metadata_filter": metadata_filter, "limit": limit}
            if self._embed_query is None:
                return _by_words(await self._store.asearch_words(text, **asked), score_threshold)
            vector = (await workers.pool().run(self._embed_query, [text]))[0]
            return _by_vector(self._store, await self._store.asearch(vector, **asked), score_threshold)
        except Exception:
            _logger.exception("Searching the knowledge in %s failed", self._store.path)
            return []

    def reset(self) -> None:
        """Delete the documents of this collection. In a folder of its own, the vectors' length is free again."""
        self._store.reset(self._scope if self._shared else None)

    async def areset(self) -> None:
        """The async twin of ``reset``."""
        await self._store.areset(self._scope if self._shared else None)

    # ------------------------------------------------------------------------------------------------------------------

    @property
    def _scope(self) -> str:
        # No scope of a collection begins with that of another; "%" alone is no quoted name.
        return f"/knowledge/{quote(self.collection_name, safe='') if self.collection_name else '%'}/documents"

    def _batches(self, documents: list[str], metadata: dict[str, Any] | None) -> Iterator[list[MemoryRecord]]:
        # Equal texts are one document. The id is CrewAI's, made one of the collection: collections may share a store.
        about = f"|{json.dumps(metadata, sort_keys=True)}" if metadata else ""
        texts = {sha256(f"{text}{about}".encode(errors="replace")).hexdigest(): text for text in documents}
        records = [
            MemoryRecord(
                id=f"{self._scope}/{digest}",
                content=text,
                scope=self._scope,
                metadata=metadata or {},
                source="knowledge",
                private=True,  # a memory that shares the store does not recall it
            )
            for digest, text in texts.items()
        ]
        return (records[at : at + _BATCH] for at in range(0, len(records), _BATCH))


def _default_path(collection_name: str | None) -> str:
    """A folder for one collection: its name as far as a file's may be, and what tells it from others."""
    folder = os.path.join(os.path.dirname(default_path()), "fastcrew_knowledge")
    name = collection_name or ""
    plain = re.sub(r"[^A-Za-z0-9]+", "_", name)[:40].strip("_")
    digest = blake2b(name.encode(errors="replace"), digest_size=8).hexdigest()
    return os.path.join(folder, f"{plain}-{digest}" if plain else digest)


def _functions(embedder: Any) -> tuple[Any, Any]:
    """What embeds documents, and what embeds queries."""
    if embedder is None:
        return None, None
    from crewai.rag.core.base_embeddings_provider import BaseEmbeddingsProvider

    if isinstance(embedder, (dict, BaseEmbeddingsProvider)):
        from crewai.rag.embeddings.factory import build_embedder

        made: Any = build_embedder(embedder)
        return made, getattr(made, "embed_query", made)
    if callable(embedder) and not isinstance(embedder, type):
        return embedder, embedder
    raise TypeError(f"embedder must be a provider as CrewAI takes it, or a function of texts, not {embedder!r}")


def _query(query: list[str]) -> str:
    if not query:
        raise ValueError("Query cannot be empty")
    return query if isinstance(query, str) else " ".join(query)


def _texts(batch: list[MemoryRecord]) -> list[str]:
    return [record.content for record in batch]


def _set_vectors(batch: list[MemoryRecord], vectors: Any) -> None:
    for record, vector in zip(batch, vectors, strict=True):
        record.embedding = [float(number) for number in vector]


def _changed(batch: list[MemoryRecord], found: Sequence[MemoryRecord | None]) -> list[MemoryRecord]:
    """What is not there as it is: CrewAI adds its sources anew at every kickoff."""
    return [record for record, there in zip(batch, found, strict=True) if there is None or not _same(record, there)]


def _same(record: MemoryRecord, there: MemoryRecord) -> bool:
    if record.embedding is None or there.embedding is None:
        return record.embedding is None
    return rows.vector(record.embedding) == rows.vector(there.embedding)


def _by_words(found: Matches, least: float) -> list[SearchResult]:
    best = found[0][1] if found else 1.0
    return _results([(record, score / best) for record, score in found], least)


def _by_vector(store: MemoryStore, found: Matches, least: float) -> list[SearchResult]:
    if store.metric == "cosine":  # it gives 1 / (3 - 2 cosine), CrewAI's storage gives (1 + cosine) / 2
        found = [(record, min(1.0, max(0.0, (5 - 1 / score) / 4))) for record, score in found]
    return _results(found, least)


def _results(found: Matches, least: float) -> list[SearchResult]:
    return [
        {"id": record.id.rpartition("/")[2], "content": record.content, "metadata": record.metadata, "score": score}
        for record, score in found
        if not least or score >= least
    ]
