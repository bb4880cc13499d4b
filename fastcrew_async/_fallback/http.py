"""The HTTP client, on httpx."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from os import PathLike
from typing import Any, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

import httpx

from fastcrew_async import core_log
from fastcrew_async._fallback.bridge import Awaitable, Operation
from fastcrew_async._fallback.runtime import Runtime
from fastcrew_async.errors import HttpConnectionError, HttpTimeoutError

T = TypeVar("T")
Headers: TypeAlias = list[tuple[str, str]]
Answer: TypeAlias = tuple[int, Headers, bytes]

MAX_EVENT = 16 * 1024 * 1024


class HttpClient:
    """A pool of connections, shared by all who hold it.

    Args:
        connect_timeout: seconds, or None for ever.
        proxies: which proxy serves which scheme, ``http``, ``https`` or ``all``.
        no_proxy: hosts that are reached without one, separated by commas.
        ca_files: PEM files of certificate authorities, or folders of such files.
        system_cas: trust the system's as well.
        max_connections: requests under way at once; further ones wait.
    """

    def __init__(
        self,
        runtime: Runtime,
        connect_timeout: float | None,
        proxies: Sequence[tuple[str, str]],
        no_proxy: str,
        ca_files: Sequence[str | PathLike[str]],
        system_cas: bool,
        max_connections: int,
    ) -> None:
        runtime.check_process("runtime")
        _check_seconds("connect_timeout", connect_timeout)
        if max_connections < 1:
            raise ValueError("max_connections must be at least 1")
        self._runtime = runtime
        self._connect_timeout = connect_timeout
        self._proxies = [(scheme, url) for scheme, url in proxies]
        self._direct = [host.strip().lstrip(".") for host in no_proxy.split(",") if host.strip()]
        self._ca_files = list(ca_files)
        self._system_cas = system_cas
        # A connection for each request: an idle one would outlive its loop, which nobody tells this pool of.
        self._limits = httpx.Limits(max_connections=max_connections, max_keepalive_connections=0)
        self._sync: httpx.Client | None = None
        # A connection belongs to the loop that opened it.
        self._of_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = WeakKeyDictionary()

    def post(
        self, url: str, headers: Headers, body: bytes, read_timeout: float | None, total_timeout: float | None
    ) -> Awaitable[Answer]:
        """``(status, headers, body)`` of a POST."""
        request = self._request(url, headers, body, read_timeout, total_timeout)

        async def post() -> Answer:
            with _Asking(request) as asking:
                response = asking.heard(await (await self._async_client()).send(request))
            return response.status_code, _headers(response), response.content

        return Awaitable(lambda: counted(self._runtime, post, total_timeout))

    def post_sync(
        self, url: str, headers: Headers, body: bytes, read_timeout: float | None, total_timeout: float | None
    ) -> Answer:
        self._runtime.check_process("runtime")
        request = self._request(url, headers, body, read_timeout, total_timeout)
        try:
            with _Asking(request) as asking:
                response = asking.heard(self._sync_client().send(request))
        except httpx.HTTPError as error:
            raise ours(error) from error
        return response.status_code, _headers(response), response.content

    def stream(
        self, url: str, headers: Headers, body: bytes, read_timeout: float | None, total_timeout: float | None
    ) -> HttpStream:
        """The same request, answered as a stream of events; nothing is sent before it is opened."""
        request = self._request(url, headers, body, read_timeout, total_timeout)
        return HttpStream(self._runtime, self, request, total_timeout)

    def _request(
        self, url: str, headers: Headers, body: bytes, read_timeout: float | None, total_timeout: float | None
    ) -> httpx.Request:
        _check_seconds("read_timeout", read_timeout)
        _check_seconds("total_timeout", total_timeout)
        timeout = httpx.Timeout(read_timeout, connect=self._connect_timeout)
        try:
            return httpx.Request(
                "POST",
                url,
                headers=[("accept-encoding", "gzip"), *headers],
                content=body,
                extensions={"timeout": timeout.as_dict()},
            )
        except (httpx.InvalidURL, UnicodeEncodeError) as error:
            raise ValueError(f"the request cannot be sent: {type(error).__name__}") from error

    def _options(self) -> dict[str, Any]:
        context = ssl.create_default_context() if self._system_cas else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            for path in self._ca_files:
                if os.path.isdir(path):
                    for name in os.listdir(path):
                        with contextlib.suppress(OSError, ssl.SSLError):  # what is no certificate is passed over
                            context.load_verify_locations(cafile=os.path.join(path, name))
                else:
                    context.load_verify_locations(cafile=path)
        except (OSError, ssl.SSLError) as error:
            raise HttpConnectionError(f"{path} cannot be read as certificates: {error}") from error
        return {"trust_env": False, "verify": context, "limits": self._limits, "follow_redirects": True}

    async def _async_client(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if loop not in self._of_loop:
            options = await asyncio.to_thread(self._options)  # it reads files of certificates
            mounts = self._mounts(httpx.AsyncHTTPTransport, options)
            self._of_loop.setdefault(loop, httpx.AsyncClient(**options, mounts=mounts))
        return self._of_loop[loop]

    def _sync_client(self) -> httpx.Client:
        if self._sync is None:
            options = self._options()
            self._sync = httpx.Client(**options, mounts=self._mounts(httpx.HTTPTransport, options))
        return self._sync

    def _mounts(self, transport: Any, options: dict[str, Any]) -> dict[str, Any]:
        if "*" in self._direct:
            return {}
        known = {"verify": options["verify"], "limits": options["limits"]}
        mounts = {f"{scheme}://": transport(proxy=url, **known) for scheme, url in reversed(self._proxies)}
        for host in self._direct if mounts else ():
            for name in (host, f"*.{host}"):
                mounts[f"all://{name}"] = transport(**known)
        return mounts


class HttpStream:
    """One streamed answer. Closing it closes its connection."""

    def __init__(
        self, runtime: Runtime, client: HttpClient, request: httpx.Request, total_timeout: float | None
    ) -> None:
        self._runtime = runtime
        self._client = client
        self._request: httpx.Request | None = request
        self._total_timeout = total_timeout
        self._deadline: float | None = None
        self._response: httpx.Response | None = None
        self._pieces: Any = None
        self._parser = Parser(MAX_EVENT)
        self._closing: asyncio.Task[None] | None = None

    def open(self) -> Awaitable[Answer]:
        """``(status, headers, body)``; the body of an answer that is no success, where no stream follows."""

        async def begin() -> Answer:
            request = self._taken()
            if self._total_timeout is not None:
                self._deadline = asyncio.get_running_loop().time() + self._total_timeout
            with _Asking(request) as asking:
                response = asking.heard(await (await self._client._async_client()).send(request, stream=True))
            self._response = response
            if response.status_code >= 400:
                body = await response.aread()
                await response.aclose()
                return response.status_code, _headers(response), body
            self._pieces = response.aiter_bytes()
            return response.status_code, _headers(response), b""

        return Awaitable(lambda: counted(self._runtime, begin, self._total_timeout))

    def open_sync(self) -> Answer:
        request = self._taken()
        try:
            with _Asking(request) as asking:
                response = asking.heard(self._client._sync_client().send(request, stream=True))
            self._response = response
            if response.status_code >= 400:
                body = response.read()
                response.close()
                return response.status_code, _headers(response), body
        except httpx.HTTPError as error:
            raise ours(error) from error
        self._pieces = response.iter_bytes()
        return response.status_code, _headers(response), b""

    def next(self) -> Awaitable[list[str] | None]:
        """The data of the events that have come since, at least one; None at the end."""

        async def read() -> list[str] | None:
            pieces: AsyncIterator[bytes] | None = self._pieces
            if pieces is None:
                return None
            try:
                async for piece in pieces:
                    if events := self._parser.feed(piece):
                        return events
            except BaseException:
                await self._aclose()
                raise
            await self._aclose()
            return None

        def left() -> float | None:
            return None if self._deadline is None else self._deadline - asyncio.get_running_loop().time()

        return Awaitable(lambda: counted(self._runtime, read, left()))

    def next_sync(self) -> list[str] | None:
        pieces: Iterator[bytes] | None = self._pieces
        if pieces is None:
            return None
        try:
            for piece in pieces:
                if events := self._parser.feed(piece):
                    return events
        except httpx.HTTPError as error:
            self.close()
            raise ours(error) from error
        except HttpConnectionError:
            self.close()
            raise
        self.close()
        return None

    def close(self) -> None:
        """Close the connection."""
        response, self._response, self._pieces = self._response, None, None
        if response is None:
            return
        if isinstance(response.stream, httpx.SyncByteStream):
            response.close()
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # its loop has ended, and the connection with it
        self._closing = loop.create_task(response.aclose())

    def _taken(self) -> httpx.Request:
        request, self._request = self._request, None
        if request is None:
            raise ValueError("this stream was opened before")
        return request

    async def _aclose(self) -> None:
        response, self._response, self._pieces = self._response, None, None
        if response is not None:
            await response.aclose()


class _Asking:
    """What is said of a request: where it went, and how it ended. No more of an address is told: it may hold a key."""

    def __init__(self, request: httpx.Request) -> None:
        self._host = request.url.netloc.decode("ascii")
        self._since = time.monotonic()

    def __enter__(self) -> _Asking:
        return self

    def heard(self, response: httpx.Response) -> httpx.Response:
        level = logging.INFO if response.status_code >= 400 else logging.DEBUG
        after = time.monotonic() - self._since
        core_log.http.log(level, "%s answered %d after %.1fs", self._host, response.status_code, after)
        return response

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        after = time.monotonic() - self._since
        if isinstance(error, (httpx.HTTPError, HttpConnectionError)):
            core_log.http.info(
                "no answer from %s after %.1fs: %s", self._host, after, str(error) or type(error).__name__
            )
        elif error is not None:
            text = "a call of %s was given up after %.1fs, without an answer"
            core_log.http.debug(text, self._host, after)


class Parser:
    """Server-sent events out of bytes that come in any pieces; the rules are those of ``src/http/sse.rs``."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._begun: list[bytes] = []  # the line that has begun, as it came
        self._data: list[bytes] = []
        self._size = 0
        self._after_return = False
        self._at_start = True

    def feed(self, piece: bytes) -> list[str]:
        """The data of each event that `piece` completes; ``HttpConnectionError`` for an event without end."""
        if not piece:
            return []
        if self._after_return:
            piece = piece.removeprefix(b"\n")
        events: list[str] = []
        *lines, begun = _lines(piece)
        if lines:
            lines[0] = b"".join([*self._begun, lines[0]])
            self._begun.clear()
        self._begun.append(begun)
        self._after_return = bool(lines) and not begun and piece.endswith(b"\r")
        for line in lines:
            self._end(line, events)
            self._bound(0)
        self._bound(sum(map(len, self._begun)))
        return events

    def _bound(self, begun: int) -> None:
        if self._size + begun > self._limit:
            raise HttpConnectionError(f"an event of the stream is longer than {self._limit} bytes")

    def _end(self, line: bytes, events: list[str]) -> None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line:
            if self._data:
                events.append(b"\n".join(self._data).decode("utf-8", "replace"))
                self._data, self._size = [], 0
            return
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
            self._size += len(value)


def _lines(text: bytes) -> list[bytes]:
    """`text` cut at each end of a line; what follows the last one is the last of them."""
    lines = text.splitlines()
    if not text or text.endswith((b"\n", b"\r")):
        lines.append(b"")
    return lines


async def counted(runtime: Runtime, work: Callable[[], Coroutine[Any, Any, T]], timeout: float | None) -> T:
    """`work` as an operation of the runtime, which ends with it, within `timeout` seconds.

    Raises:
        HttpConnectionError, HttpTimeoutError: what httpx raised.
    """
    operation: Operation[T] = Operation(runtime)
    task = asyncio.ensure_future(work())
    task.add_done_callback(lambda done: _completed(operation, done))
    try:
        return await asyncio.wait_for(operation.wait(), timeout)
    except (asyncio.TimeoutError, TimeoutError) as error:
        if isinstance(error, HttpTimeoutError):
            raise
        raise HttpTimeoutError("the server did not answer in time") from None
    except httpx.HTTPError as error:
        raise ours(error) from error
    finally:
        task.cancel()


def _completed(operation: Operation[Any], task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        error = task.exception()
        operation.complete(None if error else task.result(), error)


def ours(error: httpx.HTTPError) -> HttpConnectionError | HttpTimeoutError:
    """What httpx raised, as the core raises it."""
    text = str(error) or type(error).__name__
    return HttpTimeoutError(text) if isinstance(error, httpx.TimeoutException) else HttpConnectionError(text)


def _headers(response: httpx.Response) -> Headers:
    return [(name.decode("ascii").lower(), value.decode("utf-8", "replace")) for name, value in response.headers.raw]


def _check_seconds(name: str, value: float | None) -> None:
    if value is not None and not 0 <= value < float("inf"):
        raise ValueError(f"{name} must be seconds from 0 on, or None, not {value}")
