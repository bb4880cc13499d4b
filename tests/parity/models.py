"""Scripted models. They answer from a script and note in a recorder what they were sent.

They emit the `llm_call_*` events and count tokens the way CrewAI's own providers do.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from crewai.events.types.llm_events import LLMCallType
from crewai.llms.base_llm import BaseLLM, llm_call_context
from pydantic import PrivateAttr
from typing_extensions import Self

from .recorder import Recorder

Reply = Any  # text, a list of tool calls, a model instance, an exception to raise, or a function of the messages

USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def final(text: str) -> str:
    """The text form of a final answer."""
    return f"Thought: I now know the final answer\nFinal Answer: {text}"


def action(tool: str, **arguments: Any) -> str:
    """The text form of a tool call."""
    return f"Thought: I use a tool\nAction: {tool}\nAction Input: {json.dumps(arguments)}"


def call(tool: str, call_id: str = "call_1", **arguments: Any) -> dict[str, Any]:
    """The function-calling form of a tool call."""
    return {"id": call_id, "type": "function", "function": {"name": tool, "arguments": json.dumps(arguments)}}


class CallOnlyModel(BaseLLM):
    """A model of a user who wrote only `call`. It answers `script` in order, or `script(messages)`.

    A step of the script that is an exception is raised.
    """

    native: bool = False
    window: int = 100_000
    emits: bool = True
    chunked: bool = False
    counts: bool = True

    _recorder: Recorder = PrivateAttr()
    _script: list[Reply] | Callable[[list[dict[str, Any]]], Reply] = PrivateAttr()
    _position: list[int] = PrivateAttr()

    @classmethod
    def of(cls, recorder: Recorder, script: Any, name: str = "scripted", **fields: Any) -> Self:
        """A model for `recorder` that follows `script`."""
        model = cls(model=name, **fields)
        model._recorder, model._script, model._position = recorder, script, [0]
        return model

    def call(
        self,
        messages: Any,
        tools: Any = None,
        callbacks: Any = None,
        available_functions: Any = None,
        from_task: Any = None,
        from_agent: Any = None,
        response_model: Any = None,
    ) -> Any:
        return self._answer(messages, tools, callbacks, available_functions, from_task, from_agent, response_model)

    def _answer(
        self,
        messages: Any,
        tools: Any,
        callbacks: Any,
        available_functions: Any,
        from_task: Any,
        from_agent: Any,
        response_model: Any,
    ) -> Any:
        with llm_call_context():
            if self.emits:
                self._emit_call_started_event(messages, tools, callbacks, available_functions, from_task, from_agent)
            self._recorder.note(
                "model",
                self.model,
                messages=messages,
                which_list=self._recorder.same_list(messages),
                tools=tools,
                callbacks=callbacks,
                available_functions=available_functions,
                from_task=from_task,
                from_agent=from_agent,
                response_model=response_model,
                stop=self.stop_sequences,
                stream=self._effective_stream(),
            )
            try:
                reply = self._next(messages)
            except Exception as error:
                if self.emits:
                    self._emit_call_failed_event(str(error), from_task, from_agent)
                raise
            if self.chunked and isinstance(reply, str):
                for chunk in reply.split(" "):
                    self._emit_stream_chunk_event(chunk, from_task, from_agent, call_type=LLMCallType.LLM_CALL)
            if self.counts:
                self._track_token_usage_internal(USAGE)
            if self.emits:
                kind = LLMCallType.TOOL_CALL if isinstance(reply, list) else LLMCallType.LLM_CALL
                self._emit_call_completed_event(reply, kind, from_task, from_agent, messages, usage=USAGE)
            return reply

    def _next(self, messages: Any) -> Any:
        if callable(self._script):
            reply = self._script(messages)
        else:
            index = self._position[0]
            self._position[0] += 1
            if index >= len(self._script):
                raise AssertionError(f"model {self.model} was asked {index + 1} times, its script has {index} answers")
            reply = self._script[index]
        if isinstance(reply, Exception):
            raise reply
        return reply

    def supports_function_calling(self) -> bool:
        return self.native

    def supports_stop_words(self) -> bool:
        return True

    def get_context_window_size(self) -> int:
        return self.window

    def get_input_tokens_count(self, messages: Any, tools: Any = None, response_model: Any = None) -> int:
        if isinstance(messages, str):
            return len(messages) // 4
        return sum(len(str(message.get("content", ""))) for message in messages) // 4


class ScriptedModel(CallOnlyModel):
    """The same with an `acall`, as CrewAI's own providers have."""

    async def acall(
        self,
        messages: Any,
        tools: Any = None,
        callbacks: Any = None,
        available_functions: Any = None,
        from_task: Any = None,
        from_agent: Any = None,
        response_model: Any = None,
    ) -> Any:
        await asyncio.sleep(0)
        return self._answer(messages, tools, callbacks, available_functions, from_task, from_agent, response_model)


class AwaitingModel(ScriptedModel):
    """A model whose work is only in `acall`; `call` is that on a loop of its own."""

    def call(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
        return asyncio.run(self.acall(messages, *args, **kwargs))
