from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import openai
import pytest

from fastcrew_async.testing import ModelServer, Reply, Request, ToolCall

QUESTION = [{"role": "user", "content": "What colour?"}]
PING = {"type": "function", "function": {"name": "ping", "parameters": {"type": "object", "properties": {}}}}


def colour(request: Request) -> Reply | str:
    if request.tool_results:
        return f"It is {request.tool_results[-1]}."
    if "ping" in request.tools:
        return Reply(tool_calls=[ToolCall("ping", {"x": 1}), ToolCall("ping", {"x": 2})])
    return Reply("It is  green.\n", prompt_tokens=7, completion_tokens=3)


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer(colour) as server:
        yield server


@pytest.fixture
def serve() -> Iterator[Callable[..., ModelServer]]:
    """Starts servers for async tests; closing one waits for its thread, which is not for the loop."""
    with ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(ModelServer(*args, **options))


@pytest.fixture
def client(server: ModelServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.base_url, api_key="unused", max_retries=0) as client:
        yield client


def test_answers_an_openai_client(server: ModelServer, client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="gpt-4o-mini", messages=QUESTION)
    assert answer.choices[0].message.content == "It is  green.\n"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "gpt-4o-mini"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (7, 3, 10)
    assert server.requests[0].text == "What colour?"
    assert server.answered == 1


def test_calls_tools_and_reads_their_results(server: ModelServer, client: openai.OpenAI) -> None:
    first = client.chat.completions.create(model="gpt-4o-mini", messages=QUESTION, tools=[PING]).choices[0]
    calls = first.message.tool_calls
    assert first.finish_reason == "tool_calls"
    assert [(c.function.name, c.function.arguments) for c in calls] == [("ping", '{"x": 1}'), ("ping", '{"x": 2}')]
    assert calls[0].id != calls[1].id
    result = {"role": "tool", "tool_call_id": calls[0].id, "content": "red"}
    messages = [*QUESTION, first.message.model_dump(), result]
    second = client.chat.completions.create(model="gpt-4o-mini", messages=messages, tools=[PING])
    assert second.choices[0].message.content == "It is red."


def test_streams_text_and_usage(client: openai.OpenAI) -> None:
    options = {"include_usage": True}
    stream = client.chat.completions.create(model="gpt-4o-mini", messages=QUESTION, stream=True, stream_options=options)
    chunks = list(stream)
    texts = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
    assert len(texts) == 3
    assert "".join(texts) == "It is  green.\n"
    assert [c.usage.total_tokens for c in chunks if c.usage] == [10]
    assert chunks[-2].choices[0].finish_reason == "stop"


def test_streams_tool_calls(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="gpt-4o-mini", messages=QUESTION, tools=[PING]) as stream:
        message = stream.get_final_completion().choices[0].message
    assert [c.function.arguments for c in message.tool_calls] == ['{"x": 1}', '{"x": 2}']


def test_gives_a_list_in_order_and_then_its_last() -> None:
    with ModelServer(["one", "two"]) as server, httpx.Client(base_url=server.base_url) as client:
        answers = [client.post("/chat/completions", json={"messages": QUESTION}).json() for _ in range(3)]
    assert [a["choices"][0]["message"]["content"] for a in answers] == ["one", "two", "two"]


def test_refuses_as_the_script_says() -> None:
    refusal = Reply("slow down", status=429, headers={"retry-after": "7"})
    with ModelServer(refusal) as server, httpx.Client(base_url=server.base_url) as client:
        answer = client.post("/chat/completions", json={"messages": QUESTION})
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "7"
    assert answer.json()["error"]["message"] == "slow down"


def test_a_failing_script_is_a_server_error() -> None:
    def broken(request: Request) -> str:
        raise KeyError("colour")

    with ModelServer(broken) as server, httpx.Client(base_url=server.base_url) as client:
        answer = client.post("/chat/completions", json={"messages": QUESTION})
    assert answer.status_code == 500
    assert "KeyError('colour')" in answer.json()["error"]["message"]


@pytest.mark.parametrize("body", [b"", b"no json", b"{}", b'{"messages": [], "tools": [1]}'])
def test_a_bad_body_is_refused_and_the_connection_goes_on(server: ModelServer, body: bytes) -> None:
    with httpx.Client(base_url=server.base_url) as client:
        assert client.post("/chat/completions", content=body).status_code == 400
        assert client.get("/models").status_code == 404
        assert client.post("/chat/completions", json={"messages": QUESTION}).status_code == 200
    assert server.answered == 1


async def test_answers_many_at_once(serve: Callable[..., ModelServer]) -> None:
    server = serve("ok", latency=0.5)
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=server.base_url, limits=limits, trust_env=False, timeout=30) as client:
        posts = (client.post("/chat/completions", json={"messages": QUESTION}) for _ in range(50))
        answers = await asyncio.wait_for(asyncio.gather(*posts), timeout=30)
    assert [a.status_code for a in answers] == [200] * 50
    assert server.peak_in_flight > 1
    assert server.in_flight == 0


async def test_counts_clients_that_went_away(serve: Callable[..., ModelServer]) -> None:
    server = serve([Reply("late", latency=0.3), "quick"])
    async with httpx.AsyncClient(base_url=server.base_url, trust_env=False, timeout=30) as client:
        asking = asyncio.create_task(client.post("/chat/completions", json={"messages": QUESTION}))
        while not server.in_flight:  # bounded by the test's own timeout, like all waits here
            await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        while not server.abandoned:
            await asyncio.sleep(0.01)
        answer = await client.post("/chat/completions", json={"messages": QUESTION})
    assert answer.status_code == 200
    assert (server.answered, server.abandoned, len(server.requests)) == (1, 1, 2)


def test_close_ends_the_thread_and_may_be_repeated() -> None:
    server = ModelServer("ok").start()
    with httpx.Client() as client:
        client.post(f"{server.base_url}/chat/completions", json={"messages": QUESTION})
        server.close()
        server.close()
    assert "model-server" not in [thread.name for thread in threading.enumerate()]


def test_close_right_after_start() -> None:
    for _ in range(50):
        ModelServer("ok").start().close()
    assert "model-server" not in [thread.name for thread in threading.enumerate()]


def test_wrong_use_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="script is empty"):
        ModelServer([])
    with pytest.raises(ValueError, match=r"latency must be 0 seconds or more, not -1"):
        ModelServer("ok", latency=-1)
    with pytest.raises(RuntimeError, match="not running"):
        _ = ModelServer("ok").base_url
    with ModelServer("ok") as server, pytest.raises(RuntimeError, match="runs already"):
        server.start()
