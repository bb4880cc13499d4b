"""A server over TLS for tests: HTTP/1.1, and as much of HTTP/2 as a client's POST needs (RFC 9113)."""

from __future__ import annotations

import asyncio
import ssl
import threading
from pathlib import Path

CERTIFICATES = Path(__file__).parent / "certificates"
AUTHORITY = CERTIFICATES / "authority.pem"
"""Signed the certificate of the server, for ``localhost`` and ``127.0.0.1``; both were made for these tests."""

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _PING = 0, 1, 4, 6
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_STATUS_200 = b"\x88"  # the eighth of HPACK's static table


class TlsServer:
    """Answers each POST with its protocol, ``HTTP/1.1`` or ``h2``; ``connections`` counts those that were opened."""

    def __init__(self, *protocols: str) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(CERTIFICATES / "server.pem")
        if protocols:
            self._context.set_alpn_protocols(list(protocols))
        self.connections = 0
        self._started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),), daemon=True)

    def __enter__(self) -> TlsServer:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._loop.close()

    async def _run(self) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stop.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            if writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2":
                await _two(reader, writer)
            else:
                await _one(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass  # the client went away
        finally:
            writer.transport.abort()


async def _one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.split(b":")[1]))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nHTTP/1.1")


async def _two(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    def send(kind: int, flags: int, stream: int, payload: bytes = b"") -> None:
        writer.write(len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload)

    await reader.readexactly(len(_PREFACE))
    send(_SETTINGS, 0, 0)
    while True:
        frame = await reader.readexactly(9)
        kind, flags, stream = frame[3], frame[4], int.from_bytes(frame[5:], "big")
        payload = await reader.readexactly(int.from_bytes(frame[:3], "big"))
        if kind in (_SETTINGS, _PING) and not flags & _ACK:
            send(kind, _ACK, 0, payload if kind == _PING else b"")
        elif kind in (_DATA, _HEADERS) and flags & _END_STREAM:
            send(_HEADERS, _END_HEADERS, stream, _STATUS_200)
            send(_DATA, _END_STREAM, stream, b"h2")
