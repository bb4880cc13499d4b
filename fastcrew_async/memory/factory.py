"""Which store a ``Memory(storage="...")`` gets.

``install()`` puts this where ``set_memory_storage_factory`` (``crewai/memory/storage/factory.py``) puts a factory. One
that was set before is asked first, and one that is set later takes its place; a store that is given as an object is
none of its business.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

NAME = "fastcrew"

as_default = False
"""Whether a memory that names no store gets one of ours: ``install(memory=True)``."""


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
