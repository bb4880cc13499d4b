"""Answers that come in pieces of any size, or are none: read alike wherever they are cut, by the core and its twin."""

from __future__ import annotations

import asyncio
import gzip
import random
from types import SimpleNamespace
from typing import Any

import pytest

from fastcrew_async import runtime
from fastcrew_async._fallback.http import MAX_EVENT, Parser
from fastcrew_async.errors import HttpConnectionError

STREAM = (
    b"\xef\xbb\xbfdata: one\n\n: a comment\r\ndata:two\r\ndata: lines\r\n\r\n"
    b"event: ping\rid: 7\rdata\r\rdata:  spaced \n\nretry: 5\n\ndata: \xc3\xa4\xff\n\ndata: [DONE]\n\ndata: cut"
)
EVENTS = ["one", "two\nlines", "", " spaced ", "ä\ufffd", "[DONE]"]
BODY = b'{"tea": "\xc3\xa4\xff"}'


def parsed(*pieces: bytes) -> list[str]:
    parser = Parser(MAX_EVENT)
    return [event for piece in pieces for event in parser.feed(piece)]


def test_where_a_stream_is_cut_does_not_matter() -> None:
    for first in range(len(STREAM) + 1):
        for second in range(first, len(STREAM) + 1):
            assert parsed(STREAM[:first], STREAM[first:second], STREAM[second:]) == EVENTS, (first, second)


def test_any_bytes_are_taken() -> None:
    chosen = random.Random(7)
    for _ in range(2000):
        stream = bytes(chosen.choices(b"data: \n\r\xff\xc3:x", k=64))
        assert parsed(*(bytes([byte]) for byte in stream)) == parsed(stream), stream


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces, b""))


PACKED = gzip.compress(BODY, mtime=0)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n"
ANSWERS = {
    "of a length": HEAD + b"content-length: %d\r\n\r\n" % len(BODY) + BODY,
    "chunked": HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunked(BODY[:3], BODY[3:9], BODY[9:]),
    "packed": HEAD + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(PACKED) + PACKED,
    "to the end": HEAD + b"\r\n" + BODY,
}


class Sender:
    """Sends what `pieces` holds to whoever asks, piece by piece, and hangs up."""

    pieces: tuple[bytes, ...] = ()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(2)
        for piece in self.pieces:
            writer.write(piece)
            try:
                await writer.drain()
            except ConnectionError:
                break
            await asyncio.sleep(0)
        writer.close()


@pytest.fixture
async def sender() -> Any:
    sender = Sender()
    server = await asyncio.start_server(sender.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    yield sender, url
    server.close()
    await asyncio.sleep(0.01)


def client(backend: SimpleNamespace) -> Any:
    return backend.HttpClient(runtime.get(), 5.0, [], "", [], False, 10)


async def post(of: Any, url: str) -> Any:
    return await of.post(url, [], b"{}", 10.0, 20.0)


@pytest.mark.parametrize("kind", ANSWERS)
async def test_where_an_answer_is_cut_does_not_matter(
    backend: SimpleNamespace, sender: tuple[Sender, str], kind: str
) -> None:
    of, (sending, url), answer = client(backend), sender, ANSWERS[kind]
    step = 1 if backend.name == "rust" else 7  # the twin is httpx, and slow
    for cut in range(0, len(answer), step):
        sending.pieces = (answer[:cut], answer[cut:])
        status, _, body = await post(of, url)
        assert (status, body) == (200, BODY), cut
    sending.pieces = tuple(bytes([byte]) for byte in answer)
    assert (await post(of, url))[2] == BODY


@pytest.mark.parametrize("kind", ["of a length", "chunked", "packed"])
async def test_an_answer_that_ends_early_is_an_error(
    backend: SimpleNamespace, sender: tuple[Sender, str], kind: str
) -> None:
    of, (sending, url), answer = client(backend), sender, ANSWERS[kind]
    for end in range(0, len(answer) - 1, 11):
        sending.pieces = (answer[:end],)
        with pytest.raises(HttpConnectionError):
            await post(of, url)


@pytest.mark.parametrize(
    "answer",
    [
        b"\xff" * 100,
        b"HTTP/1.1 999999 OK\r\n\r\n",
        HEAD + b"content-length: minus\r\n\r\n",
        HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
        HEAD + b"content-encoding: gzip\r\n\r\nno gzip",
        HEAD + b"x: " + b"y" * 2_000_000 + b"\r\n\r\n",
    ],
    ids=["bytes", "status", "length", "chunk", "gzip", "a huge line"],
)
async def test_what_is_no_answer_is_an_error(
    backend: SimpleNamespace, sender: tuple[Sender, str], answer: bytes
) -> None:
    sending, url = sender
    sending.pieces = (answer,)
    with pytest.raises(HttpConnectionError):
        await post(client(backend), url)


async def test_an_event_without_end_is_an_error(backend: SimpleNamespace, sender: tuple[Sender, str]) -> None:
    sending, url = sender
    line = b"data: " + b"x" * 2**20
    sending.pieces = (HEAD + b"\r\n", b"data: first\n\n", *[line] * (MAX_EVENT // len(line) + 2))
    stream = client(backend).stream(url, [], b"{}", 10.0, 20.0)
    await stream.open()
    assert await stream.next() == ["first"]
    with pytest.raises(HttpConnectionError, match="longer than"):
        await stream.next()
    stream.close()
