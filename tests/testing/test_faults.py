"""What the model server does wrong on demand."""

from __future__ import annotations

import http.client
import json
import time
from typing import Any

import pytest

from fastcrew_async.testing import ModelServer, Reply


def ask(server: ModelServer, timeout: float = 5.0, **fields: Any) -> tuple[int, dict[str, str], bytes]:
    """One request with the standard library's client, and the whole answer."""
    port = int(server.base_url.split(":")[2].split("/")[0])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        body = json.dumps({"messages": [{"role": "user", "content": "hi"}], **fields})
        connection.request("POST", "/v1/chat/completions", body, {"X-Tea": "green"})
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def test_the_headers_of_a_request_are_kept() -> None:
    with ModelServer("hello") as server:
        ask(server)
        assert server.requests[0].headers["x-tea"] == "green"


def test_refusals_have_the_form_of_openai() -> None:
    script = [Reply.rate_limited(1.5, x_ratelimit_remaining_requests="0"), Reply.context_length_exceeded(100)]
    with ModelServer(script) as server:
        status, headers, body = ask(server)
        assert (status, headers["retry-after"], headers["x-ratelimit-remaining-requests"]) == (429, "1.5", "0")
        assert json.loads(body)["error"]["code"] == "rate_limit_exceeded"
        status, _, body = ask(server)
        assert (status, json.loads(body)["error"]["code"]) == (400, "context_length_exceeded")
        assert "maximum context length is 100 tokens" in json.loads(body)["error"]["message"]


def test_a_stalled_answer_never_comes() -> None:
    with ModelServer(Reply(fault="stall")) as server:
        with pytest.raises(TimeoutError):
            ask(server, timeout=0.1)
        while server.abandoned == 0:
            time.sleep(0.001)
        assert server.answered == 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_cut_answer_ends_half_way(stream: bool) -> None:
    with ModelServer(Reply("one two three four", fault="cut")) as server, pytest.raises(http.client.IncompleteRead):
        ask(server, stream=stream)


def test_a_malformed_answer_is_no_json() -> None:
    with ModelServer(Reply("one two three four", fault="malformed")) as server:
        with pytest.raises(json.JSONDecodeError):
            json.loads(ask(server)[2])
        events = [line for line in ask(server, stream=True)[2].split(b"\n") if line.startswith(b"data: {{")]
        assert len(events) == 1


def test_a_slow_answer_is_a_right_one() -> None:
    with ModelServer(Reply("tea", fault="slow", pace=0.0001)) as server:
        assert json.loads(ask(server)[2])["choices"][0]["message"]["content"] == "tea"
        assert ask(server, stream=True)[2].endswith(b"data: [DONE]\n\n")


def test_latencies_may_be_drawn_and_usage_has_details() -> None:
    drawn = []
    reply = Reply("tea", cached_tokens=3, reasoning_tokens=2, finish_reason="length")
    with ModelServer(reply, latency=lambda: drawn.append(1) or 0.0) as server:
        answer = json.loads(ask(server)[2])
    assert drawn
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 3}
    assert answer["usage"]["completion_tokens_details"] == {"reasoning_tokens": 2}
