"""``install(llm=True)``: CrewAI's own models on the core's connections, and those that stay with their clients."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.crews import storage  # noqa: F401

# isort: split
from crewai import LLM, Agent, Crew, Task
from crewai.events import crewai_event_bus
from crewai.events.types.llm_events import LLMCallStartedEvent
from crewai.llms.hooks.base import BaseInterceptor
from crewai.llms.providers.openai.completion import OpenAICompletion
from crewai.llms.providers.openai_compatible.completion import OpenAICompatibleCompletion

import fastcrew_async
from fastcrew_async import _native, install, status, uninstall
from fastcrew_async.install import models
from fastcrew_async.model.client import AsyncClient, SyncClient
from fastcrew_async.testing import ModelServer, ScriptedLLM
from tests.model.test_llm import CASES, outcome

pytestmark = [
    pytest.mark.skipif(_native.backend == "python", reason="without the core, models keep their own clients"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # as in tests/model/test_llm.py
]
KEY = "sk-1"


@pytest.fixture(autouse=True)
def taken_off(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.001)
    monkeypatch.setattr("crewai.llms.retry._LLM_RATE_LIMIT_INITIAL_DELAY_SECONDS", 0.001)
    yield
    uninstall()


def test_models_made_before_and_after_are_served_until_uninstall() -> None:
    before = LLM(model="gpt-4o-mini", api_key=KEY)
    assert type(before._get_async_client()) is openai.AsyncOpenAI
    install()
    after = LLM(model="openai/gpt-4o-mini", api_key=KEY)
    for llm in (before, after):
        assert type(llm) is OpenAICompletion
        assert models.uncovered(llm) is None
        assert (type(llm._get_async_client()), type(llm._get_sync_client())) == (AsyncClient, SyncClient)
    uninstall()
    for llm in (before, after):
        assert type(llm._get_async_client()) is openai.AsyncOpenAI


def test_a_compatible_provider_is_served() -> None:
    install()
    llm = LLM(model="ollama/llama3", base_url="http://127.0.0.1:1")
    assert type(llm) is OpenAICompatibleCompletion
    assert type(llm._get_sync_client()) is SyncClient


class Interceptor(BaseInterceptor[httpx.Request, httpx.Response]):
    def on_outbound(self, message: httpx.Request) -> httpx.Request:
        return message

    def on_inbound(self, message: httpx.Response) -> httpx.Response:
        return message


class Own(OpenAICompletion):
    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        return await super().acall(*args, **kwargs)


class Configured(OpenAICompletion):
    def _get_client_params(self) -> dict[str, Any]:
        return {**super()._get_client_params(), "max_retries": 7}


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: LLM(model="gpt-4o", api_key=KEY, api="responses"), "Responses API"),
        (lambda: LLM(model="gpt-4o", api_key=KEY, interceptor=Interceptor()), "HTTP client of its own"),
        (
            lambda: LLM(model="gpt-4o", api_key=KEY, client_params={"http_client": httpx.Client()}),
            "HTTP client of its own",
        ),
        (lambda: Own(model="gpt-4o", api_key=KEY), r"Own has acall\(\) of its own"),
        (lambda: ScriptedLLM("green"), "is not CrewAI's OpenAI provider"),
    ],
    ids=["responses", "interceptor", "http_client", "overridden", "another model"],
)
def test_what_is_not_covered_keeps_its_client(make: Any, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OpenAICompletion, "_build_async_client", lambda self: None)  # takes the sync http_client only
    install()
    llm = make()
    if isinstance(llm, OpenAICompletion):
        llm._async_client = llm._client
    assert models.uncovered(llm) is not None
    assert why.replace("\\", "") in str(models.uncovered(llm))
    if isinstance(llm, OpenAICompletion) and llm.api == "completions":
        assert type(llm._get_sync_client()) is openai.OpenAI


def test_a_subclass_that_only_configures_its_client_is_served() -> None:
    install()
    client = Configured(model="gpt-4o", api_key=KEY)._get_sync_client()
    assert (type(client), client.max_retries) == (SyncClient, 7)


def test_without_llm_models_stay_as_they_are() -> None:
    install(llm=False)
    assert type(LLM(model="gpt-4o", api_key=KEY)._get_sync_client()) is openai.OpenAI
    off = [target for target in status() if not target.active]
    assert {target.reason for target in off} == {"install() was called with llm=False"}
    assert {target.name.rpartition(".")[2] for target in off} == {
        "_get_sync_client",
        "_get_async_client",
        "_emit_call_started_event",
        "_emit_call_completed_event",
        "_emit_stream_chunk_event",
    }


@pytest.mark.parametrize("way", ["call", "acall"])
@pytest.mark.parametrize(
    ("name", "stream"),
    [
        *((name, False) for name in ("text", "parameters", "tools run", "response model", "context length")),
        *((name, False) for name in ("passing failure", "server failure", "cut", "malformed")),
        *((name, True) for name in ("text", "tool calls", "rate limit")),
    ],
)
def test_an_installed_model_does_what_stock_does(way: str, name: str, stream: bool) -> None:
    script, call, fields = CASES[name]
    fields = {**fields, "stream": True} if stream else fields
    stock = outcome(OpenAICompletion, script, way, call, fields)
    install()
    ours = outcome(OpenAICompletion, script, way, call, fields)
    assert ours == stock


def crew_on(server: ModelServer) -> Crew:
    llm = LLM(model="openai/gpt-4o-mini", base_url=server.base_url, api_key=KEY)
    agent = Agent(role="Taster", goal="Taste", backstory="Old.", llm=llm)
    return Crew(agents=[agent], tasks=[Task(description="Say.", expected_output="A word", agent=agent)])


def test_a_crew_asks_over_the_core(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the openai package was asked")

    async def at_once() -> list[Any]:
        return await asyncio.gather(*(crew.akickoff() for _ in range(5)))

    install()
    monkeypatch.setattr(openai.AsyncOpenAI, "_build_request", refuse)
    monkeypatch.setattr(openai.OpenAI, "_build_request", refuse)
    with ModelServer("Thought: I now know\nFinal Answer: green") as server:
        crew = crew_on(server)
        assert crew.kickoff().raw == "green"
        assert [result.raw for result in asyncio.run(at_once())] == ["green"] * 5
        assert len(server.requests) == 6


def test_an_event_is_built_for_who_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    install()
    with ModelServer("green") as server:
        llm = LLM(model="gpt-4o", base_url=server.base_url, api_key=KEY)
        with crewai_event_bus.scoped_handlers():
            crewai_event_bus.on(LLMCallStartedEvent)(lambda source, event: seen.append(event))
            llm.call("hi")
            crewai_event_bus.flush()
    assert [event.model for event in seen] == ["gpt-4o"]
    emitted: list[Any] = []
    monkeypatch.setattr("crewai.llms.base_llm.crewai_event_bus.emit", lambda source, event: emitted.append(event))
    with pytest.raises(ConnectionError):
        LLM(model="gpt-4o", base_url="http://127.0.0.1:1/v1", api_key=KEY, max_retries=0).call("hi")
    assert [event.type for event in emitted] == ["llm_call_started", "llm_call_failed", "llm_call_failed"]


def test_the_model_of_the_package_is_not_touched() -> None:
    install()
    llm = fastcrew_async.LLM(model="gpt-4o", api_key=KEY)
    assert type(llm._get_async_client()) is AsyncClient
