"""Models that answer from a script, for tests and demonstrations: no network, no key, no tokens.

:class:`ModelServer` speaks the OpenAI chat completions protocol on a loopback port, so that a crew runs through
CrewAI's own HTTP client. :class:`ScriptedLLM` is a CrewAI model in the same process. Both take the same script.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastcrew_async.testing.script import Fault, Reply, Request, Script, ToolCall
from fastcrew_async.testing.server import ModelServer

if TYPE_CHECKING:
    from fastcrew_async.testing.llm import RefusedError, ScriptedLLM

__all__ = ["Fault", "ModelServer", "RefusedError", "Reply", "Request", "Script", "ScriptedLLM", "ToolCall"]


def __getattr__(name: str) -> Any:
    if name not in ("RefusedError", "ScriptedLLM"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fastcrew_async.testing import llm  # imports CrewAI, which a server does not need

    return getattr(llm, name)
