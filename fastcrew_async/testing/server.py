"""A scripted model behind the OpenAI chat completions protocol, on a loopback port."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from fastcrew_async.testing.script import Latency, Prompter, Reply, Request, Script, seconds

_BACKLOG = 2048
_MAX_HEAD = 64 * 1024


class ModelServer:
    """Answers ``POST {base_url}/chat/completions`` from a script, whole or as server-sent events.

    It runs in a daemon thread with a loop of its own and keeps connections alive::

        with ModelServer("It is green.", latency=0.2) as server:
            llm = LLM(model="openai/gpt-4o-mini", base_url=server.base_url, api_key="unused")

    ``latency`` is the seconds a reply takes, or a function that draws them, and may be changed while the server runs.
    Faults are replies like any other: see :class:`Reply`. ``port`` 0 takes a free one. ``connections`` are those open
    now; one whose client goes away during a reply is ``abandoned`` and closed at once, and ``closed_at`` has the time
    (of ``time.monotonic``).
    """

    def __init__(self, script: Script, *, latency: Latency = 0.0, port: int = 0) -> None:
        if not callable(latency) and latency < 0:
            raise ValueError(f"latency must be 0 seconds or more, not {latency!r}")
        self.latency: Latency = latency
        self._port = port
        self.connections = 0
        self.in_flight = 0
        self.peak_in_flight = 0
        self.answered = 0
        self.abandoned = 0
        self.closed_at: list[float] = []
        self._prompter = Prompter(script)
        self._requests: list[Request] = []
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Future[None] | None = None

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes as ``base_url``; raises ``RuntimeError`` before the server runs."""
        if self._socket is None:
            raise RuntimeError("the model server is not running: use it as a context manager, or call start()")
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"

    @property
    def requests(self) -> list[Request]:
        """Every request so far, in order of arrival."""
        return list(self._requests)

    def start(self) -> ModelServer:
        """Listens on a free port of 127.0.0.1 from now on."""
        if self._thread is not None:
            raise RuntimeError("the model server runs already")
        self._socket = socket.create_server(("127.0.0.1", self._port), backlog=_BACKLOG)
        self._loop = asyncio.new_event_loop()
        self._stop = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name="model-server", daemon=True)
        self._thread.start()
        return self

    def close(self) -> None:
        """Stops listening and ends every connection; closing twice is allowed."""
        if self._thread is None or self._loop is None or self._stop is None:
            return
        self._loop.call_soon_threadsafe(self._stop.set_result, None)
        self._thread.join(timeout=5)
        self._thread = self._loop = self._stop = self._socket = None

    def __enter__(self) -> ModelServer:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _run(self) -> None:
        assert self._loop is not None
        self._loop.run_until_complete(self._listen())
        self._loop.close()

    async def _listen(self) -> None:
        assert self._stop is not None
        server = await asyncio.start_server(self._serve, sock=self._socket, limit=_MAX_HEAD)
        await self._stop
        server.close()
        connections = asyncio.all_tasks() - {asyncio.current_task()}
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await asyncio.sleep(0)  # closed transports let go of their sockets one turn later

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Whoever goes away in the middle of anything only ends its own connection.
        gone = (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError)
        self.connections += 1
        try:
            with contextlib.suppress(*gone):
                while await self._exchange(reader, writer):
                    await writer.drain()
        finally:
            self.connections -= 1
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its response; whether the connection goes on."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if (method, path.partition("?")[0]) != ("POST", "/v1/chat/completions"):
            writer.write(_response(404, _error(f"no {method} {path} here: POST /v1/chat/completions", 404)))
            return True
        try:
            request = Request.from_body(json.loads(body), headers)
        except (ValueError, KeyError, TypeError) as error:
            writer.write(_response(400, _error(f"not a chat completions request: {error!r}", 400)))
            return True
        self._requests.append(request)
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        try:
            reply = self._reply(request)
            if reply.fault == "stall":
                await reader.read()  # nothing more comes, unless the client gives up
                early = True
            else:
                early = await self._wait(reader, seconds(self.latency if reply.latency is None else reply.latency))
        finally:
            self.in_flight -= 1
        if early:
            self.abandoned += 1
            self.closed_at.append(time.monotonic())
            return False
        self.answered += 1
        if reply.status < 400 and request.stream:
            return await self._stream(writer, request, reply)
        if reply.status >= 400:
            content = _error(reply.content, reply.status, reply.error)
        else:
            content = _completion(request, reply, len(self._requests))
        response = _response(reply.status, content, dict(reply.headers))
        if reply.fault == "malformed":
            response = response[:-2] + b"]]"
        if reply.fault == "cut":
            writer.write(response[: -len(response) // 4])
            return False
        if reply.fault == "slow":
            for byte in response:
                await _written(writer, bytes([byte]), reply.pace)
        else:
            writer.write(response)
        return True

    async def _stream(self, writer: asyncio.StreamWriter, request: Request, reply: Reply) -> bool:
        """The reply as events; whether the connection goes on."""
        head = {"content-type": "text/event-stream", "transfer-encoding": "chunked", **reply.headers}
        writer.write(_head(200, head))
        events = list(_events(request, reply, len(self._requests)))
        if reply.fault == "cut":
            events = events[: len(events) // 2]
        elif reply.fault == "malformed":
            events[len(events) // 2] = "{" + events[len(events) // 2]
        try:
            for event in events:
                data = f"data: {event}\n\n".encode()
                for piece in (bytes([byte]) for byte in data) if reply.fault == "slow" else (data,):
                    await _written(writer, b"%x\r\n%b\r\n" % (len(piece), piece), reply.pace)
        except ConnectionError:
            self.abandoned += 1
            return False
        if reply.fault != "cut":
            writer.write(b"0\r\n\r\n")
        return reply.fault != "cut"

    async def _wait(self, reader: asyncio.StreamReader, seconds: float) -> bool:
        """Let the seconds pass; True, at once, when the client goes away."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return reader.at_eof()
        gone = asyncio.ensure_future(reader.read(1))  # a client sends nothing before its answer
        try:
            await asyncio.wait({gone}, timeout=seconds)
            return gone.done() or reader.at_eof()
        finally:
            gone.cancel()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await gone

    def _reply(self, request: Request) -> Reply:
        try:
            return self._prompter.reply(request)
        except Exception as error:  # the script is the caller's: its failure is the server's answer
            return Reply(f"the script failed: {error!r}", status=500, headers={"x-should-retry": "false"})


def _head(status: int, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {'OK' if status < 400 else 'Error'}", *(f"{k}: {v}" for k, v in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _response(status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> bytes:
    data = json.dumps(body).encode()
    own = {"content-type": "application/json", "content-length": str(len(data))}
    return _head(status, {**own, **(headers or {})}) + data


async def _written(writer: asyncio.StreamWriter, piece: bytes, pace: float) -> None:
    """Write, wait until the client has taken most of what is there, and then for `pace` seconds."""
    writer.write(piece)
    await writer.drain()
    if pace:
        await asyncio.sleep(pace)


def _error(message: str, status: int, fields: Mapping[str, Any] | None = None) -> dict[str, Any]:
    own = {"message": message, "type": "scripted_error", "param": None, "code": str(status)}
    return {"error": {**own, **(fields or {})}}


def _envelope(request: Request, number: int, kind: str) -> dict[str, Any]:
    model = request.body.get("model", "scripted")
    return {"id": f"chatcmpl-{number}", "object": kind, "created": int(time.time()), "model": model}


def _completion(request: Request, reply: Reply, number: int) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": reply.content or None}
    if reply.tool_calls:
        message["tool_calls"] = reply.functions(f"call_{number}")
    choice = {"index": 0, "message": message, "finish_reason": _finish(reply)}
    return {**_envelope(request, number, "chat.completion"), "choices": [choice], "usage": reply.usage}


def _finish(reply: Reply) -> str:
    return reply.finish_reason or ("tool_calls" if reply.tool_calls else "stop")


def _events(request: Request, reply: Reply, number: int) -> Iterator[str]:
    """The data of each server-sent event: one a word, the tool calls, the reason of the end, the usage if asked for."""
    envelope = _envelope(request, number, "chat.completion.chunk")

    def event(delta: dict[str, Any], finish: str | None = None) -> str:
        return json.dumps({**envelope, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    yield event({"role": "assistant", "content": ""})
    for word in re.findall(r"\s*\S+\s*$|\s*\S+", reply.content):
        yield event({"content": word})
    if reply.tool_calls:
        calls = [{"index": index, **call} for index, call in enumerate(reply.functions(f"call_{number}"))]
        yield event({"tool_calls": calls})
    yield event({}, _finish(reply))
    if (request.body.get("stream_options") or {}).get("include_usage"):
        yield json.dumps({**envelope, "choices": [], "usage": reply.usage})
    yield "[DONE]"
