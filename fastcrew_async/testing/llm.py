"""A CrewAI model that answers from a script, in this process."""

from __future__ import annotations

import asyncio
import time
from typing import Any, ClassVar

from crewai.events.types.llm_events import LLMCallType
from crewai.llms.base_llm import BaseLLM, llm_call_context
from pydantic import PrivateAttr

from fastcrew_async.testing.script import Prompter, Reply, Request, Script, seconds


class RefusedError(RuntimeError):
    """The script refuses; `status_code` is the HTTP status, where the SDKs of model providers have it."""

    def __init__(self, message: str, status_code: int) -> None:
        super().__init__(message)
        self.status_code = status_code


class ScriptedLLM(BaseLLM):
    """Answers from ``script`` after ``latency`` seconds, and emits the events of a real model.

    With ``native=True`` tool calls use the function-calling form, otherwise CrewAI's text form (ReAct); the script is
    the same. ``requests`` keeps all it was asked; copies of the model share it. A reply with a ``status`` of 400 and up
    raises ``RefusedError``.
    """

    counts_tokens_locally: ClassVar[bool] = True
    latency: float = 0.0
    native: bool = False
    _prompter: Prompter = PrivateAttr()
    _requests: list[Request] = PrivateAttr(default_factory=list)

    def __init__(self, script: Script, *, latency: float = 0.0, native: bool = False, **fields: Any) -> None:
        if latency < 0:
            raise ValueError(f"latency must be 0 seconds or more, not {latency!r}")
        super().__init__(**{"model": "scripted", "latency": latency, "native": native, **fields})
        self._prompter = Prompter(script)

    @property
    def requests(self) -> list[Request]:
        """Every request so far, in order."""
        return list(self._requests)

    def call(
        self,
        messages: str | list[Any],
        tools: list[dict[str, Any]] | None = None,
        callbacks: list[Any] | None = None,
        available_functions: dict[str, Any] | None = None,
        from_task: Any = None,
        from_agent: Any = None,
        response_model: Any = None,
    ) -> Any:
        """The next reply, after blocking for the latency."""
        with llm_call_context():
            reply = self._ask(messages, tools, from_task, from_agent)
            time.sleep(self.latency if reply.latency is None else seconds(reply.latency))
            return self._answer(reply, messages, from_task, from_agent)

    async def acall(
        self,
        messages: str | list[Any],
        tools: list[dict[str, Any]] | None = None,
        callbacks: list[Any] | None = None,
        available_functions: dict[str, Any] | None = None,
        from_task: Any = None,
        from_agent: Any = None,
        response_model: Any = None,
    ) -> Any:
        """The next reply, after the latency."""
        with llm_call_context():
            reply = self._ask(messages, tools, from_task, from_agent)
            await asyncio.sleep(self.latency if reply.latency is None else seconds(reply.latency))
            return self._answer(reply, messages, from_task, from_agent)

    def supports_function_calling(self) -> bool:
        """Whether tools are offered as functions."""
        return self.native

    def supports_stop_words(self) -> bool:
        """Always; a script ends where it ends."""
        return True

    def get_input_tokens_count(
        self, messages: str | list[Any], tools: list[dict[str, Any]] | None = None, response_model: Any = None
    ) -> int:
        """One token for four characters, which is CrewAI's estimate without its warning."""
        texts = [messages] if isinstance(messages, str) else [str(message.get("content") or "") for message in messages]
        return (sum(map(len, texts)) + 3) // 4

    def _ask(self, messages: str | list[Any], tools: list[dict[str, Any]] | None, task: Any, agent: Any) -> Reply:
        self._emit_call_started_event(messages=messages, tools=tools, from_task=task, from_agent=agent)
        asked = [{"role": "user", "content": messages}] if isinstance(messages, str) else [dict(m) for m in messages]
        names = [tool["function"]["name"] for tool in tools or ()]
        request = Request(asked, names, body={"model": self.model, "messages": asked, "tools": tools})
        self._requests.append(request)
        return self._prompter.reply(request)

    def _answer(self, reply: Reply, messages: str | list[Any], task: Any, agent: Any) -> Any:
        if reply.status >= 400:
            message = f"the scripted model refused with status {reply.status}: {reply.content}"
            self._emit_call_failed_event(error=message, from_task=task, from_agent=agent)
            raise RefusedError(message, reply.status)
        self._track_token_usage_internal(reply.usage)
        kind = LLMCallType.TOOL_CALL if self.native and reply.tool_calls else LLMCallType.LLM_CALL
        answer: Any
        if not self.native:
            answer = reply.react()
        elif reply.tool_calls:
            answer = reply.functions(f"call_{len(self._requests)}")
        else:
            answer = reply.content
        self._emit_call_completed_event(
            response=answer, call_type=kind, from_task=task, from_agent=agent, messages=messages, usage=reply.usage
        )
        return answer
