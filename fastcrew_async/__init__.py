"""An asyncio-native runtime for CrewAI: crews on your event loop, on a Rust core."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

# Not at first use, as the others: there are modules of the names `install` and `stats`, and importing one of them
# later would take the name over.
from fastcrew_async.install.apply import Target, install, status, uninstall
from fastcrew_async.stats import Stats, stats

if TYPE_CHECKING:
    from fastcrew_async.calls import Call, call_stack
    from fastcrew_async.config import Settings, configure, settings
    from fastcrew_async.crew import AsyncCrew
    from fastcrew_async.deadlines import time_left
    from fastcrew_async.limits import Limit, Limits
    from fastcrew_async.memory.knowledge import KnowledgeStore
    from fastcrew_async.memory.store import MemoryStore
    from fastcrew_async.messages import AgentMessage, RunState
    from fastcrew_async.model.llm import LLM
    from fastcrew_async.retry import Retry
    from fastcrew_async.run import Run
    from fastcrew_async.store import Database, WriteResult
    from fastcrew_async.tools import ToolPolicy

__version__ = "0.1.0"

# Imported at first use: `import fastcrew_async` costs next to nothing, and the database works without CrewAI.
_HOMES = {
    "AgentMessage": "fastcrew_async.messages",
    "AsyncCrew": "fastcrew_async.crew",
    "Call": "fastcrew_async.calls",
    "Database": "fastcrew_async.store",
    "KnowledgeStore": "fastcrew_async.memory.knowledge",
    "Limit": "fastcrew_async.limits",
    "Limits": "fastcrew_async.limits",
    "LLM": "fastcrew_async.model.llm",
    "MemoryStore": "fastcrew_async.memory.store",
    "Retry": "fastcrew_async.retry",
    "Run": "fastcrew_async.run",
    "RunState": "fastcrew_async.messages",
    "Settings": "fastcrew_async.config",
    "ToolPolicy": "fastcrew_async.tools",
    "WriteResult": "fastcrew_async.store",
    "call_stack": "fastcrew_async.calls",
    "configure": "fastcrew_async.config",
    "settings": "fastcrew_async.config",
    "time_left": "fastcrew_async.deadlines",
}

__all__ = [  # noqa: RUF022 (sorted as `dir()` sorts)
    "AgentMessage",
    "AsyncCrew",
    "Call",
    "Database",
    "KnowledgeStore",
    "LLM",
    "Limit",
    "Limits",
    "MemoryStore",
    "Retry",
    "Run",
    "RunState",
    "Settings",
    "Stats",
    "Target",
    "ToolPolicy",
    "WriteResult",
    "__version__",
    "call_stack",
    "configure",
    "install",
    "settings",
    "stats",
    "status",
    "time_left",
    "uninstall",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
