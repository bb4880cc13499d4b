"""``LLM`` beside CrewAI's own provider: the same requests, results, events, counters and exceptions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import httpx
import openai
import pytest
from pydantic import BaseModel

from tests.crews import storage  # noqa: F401

# isort: split
from crewai import Agent, Crew, Task
from crewai.events import crewai_event_bus
from crewai.events.base_events import BaseEvent
from crewai.events.types.llm_events import (
    LLMCallCompletedEvent,
    LLMCallFailedEvent,
    LLMCallStartedEvent,
    LLMStreamChunkEvent,
)
from crewai.llms.providers.openai.completion import OpenAICompletion
from crewai.utilities.exceptions.context_window_exceeding_exception import LLMContextLengthExceededError

from fastcrew_async import LLM, AsyncCrew
from fastcrew_async.deadlines import within
from fastcrew_async.model import client as client_module
from fastcrew_async.model import pool
from fastcrew_async.model.client import AsyncClient, SyncClient
from fastcrew_async.testing import ModelServer, Reply, Request, ToolCall

# httpx, in CrewAI's provider and in the twin, leaves what a time-out or a cancellation ended to the collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

KEY = "sk-very-secret"
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What colour is tea? é"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "brew",
        "description": "Brews tea.",
        "parameters": {"type": "object", "properties": {"minutes": {"type": "integer"}}, "required": ["minutes"]},
    },
}
EVENTS = (LLMCallStartedEvent, LLMCallCompletedEvent, LLMCallFailedEvent, LLMStreamChunkEvent)
Serve = Callable[..., ModelServer]


class Tea(BaseModel):
    colour: str
    minutes: int


@pytest.fixture(autouse=True)
def fresh(backend: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pools of the backend at test, and no waiting between attempts."""
    monkeypatch.setattr(pool, "HttpClient", backend.HttpClient)
    monkeypatch.setattr(pool, "_pools", {})
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.001)
    monkeypatch.setattr("crewai.llms.retry._LLM_RATE_LIMIT_INITIAL_DELAY_SECONDS", 0.001)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Servers that are closed after the test, outside of its loop."""
    with ExitStack() as servers:
        yield lambda *args, **options: servers.enter_context(ModelServer(*args, **options))


def outcome(kind: Any, script: Any, way: str, call: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """All that one call to a model on a server of its own does."""
    seen: list[tuple[int, str, dict[str, Any]]] = []

    def note(_: Any, event: BaseEvent) -> None:  # on any of the bus's threads, in any order
        dropped = ("timestamp", "event_id", "call_id", "previous_event_id", "parent_event_id", "started_event_id")
        body = event.model_dump(mode="json", exclude={*dropped, "emission_sequence", "source_fingerprint"})
        seen.append((event.emission_sequence or 0, event.type, body))

    found: dict[str, Any] = {}
    with ModelServer(script) as server, crewai_event_bus.scoped_handlers():
        for event in EVENTS:
            crewai_event_bus.on(event)(note)
        llm = kind(**{"model": "gpt-4o-mini", "base_url": server.base_url, "api_key": KEY, **fields})
        try:
            if way == "call":
                found["result"] = llm.call(MESSAGES, **call)
            else:
                found["result"] = asyncio.run(_closed_after(llm, llm.acall(MESSAGES, **call)))
        except Exception as error:
            found["error"] = (type(error), str(error).replace(server.base_url, ""), type(error.__cause__))
        crewai_event_bus.flush()
        found["events"] = [told for _, *told in sorted(seen, key=lambda entry: entry[0])]
        found["usage"] = llm.get_token_usage_summary().model_dump()
        found["bodies"] = [request.body for request in server.requests]
        loose = {"host", "accept-encoding", "connection", "content-length"}
        found["headers"] = [
            {name: value for name, value in request.headers.items() if name not in loose} for request in server.requests
        ]
    seen.sort(key=lambda pair: pair[0] != "llm_call_started")  # handlers run on threads
    return found


async def _closed_after(llm: Any, call: Any) -> Any:
    """The answer; the connections of the openai package must not outlive the loop."""
    try:
        return await call
    finally:
        await llm._async_client.close()
        for _ in range(5):
            await asyncio.sleep(0.001)


CASES: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "text": (Reply("Green. é", cached_tokens=3, reasoning_tokens=2), {}, {}),
    "parameters": (
        "Green.",
        {},
        {
            "temperature": 0.2,
            "top_p": 0.9,
            "max_tokens": 50,
            "seed": 7,
            "stop": ["Observation:"],
            "frequency_penalty": 0.1,
            "presence_penalty": 0.2,
            "logprobs": True,
            "top_logprobs": 2,
            "organization": "org-1",
            "project": "proj-1",
            "default_headers": {"X-Tea": "green"},
            "default_query": {"api-version": "1"},
            "timeout": 20.0,
            "user": "me",
        },
    ),
    "stop words": ("Green.\nObservation: no", {}, {"stop": ["\nObservation:"]}),
    "length": (Reply("Gre", finish_reason="length"), {}, {"max_completion_tokens": 1}),
    "tool calls": (ToolCall("brew", {"minutes": 3}), {"tools": [TOOL]}, {}),
    "tools run": (
        ToolCall("brew", {"minutes": 3}),
        {"tools": [TOOL], "available_functions": {"brew": lambda minutes: f"{minutes} minutes"}},
        {},
    ),
    "json": ('{"colour": "green"}', {}, {"response_format": {"type": "json_object"}}),
    "response format": ('{"colour": "green", "minutes": 3}', {}, {"response_format": Tea}),
    "response model": ('{"colour": "green", "minutes": 3}', {"response_model": Tea}, {}),
    "reasoning": ("Green.", {}, {"model": "o3-mini", "reasoning_effort": "low"}),
    "unknown parameter": ("Green.", {}, {"colour": "green"}),
    "extra body": ("Green.", {}, {"extra_body": {"provider": {"order": ["a"]}}, "extra_headers": {"X-More": "1"}}),
    "bad request": (Reply("no such thing", status=400), {}, {}),
    "authentication": (Reply("Incorrect API key", status=401), {}, {}),
    "not found": (Reply("no such model", status=404), {}, {}),
    "context length": (Reply.context_length_exceeded(), {}, {}),
    "rate limit": (Reply.rate_limited(), {}, {"max_retries": 1}),
    "passing failure": ([Reply("oh", status=500), Reply.rate_limited(0.001), "Green."], {}, {}),
    "server failure": (Reply("oh", status=503), {}, {"max_retries": 1}),
    "told not to": (Reply("oh", status=500, headers={"x-should-retry": "false"}), {}, {}),
    "malformed": (Reply("Green.", fault="malformed"), {}, {}),
    "cut": (Reply("Green.", fault="cut"), {}, {"max_retries": 1}),
    "time-out": (Reply(fault="stall"), {}, {"timeout": 0.2, "max_retries": 0}),
}
STREAMED = ["text", "tool calls", "tools run", "stop words", "response model", "rate limit", "passing failure"]


@pytest.mark.parametrize("way", ["call", "acall"])
@pytest.mark.parametrize(("name", "stream"), [*((name, False) for name in CASES), *((name, True) for name in STREAMED)])
def test_it_does_what_crewai_does(backend: SimpleNamespace, way: str, name: str, stream: bool) -> None:
    script, call, fields = CASES[name]
    fields = {**fields, "stream": True} if stream else fields
    ours = outcome(LLM, script, way, call, fields)
    stock = outcome(OpenAICompletion, script, way, call, fields)
    assert ours["bodies"] == stock["bodies"]
    assert ours["headers"] == stock["headers"]
    assert ours.get("error") == stock.get("error")
    assert ours.get("result") == stock.get("result")
    assert type(ours.get("result")) is type(stock.get("result"))
    assert ours["usage"] == stock["usage"]
    assert ours["events"] == stock["events"]


def test_the_sdk_is_not_asked(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("httpx was asked")

    server = serve("Green.")
    llm = LLM(model="openai/gpt-4o-mini", base_url=server.base_url, api_key=KEY)
    assert isinstance(llm._get_async_client(), AsyncClient)
    assert isinstance(llm._get_sync_client(), SyncClient)
    monkeypatch.setattr(openai.AsyncOpenAI, "post", refuse)
    monkeypatch.setattr(openai.OpenAI, "post", refuse)
    assert llm.call("hi") == asyncio.run(llm.acall("hi")) == "Green."
    assert server.requests[0].body["model"] == "gpt-4o-mini"


def test_a_client_that_is_not_the_sdks_own_is_asked_itself() -> None:
    llm = LLM(model="gpt-4o-mini", api_key=KEY)
    mine = SimpleNamespace(chat="mine")
    llm._async_client = mine
    assert llm._get_async_client() is mine


@pytest.mark.parametrize(
    ("owner", "name"), [(openai.resources.chat.completions.AsyncCompletions, "create"), (httpx.AsyncClient, "send")]
)
def test_what_is_patched_is_asked(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    llm = LLM(model="gpt-4o-mini", api_key=KEY)
    assert isinstance(llm._get_async_client(), AsyncClient)
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, lambda *args, **kwargs: None)
        assert type(llm._get_async_client()) is openai.AsyncOpenAI
    assert isinstance(llm._get_async_client(), AsyncClient)


def test_the_key_is_in_no_text(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    server = serve(Reply("Incorrect API key", status=401))
    llm = LLM(model="gpt-4o-mini", base_url=server.base_url, api_key=KEY)
    with caplog.at_level(logging.DEBUG), pytest.raises(openai.AuthenticationError) as caught:
        llm.call("hi")
    texts = [repr(caught.value), str(caught.value.request.headers), repr(llm._get_sync_client()), caplog.text]
    assert not [text for text in texts if KEY in text]


def test_what_the_provider_said_and_the_request_id_are_in_the_error(serve: Serve) -> None:
    server = serve(Reply("no such thing", status=400, headers={"x-request-id": "req-7"}))
    llm = LLM(model="gpt-4o-mini", base_url=server.base_url, api_key=KEY)
    with pytest.raises(openai.BadRequestError, match="no such thing") as caught:
        llm.call("hi")
    assert caught.value.request_id == "req-7"


def test_no_server_is_a_connection_error() -> None:
    llm = LLM(model="gpt-4o-mini", base_url="http://127.0.0.1:1/v1", api_key=KEY, max_retries=0)
    with pytest.raises(ConnectionError, match="Failed to connect"):
        llm.call("hi")


def test_a_context_that_is_too_long_is_told_from_other_refusals(serve: Serve) -> None:
    llm = LLM(model="gpt-4o-mini", base_url=serve(Reply.context_length_exceeded()).base_url, api_key=KEY)
    with pytest.raises(LLMContextLengthExceededError):
        llm.call("hi")


@pytest.mark.parametrize(
    ("text", "seconds"), [("1s", 1.0), ("6m0s", 360.0), ("20ms", 0.02), ("1h1m1.5s", 3661.5), ("", 0.0), ("tea", 0.0)]
)
def test_resets_of_limits_are_read(text: str, seconds: float) -> None:
    assert client_module._seconds(text) == seconds


def test_a_limit_that_is_used_up_is_waited_for() -> None:
    headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "2s"}
    reset = client_module._limit_reset
    assert reset(httpx.Headers(headers)) == 2.0
    assert reset(httpx.Headers({**headers, "retry-after": "1"})) is None
    assert reset(httpx.Headers({**headers, "x-ratelimit-remaining-requests": "5"})) is None
    assert reset(httpx.Headers({**headers, "x-ratelimit-reset-requests": "6m0s"})) is None


@pytest.mark.parametrize("script", [Reply.rate_limited(60), Reply(status=500, headers={"retry-after": "60"})])
def test_nothing_is_tried_again_past_the_deadline(serve: Serve, script: Reply) -> None:
    server = serve(script)
    llm = LLM(model="gpt-4o-mini", base_url=server.base_url, api_key=KEY)
    with within(5.0), pytest.raises(openai.APIStatusError):
        SyncClient(llm._client).create(model="m", messages=[])
    assert len(server.requests) == 1


def test_nothing_is_tried_again_after_the_first_chunk(serve: Serve) -> None:
    server = serve(Reply("one two three four", fault="cut"))
    llm = LLM(model="gpt-4o-mini", base_url=server.base_url, api_key=KEY, stream=True)
    with pytest.raises(openai.APIConnectionError):
        llm.call("hi")
    assert len(server.requests) == 1


@pytest.mark.usefixtures("settled")
async def test_cancelling_a_call_closes_its_connection(serve: Serve, until: Callable[..., Any]) -> None:
    server = serve(Reply(fault="stall"))
    llm = LLM(model="gpt-4o-mini", base_url=server.base_url, api_key=KEY)
    task = asyncio.create_task(llm.acall("hi"))
    await until(lambda: server.in_flight == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: server.abandoned == 1)


@pytest.mark.parametrize("backend", ["rust"], indirect=True)  # the engine's database outlives the fixture's runtime
async def test_a_crew_runs_on_it(serve: Serve) -> None:
    def script(request: Request) -> str:
        return "Thought: I now know\nFinal Answer: green"

    server = serve(script)
    llm = LLM(model="openai/gpt-4o-mini", base_url=server.base_url, api_key=KEY)
    agent = Agent(role="Taster", goal="Taste", backstory="Old.", llm=llm)
    crew = Crew(agents=[agent], tasks=[Task(description="Say.", expected_output="A word", agent=agent)])
    results = await asyncio.gather(*(AsyncCrew(crew).kickoff() for _ in range(5)))
    assert [result.raw for result in results] == ["green"] * 5
    assert results[0].token_usage.total_tokens > 0
