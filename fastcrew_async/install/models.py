"""``install(llm=True)``: CrewAI's OpenAI models ask over the core, and events that nobody sees are not built."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any

from crewai.events.base_events import BaseEvent
from crewai.events.event_bus import crewai_event_bus
from crewai.events.types.llm_events import LLMCallCompletedEvent, LLMCallStartedEvent, LLMStreamChunkEvent
from crewai.llms import base_llm
from crewai.llms.base_llm import BaseLLM
from crewai.llms.providers.openai.completion import OpenAICompletion

from fastcrew_async import _native
from fastcrew_async.engine import events
from fastcrew_async.install.patch import Patch

_OPENAI = "crewai.llms.providers.openai.completion.OpenAICompletion"
_COMPATIBLE = "crewai.llms.providers.openai_compatible.completion"  # takes 10 ms to import, by those who use it
_BASE = "crewai.llms.base_llm.BaseLLM"
_CALLS = (
    "call",
    "acall",
    "_call_completions",
    "_acall_completions",
    "_handle_completion",
    "_ahandle_completion",
    "_handle_streaming_completion",
    "_ahandle_streaming_completion",
)


def uncovered(llm: Any) -> str | None:
    """Why this model's requests stay with its own client under ``install(llm=True)``; None where they do not."""
    if not isinstance(llm, OpenAICompletion):
        return f"{type(llm).__qualname__} is not CrewAI's OpenAI provider"
    if llm._effective_api() == "responses":
        return "it asks the Responses API"
    why = _of_class(type(llm))
    if why is None:
        from fastcrew_async.model import stand_in

        sdk = llm._async_client
        why = None if sdk is None else stand_in.reason(sdk)
    return why


@lru_cache(maxsize=256)
def _of_class(kind: type[OpenAICompletion]) -> str | None:
    if _native.backend == "python":
        return "there is no compiled core here"
    for cls in kind.__mro__:
        if cls is OpenAICompletion:
            break
        if cls is getattr(sys.modules.get(_COMPATIBLE), "OpenAICompatibleCompletion", None):
            continue
        if cls.__module__.startswith("crewai."):
            return f"{cls.__qualname__} is another provider than OpenAI's"
        for name in _CALLS:
            if name in vars(cls):
                return f"{cls.__qualname__} has {name}() of its own"
    return None


def _client(stock: Any) -> Any:
    @wraps(stock)
    def get(self: OpenAICompletion) -> Any:
        from fastcrew_async.model import stand_in  # with most of the openai package, as a first call would: 400 ms

        sdk = stock(self)
        return sdk if _of_class(type(self)) else stand_in.stand_in(sdk)

    return get


def _unless_unseen(kind: type[BaseEvent]) -> Callable[[Any], Any]:
    def make(stock: Any) -> Any:
        @wraps(stock)
        def emit(self: BaseLLM, *args: Any, **kwargs: Any) -> None:
            if base_llm.crewai_event_bus is not crewai_event_bus or not events.passed_over(self, kind):
                stock(self, *args, **kwargs)

        return emit

    return make


def patches() -> list[Patch]:
    """The part of the table for ``llm=True``."""
    client = (
        "chat completions go over the core's connections; the openai package is asked by the Responses API, models of "
        "other providers, models with overridden calls, and clients that are not as the package made them"
    )
    unseen = "an event of a model call is not built where nobody can see it"
    return [
        Patch(_OPENAI, OpenAICompletion, "_get_sync_client", _client, client, llm=True),
        Patch(_OPENAI, OpenAICompletion, "_get_async_client", _client, client, llm=True),
        Patch(_BASE, BaseLLM, "_emit_call_started_event", _unless_unseen(LLMCallStartedEvent), unseen, llm=True),
        Patch(_BASE, BaseLLM, "_emit_call_completed_event", _unless_unseen(LLMCallCompletedEvent), unseen, llm=True),
        Patch(_BASE, BaseLLM, "_emit_stream_chunk_event", _unless_unseen(LLMStreamChunkEvent), unseen, llm=True),
    ]
