"""The HTTP client's contract, on the compiled core and on its twin."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from fastcrew_async import runtime
from fastcrew_async.errors import HttpConnectionError, HttpTimeoutError
from fastcrew_async.testing import ModelServer, Reply

Serve = Callable[..., ModelServer]
Answering = Callable[..., tuple[str, list[bytes]]]
Until = Callable[..., Any]
HEADERS = [("content-type", "application/json"), ("authorization", "Bearer sk-secret")]
CHUNK = b"%x\r\n%b\r\n"


@pytest.fixture
async def settled() -> AsyncIterator[None]:
    """For tests that leave a request: the twin's tasks and transports end a few turns after it was left."""
    yield
    while len(asyncio.all_tasks()) > 1:
        await asyncio.sleep(0.001)
    for _ in range(3):
        await asyncio.sleep(0)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Servers that are closed after the test, outside of its loop."""
    with ExitStack() as servers:
        yield lambda *args, **options: servers.enter_context(ModelServer(*args, **options))


@pytest.fixture
def answering() -> Iterator[Answering]:
    """The same for servers of any bytes."""
    with ExitStack() as servers:
        yield lambda *pieces, **options: servers.enter_context(serving(*pieces, **options))


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}).encode()


def client(backend: SimpleNamespace, **options: Any) -> Any:
    fields = {
        "connect_timeout": 5.0,
        "proxies": [],
        "no_proxy": "",
        "ca_files": [],
        "system_cas": True,
        "max_connections": 100,
        **options,
    }
    return backend.HttpClient(runtime.get(), *fields.values())


async def post(
    of: Any, url: str, data: bytes | None = None, read: float | None = 5.0, total: float | None = 10.0
) -> Any:
    return await of.post(url, HEADERS, body() if data is None else data, read, total)


async def drained(stream: Any, events: list[str]) -> None:
    """Read to the end, keeping what came."""
    while batch := await stream.next():
        events += batch


@contextmanager
def serving(*pieces: bytes, hold: bool = False) -> Iterator[tuple[str, list[bytes]]]:
    """A server that answers each connection with these bytes; with `hold` it then waits for the client to close."""
    listener = socket.create_server(("127.0.0.1", 0))
    heads: list[bytes] = []

    def run() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(10)
                head = b""
                while b"\r\n\r\n" not in head:
                    head += connection.recv(65536)
                heads.append(head)
                try:
                    for piece in pieces:
                        connection.sendall(piece)
                    while hold and connection.recv(65536):
                        pass
                except OSError:
                    continue

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1/chat/completions", heads
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


async def test_a_post_is_answered_with_status_headers_and_body(backend: SimpleNamespace, serve: Serve) -> None:
    server = serve("green")
    status, headers, content = await post(client(backend), f"{server.base_url}/chat/completions")
    assert (status, dict(headers)["content-type"]) == (200, "application/json")
    assert json.loads(content)["choices"][0]["message"]["content"] == "green"
    assert server.requests[0].headers["authorization"] == "Bearer sk-secret"
    status, headers, content = await post(client(backend), f"{server.base_url}/nothing")
    assert status == 404


async def test_connections_are_used_again(backend: SimpleNamespace, serve: Serve) -> None:
    if backend.name == "python":
        pytest.skip("the twin opens one for each request")
    server = serve("green")
    of = client(backend)
    for _ in range(5):
        await post(of, f"{server.base_url}/chat/completions")
    assert server.connections == 1


def test_the_blocking_twin_needs_no_loop(backend: SimpleNamespace, serve: Serve) -> None:
    server = serve("green")
    of = client(backend)
    url = f"{server.base_url}/chat/completions"
    status, _, content = of.post_sync(url, HEADERS, body(), 5.0, 10.0)
    assert (status, b"green" in content) == (200, True)
    stream = of.stream(url, HEADERS, body(stream=True), 5.0, 10.0)
    assert stream.open_sync()[0] == 200
    events: list[str] = []
    while batch := stream.next_sync():
        events += batch
    assert events[-1] == "[DONE]"
    assert stream.next_sync() is None


async def test_a_body_that_is_packed_is_unpacked(backend: SimpleNamespace, answering: Answering) -> None:
    packed = gzip.compress(b'{"tea": 1}' * 1000)
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(packed)
    url, heads = answering(head, packed)
    assert (await post(client(backend), url))[2] == b'{"tea": 1}' * 1000
    assert b"gzip" in heads[0]


async def test_events_come_as_they_are_sent_and_end(backend: SimpleNamespace, serve: Serve) -> None:
    server = serve(Reply("one two three", pace=0.02))
    stream = client(backend).stream(f"{server.base_url}/chat/completions", HEADERS, body(stream=True), 5.0, 10.0)
    status, headers, content = await stream.open()
    assert (status, dict(headers)["content-type"], content) == (200, "text/event-stream", b"")
    batches = []
    while (batch := await stream.next()) is not None:
        batches.append(batch)
    assert len(batches) > 1
    events = [event for batch in batches for event in batch]
    assert events[-1] == "[DONE]"
    words = [json.loads(event)["choices"][0]["delta"].get("content") or "" for event in events[:-1]]
    assert "".join(words) == "one two three"
    assert await stream.next() is None
    with pytest.raises(ValueError, match="opened before"):
        await stream.open()


async def test_a_stream_that_is_refused_has_a_body_and_no_events(backend: SimpleNamespace, serve: Serve) -> None:
    server = serve(Reply.rate_limited(3))
    stream = client(backend).stream(f"{server.base_url}/chat/completions", HEADERS, body(stream=True), 5.0, 10.0)
    status, headers, content = await stream.open()
    assert (status, dict(headers)["retry-after"]) == (429, "3")
    assert json.loads(content)["error"]["message"] == "Rate limit reached"
    assert await stream.next() is None


async def test_events_survive_pieces_of_any_size(backend: SimpleNamespace, answering: Answering) -> None:
    stream = "\ufeffdata: ä\r\n\r\n: no\ndata: two\ndata: lines\n\nevent: x\rdata: z\r\rdata: cut".encode()
    pieces = [CHUNK % (1, bytes([byte])) for byte in stream]
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    url, _ = answering(head, *pieces, b"0\r\n\r\n")
    reading = client(backend).stream(url, HEADERS, body(), 5.0, 10.0)
    await reading.open()
    events: list[str] = []
    while batch := await reading.next():
        events += batch
    assert events == ["ä", "two\nlines", "z"]


@pytest.mark.usefixtures("settled")
async def test_silence_longer_than_the_read_timeout_is_an_error(
    backend: SimpleNamespace, serve: Serve, answering: Answering
) -> None:
    server = serve(Reply(fault="stall"))
    url = f"{server.base_url}/chat/completions"
    with pytest.raises(HttpTimeoutError):
        await post(client(backend), url, read=0.1)
    with pytest.raises(HttpTimeoutError):
        await asyncio.to_thread(client(backend).post_sync, url, HEADERS, body(), 0.1, None)
    url, _ = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", hold=True)
    with pytest.raises(HttpTimeoutError):
        await post(client(backend), url, read=0.1)


@pytest.mark.usefixtures("settled")
async def test_the_total_timeout_counts_from_the_first_await(backend: SimpleNamespace, serve: Serve) -> None:
    server = serve(Reply("slow", fault="slow", pace=0.01))
    url = f"{server.base_url}/chat/completions"
    with pytest.raises(HttpTimeoutError):
        await post(client(backend), url, total=0.2)
    stream = client(backend).stream(url, HEADERS, body(stream=True), 5.0, 2.0)
    await stream.open()
    with pytest.raises(HttpTimeoutError):
        await drained(stream, [])


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", b"tea?\r\n\r\n"],
    ids=["closed", "cut", "no HTTP"],
)
async def test_a_lost_connection_is_an_error(backend: SimpleNamespace, answering: Answering, answer: bytes) -> None:
    url, _ = answering(answer)
    with pytest.raises(HttpConnectionError):
        await post(client(backend), url)
    with pytest.raises(HttpConnectionError):
        await asyncio.to_thread(client(backend).post_sync, url, HEADERS, body(), 5.0, 5.0)


@pytest.mark.usefixtures("settled")
async def test_a_cut_stream_gives_its_events_and_then_an_error(backend: SimpleNamespace, serve: Serve) -> None:
    server = serve(Reply("one two three four", fault="cut"))
    stream = client(backend).stream(f"{server.base_url}/chat/completions", HEADERS, body(stream=True), 5.0, 10.0)
    await stream.open()
    events: list[str] = []
    with pytest.raises(HttpConnectionError):
        await drained(stream, events)
    assert events
    assert await stream.next() is None


async def test_no_server_and_no_address(backend: SimpleNamespace) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/"
    with pytest.raises(HttpConnectionError) as caught:
        await post(client(backend), url)
    assert "sk-secret" not in str(caught.value)
    with pytest.raises((ValueError, HttpConnectionError)):
        await post(client(backend), "no address")


@pytest.mark.usefixtures("settled")
async def test_cancelling_a_reader_closes_the_connection(backend: SimpleNamespace, serve: Serve, until: Until) -> None:
    server = serve(Reply("word " * 1000, pace=0.01))
    stream = client(backend).stream(f"{server.base_url}/chat/completions", HEADERS, body(stream=True), None, None)

    async def read() -> None:
        try:
            await stream.open()
            await drained(stream, [])
        finally:
            stream.close()

    task = asyncio.create_task(read())
    await until(lambda: server.answered == 1)
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: server.connections == 0)


@pytest.mark.usefixtures("settled")
async def test_cancelling_is_seen_by_the_server_at_once(backend: SimpleNamespace, serve: Serve, until: Until) -> None:
    server = serve(Reply(fault="stall"))
    task = asyncio.create_task(post(client(backend), f"{server.base_url}/chat/completions", read=None, total=None))
    await until(lambda: server.in_flight == 1)
    task.cancel()
    await until(lambda: server.abandoned == 1)
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.usefixtures("settled")
async def test_a_slow_reader_slows_the_server(backend: SimpleNamespace) -> None:
    """Nothing is read ahead, so the server cannot send more than sockets hold."""
    sent = []
    piece = CHUNK % (65536 + 8, b"data: " + b"x" * 65536 + b"\n\n")
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"

    def pieces() -> Iterator[bytes]:
        yield head
        for number in range(2000):
            sent.append(number)
            yield piece

    with _serving_lazily(pieces()) as url:
        stream = client(backend).stream(url, HEADERS, body(), 5.0, None)
        await stream.open()
        await stream.next()
        await asyncio.sleep(0.3)
        early = len(sent)
        stream.close()
    assert early < 500  # of 2,000: 125 MB


@contextmanager
def _serving_lazily(pieces: Iterator[bytes]) -> Iterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(10)
            connection.recv(65536)
            try:
                for piece in pieces:
                    connection.sendall(piece)
            except OSError:
                return

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        thread.join(15)
        listener.close()


async def test_more_requests_than_connections_wait(backend: SimpleNamespace, serve: Serve) -> None:
    server = serve("green", latency=0.05)
    of = client(backend, max_connections=2)
    url = f"{server.base_url}/chat/completions"
    answers = await asyncio.gather(*(post(of, url) for _ in range(6)))
    assert [answer[0] for answer in answers] == [200] * 6
    assert server.peak_in_flight == 2


async def test_a_proxy_is_asked_unless_the_host_is_excepted(
    backend: SimpleNamespace, serve: Serve, answering: Answering
) -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nproxy"
    proxy, heads = answering(answer)
    server = serve("green")
    address = proxy.rsplit("/v1", 1)[0]
    url = f"{server.base_url}/chat/completions"
    assert (await post(client(backend, proxies=[("http", address)]), url))[2] == b"proxy"
    assert heads[0].startswith(b"POST http://127.0.0.1")
    assert (await post(client(backend, proxies=[("all", address)]), url))[2] == b"proxy"
    for but in ("127.0.0.1", "*", "example.com,127.0.0.1"):
        assert b"green" in (await post(client(backend, proxies=[("http", address)], no_proxy=but), url))[2]
    assert b"green" in (await post(client(backend, proxies=[("https", address)]), url))[2]


def test_what_cannot_be_is_refused(backend: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="max_connections"):
        client(backend, max_connections=0)
    with pytest.raises(ValueError, match="connect_timeout"):
        client(backend, connect_timeout=-1.0)
    with pytest.raises(ValueError, match="read_timeout"):
        client(backend).post("http://x", [], b"", -1.0, None)


async def test_a_missing_file_of_authorities_is_named(backend: SimpleNamespace, tmp_path: Any) -> None:
    of = client(backend, ca_files=[tmp_path / "none.pem"], system_cas=False)
    with pytest.raises(HttpConnectionError, match=r"none\.pem"):
        await post(of, "https://127.0.0.1:1/")
