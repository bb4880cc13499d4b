"""Which store a ``Memory(storage="...")`` gets, and which one a ``Knowledge`` gets.

``install()`` puts these where ``set_memory_storage_factory`` (``crewai/memory/storage/factory.py``) and
``set_knowledge_storage_factory`` (``crewai/knowledge/storage/factory.py``) put a factory. One that was set before is
asked first, and one that is set later takes its place; a store that is given as an object is none of their business.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

NAME = "fastcrew"

as_default = False
"""Whether a memory that names no store gets one of ours: ``install(memory=True)``."""

keeps_knowledge = False
"""Whether knowledge that names no store gets one of ours: ``install(knowledge=True)``."""


def after(given: Callable[[str], Any] | None) -> Callable[[str], Any]:
    """A factory that asks ``given`` first."""

    def make(spec: str) -> Any:
        if given is not None and (made := given(spec)) is not None:
            return made
        name, colon, path = spec.partition(":")
        if name == NAME:
            from fastcrew_async.memory.store import MemoryStore

            return MemoryStore(path if colon else None)
        if as_default and spec == "lancedb":
            from fastcrew_async.memory.store import MemoryStore

            return MemoryStore()
        return None

    return make


def knowledge_after(given: Callable[[Any, str | None], Any] | None) -> Callable[[Any, str | None], Any]:
    """A factory for knowledge that asks ``given`` first."""

    def make(embedder: Any, collection_name: str | None) -> Any:
        if given is not None and (made := given(embedder, collection_name)) is not None:
            return made
        if not keeps_knowledge:
            return None
        from fastcrew_async.memory.knowledge import KnowledgeStore

        if embedder is None and os.environ.get("OPENAI_API_KEY"):
            # CrewAI's default; source: crewai/rag/chromadb/config.py: _default_embedding_function.
            embedder = {"provider": "openai", "config": {"model_name": "text-embedding-3-small"}}
        return KnowledgeStore(collection_name, embedder=embedder)

    return make
