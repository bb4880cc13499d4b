"""Models that answer from a script, for tests and demonstrations: no network, no key, no tokens.

:class:`ModelServer` speaks the OpenAI chat completions protocol on a loopback port, so that a crew runs through
CrewAI's own HTTP client. :class:`ScriptedLLM` is a CrewAI model in the same process. Both take the same script.
"""

from __future__ import annotations

from fastcrew_async.testing.llm import RefusedError, ScriptedLLM
from fastcrew_async.testing.script import Fault, Reply, Request, Script, ToolCall
from fastcrew_async.testing.server import ModelServer

__all__ = ["Fault", "ModelServer", "RefusedError", "Reply", "Request", "Script", "ScriptedLLM", "ToolCall"]
