"""CrewAI's OpenAI provider on the core's connections."""

from __future__ import annotations

from typing import Any

from crewai.events.types.llm_events import LLMCallCompletedEvent, LLMCallStartedEvent, LLMStreamChunkEvent
from crewai.llms.base_llm import BaseLLM
from crewai.llms.providers.openai.completion import OpenAICompletion
from crewai.types.usage_metrics import UsageMetrics
from pydantic import model_validator

from fastcrew_async.engine import events
from fastcrew_async.model.stand_in import stand_in

_STARTED = BaseLLM._emit_call_started_event
_COMPLETED = BaseLLM._emit_call_completed_event
_CHUNK = BaseLLM._emit_stream_chunk_event
_TRACK = BaseLLM._track_token_usage_internal


class LLM(OpenAICompletion):
    """A model behind the chat completions protocol of OpenAI or of a compatible server.

    It takes what CrewAI's own provider takes, does the same and raises the same; ``crewai.llms.providers.openai`` is
    the source. What it leaves to the openai package: the Responses API, an ``interceptor``, clients that were put in
    place of the package's own, and all calls while the package or httpx is patched, as recorders and tracers do.

        llm = LLM(model="gpt-4o-mini", base_url="http://localhost:8000/v1", api_key="...")
    """

    @model_validator(mode="before")
    @classmethod
    def _without_provider(cls, data: Any) -> Any:
        model = data.get("model") if isinstance(data, dict) else None
        if isinstance(model, str) and model.startswith("openai/"):  # as crewai.LLM takes it
            return {**data, "model": model.removeprefix("openai/")}
        return data

    def _get_sync_client(self) -> Any:
        return stand_in(super()._get_sync_client())

    def _get_async_client(self) -> Any:
        return stand_in(super()._get_async_client())

    def _track_token_usage_internal(self, usage_data: dict[str, Any]) -> None:
        metrics = UsageMetrics.from_provider_dict(usage_data) if BaseLLM._track_token_usage_internal is _TRACK else None
        if metrics is None:
            return super()._track_token_usage_internal(usage_data)
        usage = self._token_usage  # looked up once: pydantic takes its time to find it
        for name in usage:
            usage[name] += getattr(metrics, name)

    def _emit_call_started_event(self, *args: Any, **kwargs: Any) -> None:
        if BaseLLM._emit_call_started_event is not _STARTED or not events.passed_over(self, LLMCallStartedEvent):
            super()._emit_call_started_event(*args, **kwargs)

    def _emit_call_completed_event(self, *args: Any, **kwargs: Any) -> None:
        if BaseLLM._emit_call_completed_event is not _COMPLETED or not events.passed_over(self, LLMCallCompletedEvent):
            super()._emit_call_completed_event(*args, **kwargs)

    def _emit_stream_chunk_event(self, *args: Any, **kwargs: Any) -> None:
        if BaseLLM._emit_stream_chunk_event is not _CHUNK or not events.passed_over(self, LLMStreamChunkEvent):
            super()._emit_stream_chunk_event(*args, **kwargs)
