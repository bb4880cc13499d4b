"""CrewAI's OpenAI provider on the core's connections."""

from __future__ import annotations

from typing import Any, ClassVar

import httpcore
import httpx
from crewai.events.types.llm_events import LLMCallCompletedEvent, LLMCallStartedEvent, LLMStreamChunkEvent
from crewai.llms.base_llm import BaseLLM
from crewai.llms.providers.openai.completion import OpenAICompletion
from openai import AsyncOpenAI, OpenAI
from openai.resources.chat.completions import AsyncCompletions, Completions
from pydantic import PrivateAttr, model_validator

from fastcrew_async.engine import events
from fastcrew_async.model.client import AsyncClient, SyncClient

_STARTED = BaseLLM._emit_call_started_event
_COMPLETED = BaseLLM._emit_call_completed_event
_CHUNK = BaseLLM._emit_stream_chunk_event
_STOCK = [
    (owner, name, vars(owner)[name])
    for owner, name in (
        (AsyncCompletions, "create"),
        (Completions, "create"),
        (httpx.AsyncClient, "send"),
        (httpx.Client, "send"),
        (httpx.AsyncHTTPTransport, "handle_async_request"),
        (httpx.HTTPTransport, "handle_request"),
        (httpcore.AsyncConnectionPool, "handle_async_request"),
        (httpcore.ConnectionPool, "handle_request"),
    )
]


class LLM(OpenAICompletion):
    """A model behind the chat completions protocol of OpenAI or of a compatible server.

    It takes what CrewAI's own provider takes, does the same and raises the same; ``crewai.llms.providers.openai`` is
    the source. What it leaves to the openai package: the Responses API, an ``interceptor``, clients that were put in
    place of the package's own, and all calls while the package or httpx is patched, as recorders and tracers do.

        llm = LLM(model="gpt-4o-mini", base_url="http://localhost:8000/v1", api_key="...")
    """

    _of_tokio: dict[int, tuple[Any, Any]] = PrivateAttr(default_factory=dict)
    _stand_ins: ClassVar[dict[type, Any]] = {AsyncOpenAI: AsyncClient, OpenAI: SyncClient}

    @model_validator(mode="before")
    @classmethod
    def _without_provider(cls, data: Any) -> Any:
        model = data.get("model") if isinstance(data, dict) else None
        if isinstance(model, str) and model.startswith("openai/"):  # as crewai.LLM takes it
            return {**data, "model": model.removeprefix("openai/")}
        return data

    def _get_sync_client(self) -> Any:
        return self._stand_in(super()._get_sync_client())

    def _get_async_client(self) -> Any:
        return self._stand_in(super()._get_async_client())

    def _stand_in(self, sdk: Any) -> Any:
        """The client before `sdk`, or `sdk` itself where it is not one that was made for the core."""
        if any(vars(owner).get(name) is not stock for owner, name, stock in _STOCK):
            return sdk  # replaced by a test, a recorder or a tracer, which is to see the calls
        known = self._of_tokio.get(id(sdk))
        if known is not None and known[0] is sdk:
            return known[1]
        made = self._stand_ins.get(type(sdk))
        client = sdk
        if made is not None and self.interceptor is None and isinstance(sdk.api_key, str):
            client = made(sdk)
        self._of_tokio[id(sdk)] = (sdk, client)
        return client

    def _emit_call_started_event(self, *args: Any, **kwargs: Any) -> None:
        if BaseLLM._emit_call_started_event is not _STARTED or not events.passed_over(self, LLMCallStartedEvent):
            super()._emit_call_started_event(*args, **kwargs)

    def _emit_call_completed_event(self, *args: Any, **kwargs: Any) -> None:
        if BaseLLM._emit_call_completed_event is not _COMPLETED or not events.passed_over(self, LLMCallCompletedEvent):
            super()._emit_call_completed_event(*args, **kwargs)

    def _emit_stream_chunk_event(self, *args: Any, **kwargs: Any) -> None:
        if BaseLLM._emit_stream_chunk_event is not _CHUNK or not events.passed_over(self, LLMStreamChunkEvent):
            super()._emit_stream_chunk_event(*args, **kwargs)
