"""Every fault of a server, whole or streamed, cancelled or not: the right error or answer, and nothing left behind."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import openai
import pytest

from tests.crews import storage  # noqa: F401

# isort: split
from crewai.events import crewai_event_bus
from crewai.events.types.llm_events import LLMCallCompletedEvent, LLMCallFailedEvent, LLMCallStartedEvent
from crewai.utilities.exceptions.context_window_exceeding_exception import LLMContextLengthExceededError

from fastcrew_async import LLM
from fastcrew_async.model import pool
from fastcrew_async.testing import ModelServer, Reply, Request

pytestmark = [
    pytest.mark.usefixtures("settled"),
    # httpx, in the twin, leaves what a time-out or a cancellation ended to the collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ANSWER = "one two three four five six"
# The reply, the error of a whole answer (None: a right answer), that of a streamed one, and the requests it takes:
# CrewAI itself asks three times when it is refused for its rate.
FAULTS: dict[str, tuple[Reply, Any, Any, int]] = {
    "429": (Reply.rate_limited(0.001, x_request_id="r-1"), openai.RateLimitError, openai.RateLimitError, 3),
    "500": (Reply("oh", status=500), openai.InternalServerError, openai.InternalServerError, 1),
    "stall": (Reply(fault="stall"), ConnectionError, openai.APITimeoutError, 1),
    "cut": (Reply(ANSWER, fault="cut"), ConnectionError, openai.APIConnectionError, 1),
    "malformed": (Reply(ANSWER, fault="malformed"), json.JSONDecodeError, json.JSONDecodeError, 1),
    "slow": (Reply(ANSWER, fault="slow"), None, None, 1),
    "context": (Reply.context_length_exceeded(), LLMContextLengthExceededError, openai.BadRequestError, 1),
}
Serve = Callable[..., ModelServer]


@pytest.fixture(autouse=True)
def fresh(backend: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "HttpClient", backend.HttpClient)
    monkeypatch.setattr(pool, "_pools", {})
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.001)
    monkeypatch.setattr("crewai.llms.retry._LLM_RATE_LIMIT_INITIAL_DELAY_SECONDS", 0.001)


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as servers:
        yield lambda *args, **options: servers.enter_context(ModelServer(*args, **options))


@pytest.fixture
def told() -> Iterator[list[str]]:
    """The types of the events of model calls."""
    types: list[str] = []
    with crewai_event_bus.scoped_handlers():
        for kind in (LLMCallStartedEvent, LLMCallCompletedEvent, LLMCallFailedEvent):
            crewai_event_bus.on(kind)(lambda source, event: types.append(event.type))
        yield types


async def flushed() -> None:
    await asyncio.to_thread(crewai_event_bus.flush)


def model(server: ModelServer, stream: bool, **fields: Any) -> LLM:
    given = {"model": "gpt-4o-mini", "base_url": server.base_url, "api_key": "sk-1", "stream": stream, "max_retries": 0}
    return LLM(**{**given, **fields})


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_ends_in_its_error_or_in_the_answer(
    serve: Serve, told: list[str], until: Callable[..., Any], fault: str, stream: bool
) -> None:
    reply, whole, streamed, requests = FAULTS[fault]
    error = streamed if stream else whole
    server = serve(reply)
    llm = model(server, stream, timeout=0.5)
    call = asyncio.wait_for(llm.acall("hi"), 20)
    if error is None:
        assert await call == ANSWER
    else:
        with pytest.raises(error):
            await call
    await flushed()
    assert len(server.requests) == requests
    assert told.count("llm_call_started") == requests
    assert told.count("llm_call_completed") == (error is None)
    assert (told.count("llm_call_failed") > 0) is (error is not None)
    left = 1 if fault in ("429", "500", "slow", "context", "malformed") else 0  # an idle one may serve the next call
    await until(lambda: server.connections <= left)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_cancelled_call_ends_at_once_whatever_the_server_does(
    serve: Serve, told: list[str], until: Callable[..., Any], fault: str, stream: bool
) -> None:
    reply = FAULTS[fault][0]
    slow = reply.fault in ("slow", "cut", "malformed") and stream
    script = Reply(reply.content * 20, fault=reply.fault, pace=0.02) if slow else reply
    server = serve(script, latency=0.0 if slow else 30.0)
    task = asyncio.create_task(model(server, stream, timeout=60.0).acall("hi"))
    await until(lambda: bool(server.answered if slow else server.in_flight))
    if slow:
        await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
    await until(lambda: server.connections == 0 and server.in_flight == 0)
    await flushed()
    assert told == ["llm_call_started"]
    assert len(server.requests) == 1


@pytest.mark.timeout(600)
async def test_each_request_is_sent_as_often_as_it_must_be(serve: Serve) -> None:
    """One request in a hundred fails, in turns with 500, 429 and a lost connection, and is sent once more."""
    calls = int(os.environ.get("FASTCREW_ASYNC_TEST_CALLS", "300"))
    numbers, faults = itertools.count(1), itertools.cycle(["500", "429", "cut"])
    failed = 0

    def script(request: Request) -> Reply | str:
        nonlocal failed
        if next(numbers) % 100 != 50:
            return ANSWER
        failed += 1
        return FAULTS[next(faults)][0]

    server = serve(script)
    llm = model(server, False, max_retries=5)
    left = iter(range(calls))

    async def caller() -> None:
        for _ in left:
            assert await llm.acall("hi") == ANSWER

    await asyncio.gather(*(caller() for _ in range(20)))
    expected = next(total for total in itertools.count(calls) if total - (total + 50) // 100 == calls)
    assert (len(server.requests), failed) == (expected, expected - calls)
