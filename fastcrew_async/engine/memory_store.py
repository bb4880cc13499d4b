"""CrewAI's default memory store, opened when it is first used.

Every flow, and every crew with ``memory=True``, has a memory of its own. CrewAI imports and opens its store as the
memory is made, on the loop where it is made there: milliseconds of disk and threads, used or not.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from crewai.memory.storage.factory import resolve_memory_storage
from crewai.memory.unified_memory import Memory

_OURS = "fastcrew_async.memory.store"
_KEYS = ("OPENAI_API_KEY", "EMBEDDINGS_OPENAI_API_KEY")  # of CrewAI's default embedder


def unopened(memory: Memory, stock: Callable[[], None]) -> None:
    """``Memory.model_post_init``, which is `stock`, with a store that is opened later, and, where nothing is there that
    could embed, with search by words."""
    _with_store(memory, stock)
    if memory.embedder is None and type(memory._storage).__module__ == _OURS and not any(map(os.environ.get, _KEYS)):
        from fastcrew_async.memory.words import WordEmbedder

        memory._embedder_instance = WordEmbedder()


def _with_store(memory: Memory, stock: Callable[[], None]) -> None:
    given = memory.storage
    if not isinstance(given, str) or given == "qdrant-edge":
        stock()
        return
    store = resolve_memory_storage(given)
    if store is None:
        store = Unopened(None if given == "lancedb" else given)
    memory.__dict__["storage"] = store  # CrewAI takes an object as it is
    try:
        stock()
    finally:
        memory.__dict__["storage"] = given


class Unopened:
    """A LanceDB store in its place; whatever is asked of it is asked of the store."""

    def __init__(self, path: str | None) -> None:
        self.__dict__.update(_path=path, _opening=threading.Lock(), _store=None)

    def _opened(self) -> Any:
        own = self.__dict__
        if own["_store"] is None:
            with own["_opening"]:
                if own["_store"] is None:
                    from crewai.memory.storage.lancedb_storage import LanceDBStorage

                    own["_store"] = LanceDBStorage(own["_path"])
        return own["_store"]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._opened(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._opened(), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._opened(), name)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        store = self.__dict__["_store"]
        return Unopened(self.__dict__["_path"]) if store is None else deepcopy(store, memo)

    def close(self) -> None:
        """Close the store, where it has been opened and can be closed."""
        close = getattr(self.__dict__["_store"], "close", None)
        if close is not None:
            close()
