"""What CrewAI's OpenAI provider asks of the openai package's clients, on the core's connections.

A client here stands before one of the package's: chat completions are sent by the core, and everything else (responses,
files, the streamed structured outputs of the sync side) is the package's own. The address, the headers, the timeouts,
the rules of retrying and the exceptions are the package's too.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from functools import cached_property, lru_cache, partial
from typing import Any

import httpx
from openai import APIConnectionError, APIError, APITimeoutError, AsyncOpenAI, OpenAI, Timeout
from openai._base_client import get_platform
from openai._models import FinalRequestOptions
from openai._utils._json import openapi_dumps
from openai.lib._parsing import parse_chat_completion, type_to_response_format_param, validate_input_tools
from openai.resources.chat.completions import AsyncCompletions
from openai.types.chat import ChatCompletion

from fastcrew_async import core_log, runtime
from fastcrew_async.deadlines import time_left
from fastcrew_async.engine import calling, usage
from fastcrew_async.errors import HttpConnectionError, HttpTimeoutError
from fastcrew_async.model.node import Node, completion
from fastcrew_async.model.pool import connections

Headers = list[tuple[str, str]]
Answer = tuple[int, Headers, bytes]
Steps = Generator[Any, Any, Any]

_PATH = "/chat/completions"
_PARAMETERS = frozenset(inspect.signature(AsyncCompletions.create).parameters)
_OWN = ("extra_headers", "extra_query", "extra_body", "timeout")
_RAW = ("x-stainless-raw-response", "true")
_RESET = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:([\d.]+)s)?(?:([\d.]+)ms)?$")
_LONGEST_S = 120.0  # as long as the openai package lets a server make it wait


class Client:
    """What the async and the sync client have in common; ``sdk`` is the one of the openai package."""

    _of = "Completions"
    _in_place = True

    def __init__(self, sdk: AsyncOpenAI | OpenAI) -> None:
        self._sdk: Any = sdk
        self._options = FinalRequestOptions(method="post", url=_PATH, security={"bearer_auth": True})
        self._key: str | None = None
        self._runtime: Any = None
        self._pool: Any = None
        self._fixed: dict[str, str] = {}
        self._base: httpx.URL | None = None
        self._url = httpx.URL()
        timeout = sdk.timeout
        self._read, self._connect = (
            (timeout.read, timeout.connect) if isinstance(timeout, Timeout) else (timeout, timeout)
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sdk, name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._address())!r})"

    @property
    def chat(self) -> Any:
        return self

    @property
    def beta(self) -> Any:
        return self

    @property
    def completions(self) -> Any:
        return self

    @property
    def with_raw_response(self) -> Any:
        return Raw(self)

    def stream(self, **params: Any) -> Any:
        return self._sdk.beta.chat.completions.stream(**params)

    def _address(self) -> httpx.URL:
        if self._base is not self._sdk._base_url:  # it can be set
            self._base = self._sdk._base_url
            url = httpx.URL(str(self._sdk._prepare_url(_PATH)))
            query: Any = self._sdk.default_query
            self._url = url.copy_merge_params(query) if query else url
        return self._url

    def _connections(self) -> Any:
        """The pool for the environment as it was at the first call, as the openai package's clients keep theirs."""
        current = runtime.get()
        if self._runtime is not current:
            self._runtime, self._pool = current, connections(self._connect)
        return self._pool

    def _prepared(self, params: dict[str, Any], *more: tuple[str, str]) -> tuple[str, Headers, bytes]:
        unknown = params.keys() - _PARAMETERS
        if unknown:
            raise TypeError(f"{self._of}.create() got an unexpected keyword argument {sorted(unknown)[0]!r}")
        url, added = self._address(), params.get("extra_headers")
        if any(name in params for name in _OWN):
            extra = params.get("extra_body") or {}
            if query := params.get("extra_query"):
                url = url.copy_merge_params(query)
            params = {**{name: value for name, value in params.items() if name not in _OWN}, **extra}
        if self._key != self._sdk.api_key or not self._fixed:
            self._key = self._sdk.api_key
            self._fixed = dict(self._sdk._build_headers(self._options).items())
        headers = {**self._fixed, **{name.lower(): value for name, value in (*more, *dict(added or {}).items())}}
        return str(url), list(headers.items()), _json(params)

    def _attempts(
        self, send: Callable[[Headers], Any], url: str, headers: Headers, counted: calling.Calling | None
    ) -> Steps:
        """Yield what is to be done, a call or a number of seconds to wait; the answer at the end.

        Each attempt waits for the limits, and they hear of its answer.

        Raises:
            openai.APIError: what the openai package raises for the same failure.
        """
        most = self._sdk.max_retries
        for attempt in range(most + 1):
            sent = [*headers, ("x-stainless-retry-count", str(attempt))] if attempt else headers
            if attempt:
                sent = [pair for pair in headers if pair[0] != "x-stainless-retry-count"] + [sent[-1]]
            found: httpx.Headers | None = None
            failure: Exception
            cause: Exception | None = None
            again = True
            if counted is not None:
                yield counted.leave_in_place if self._in_place else counted.leave
            try:
                answer: Answer = yield partial(send, sent)
            except HttpTimeoutError as error:
                failure, cause = APITimeoutError(request=_asked(url)), error
            except HttpConnectionError as error:
                failure, cause = APIConnectionError(request=_asked(url)), error
            else:
                if counted is not None:
                    counted.hear(answer[0], dict(answer[1]))
                if answer[0] < 400:
                    return answer
                response = httpx.Response(answer[0], headers=_plain(answer[1]), content=answer[2], request=_asked(url))
                failure = self._sdk._make_status_error_from_response(response)
                found, again = response.headers, self._sdk._should_retry(response)
            if attempt == most or not again:
                raise failure from cause
            wait = _limit_reset(found) or self._sdk._calculate_retry_timeout(most - attempt, self._options, found)
            left = time_left()
            if left is not None and wait >= left:
                raise failure from cause  # the run would be over before the next attempt
            # Not the failure's text, which quotes the answer.
            text, why = "%s is asked again in %.1fs, %d of %d times: %s", cause or type(failure).__name__
            core_log.http.info(text, httpx.URL(url).netloc.decode("ascii"), wait, attempt + 1, most, why)
            yield wait
        raise AssertionError("the last attempt returns or raises")


class AsyncClient(Client):
    """In the place of ``AsyncOpenAI``."""

    _of = "AsyncCompletions"
    _in_place = False

    async def create(self, **params: Any) -> Any:
        """A whole answer, or with ``stream=True`` its chunks."""
        if not params.get("stream"):
            return (await self.raw(params)).parse()
        await self._look_around()
        url, headers, body = self._prepared(params)
        streams: list[Any] = []

        def send(headers: Headers) -> Any:
            streams.append(self._connections().stream(url, headers, body, self._read, None))
            return streams[-1].open()

        counted = calling.current_or_alone(params, url, self._in_place)
        await _performed(self._attempts(send, url, headers, counted))
        return self._chunks(streams[-1], url, counted)

    async def raw(self, params: dict[str, Any], *more: tuple[str, str]) -> RawAnswer:
        await self._look_around()
        url, headers, body = self._prepared(params, *more)
        pool = self._connections()
        counted = calling.current_or_alone(params, url, self._in_place)
        answer = await _performed(
            self._attempts(lambda headers: pool.post(url, headers, body, self._read, None), url, headers, counted)
        )
        _told_of(counted, answer)
        return RawAnswer(answer, url, counted)

    async def _look_around(self) -> None:
        if self._sdk._platform is None:  # a header tells the operating system, for which files are read
            self._sdk._platform = await asyncio.to_thread(get_platform)

    async def _chunks(self, stream: Any, url: str, counted: calling.Calling | None) -> AsyncIterator[Node]:
        try:
            while events := await _told(stream.next, url):
                for event in events:
                    if event.startswith("[DONE]"):
                        return
                    yield _chunk(event, url, counted)
        finally:
            stream.close()
            if counted is not None and counted.alone:
                counted.end()


class SyncClient(Client):
    """In the place of ``OpenAI``."""

    def create(self, **params: Any) -> Any:
        """A whole answer, or with ``stream=True`` its chunks."""
        if not params.get("stream"):
            return self.raw(params).parse()
        url, headers, body = self._prepared(params)
        streams: list[Any] = []

        def send(headers: Headers) -> Any:
            streams.append(self._connections().stream(url, headers, body, self._read, None))
            return streams[-1].open_sync()

        counted = calling.current_or_alone(params, url, self._in_place)
        _performed_in_place(self._attempts(send, url, headers, counted))
        return self._chunks(streams[-1], url, counted)

    def raw(self, params: dict[str, Any], *more: tuple[str, str]) -> RawAnswer:
        url, headers, body = self._prepared(params, *more)
        pool = self._connections()
        counted = calling.current_or_alone(params, url, self._in_place)
        answer = _performed_in_place(
            self._attempts(lambda headers: pool.post_sync(url, headers, body, self._read, None), url, headers, counted)
        )
        _told_of(counted, answer)
        return RawAnswer(answer, url, counted)

    def _chunks(self, stream: Any, url: str, counted: calling.Calling | None) -> Iterator[Node]:
        try:
            while True:
                try:
                    events = stream.next_sync()
                except (HttpConnectionError, HttpTimeoutError) as error:
                    raise _lost(error, url) from error
                for event in events or ():
                    if event.startswith("[DONE]"):
                        return
                    yield _chunk(event, url, counted)
                if not events:
                    return
        finally:
            stream.close()
            if counted is not None and counted.alone:
                counted.end()


class Raw:
    """``with_raw_response``: the answers before they are read. Awaitable on the async client."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def create(self, **params: Any) -> Any:
        return self._client.raw(params, _RAW)

    def parse(self, *, response_format: Any, **params: Any) -> Any:
        """An answer that is an object of the class ``response_format``."""
        validate_input_tools(params.get("tools") or [])
        body = {**params, "stream": False, "response_format": _schema(response_format)}
        read = partial(_parsed, response_format, params.get("tools"))
        answer = self._client.raw(body, _RAW, ("x-stainless-helper-method", "chat.completions.parse"))
        return _with_reader(answer, read) if inspect.isawaitable(answer) else answer.reading(read)


class RawAnswer:
    """A whole answer; ``parse()`` reads it."""

    def __init__(self, answer: Answer, url: str, counted: calling.Calling | None = None) -> None:
        self._answer = answer
        self._counted = counted
        self._url = url
        self._read: Callable[[dict[str, Any]], Any] = completion

    @cached_property
    def text(self) -> str:
        return self._answer[2].decode("utf-8", "replace")

    @property
    def http_response(self) -> httpx.Response:
        return LateResponse(self._answer, self._url)

    def parse(self) -> Any:
        """The answer as an object; what is not said to be JSON stays text, as the openai package leaves it."""
        kind = next((value for name, value in self._answer[1] if name == "content-type"), "")
        if not kind.split(";")[0].endswith("json"):
            return self.text
        fields = json.loads(self.text)
        _count(self._counted, fields)
        return self._read(fields)

    def reading(self, read: Callable[[dict[str, Any]], Any]) -> RawAnswer:
        self._read = read
        return self


class LateResponse(httpx.Response):
    """A response that is made when something of it is asked for: CrewAI looks at it in errors only."""

    def __init__(self, answer: Answer, url: str) -> None:
        self._late = (answer, url)

    def __getattr__(self, name: str) -> Any:
        late = self.__dict__.pop("_late", None)
        if late is None:
            raise AttributeError(name)
        (status, headers, body), url = late
        super().__init__(status, headers=_plain(headers), content=body, request=_asked(url))
        return getattr(self, name)


async def _with_reader(answer: Any, read: Callable[[dict[str, Any]], Any]) -> RawAnswer:
    raw: RawAnswer = await answer
    return raw.reading(read)


def _parsed(response_format: Any, tools: Any, fields: dict[str, Any]) -> Any:
    whole = ChatCompletion.construct(**fields)
    return parse_chat_completion(response_format=response_format, input_tools=tools or [], chat_completion=whole)


@lru_cache(maxsize=256)
def _schema(response_format: Any) -> Any:
    return type_to_response_format_param(response_format)


async def _performed(steps: Steps) -> Any:
    try:
        step = next(steps)
        while True:
            try:
                result = await (asyncio.sleep(step) if isinstance(step, (int, float)) else step())
            except (HttpConnectionError, HttpTimeoutError) as error:
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as end:
        return end.value


def _performed_in_place(steps: Steps) -> Any:
    try:
        step = next(steps)
        while True:
            try:
                result = time.sleep(step) if isinstance(step, (int, float)) else step()  # type: ignore[func-returns-value]
            except (HttpConnectionError, HttpTimeoutError) as error:
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as end:
        return end.value


async def _told(read: Callable[[], Any], url: str) -> Any:
    try:
        return await read()
    except (HttpConnectionError, HttpTimeoutError) as error:
        raise _lost(error, url) from error


def _lost(error: Exception, url: str) -> APIConnectionError:
    kind = APITimeoutError if isinstance(error, HttpTimeoutError) else APIConnectionError
    return kind(request=_asked(url))


def _chunk(event: str, url: str, counted: calling.Calling | None) -> Node:
    fields = json.loads(event)
    error = fields.get("error")
    if error:
        message = error.get("message") if isinstance(error, dict) else None
        text = message if message and isinstance(message, str) else "An error occurred during streaming"
        raise APIError(message=text, request=_asked(url), body=error)
    _count(counted, fields)
    return Node(fields)


def _count(counted: calling.Calling | None, fields: Any) -> None:
    """What the answer says of its tokens, for the limits."""
    if counted is not None and isinstance(fields, dict):
        counted.took(usage.of_fields(fields.get("usage")))


def _told_of(counted: calling.Calling | None, answer: Answer) -> None:
    """The answer of a call that is part of no other is its end."""
    if counted is not None and counted.alone:
        counted.took(usage.of_body(answer[2]))
        counted.end()


def _json(params: dict[str, Any]) -> bytes:
    body: bytes = openapi_dumps(params)
    return body


def _asked(url: str) -> httpx.Request:
    """What an error says of the request: its headers hold the key, so they are left out."""
    return httpx.Request("POST", url)


def _plain(headers: Headers) -> Headers:
    """The headers of a body that has been unpacked."""
    return [pair for pair in headers if pair[0] not in ("content-encoding", "content-length", "transfer-encoding")]


def _limit_reset(headers: httpx.Headers | None) -> float | None:
    """Seconds until a limit that is used up is granted anew, where the server says so and gives no ``Retry-After``."""
    if headers is None or "retry-after" in headers or "retry-after-ms" in headers:
        return None
    waits = [
        _seconds(headers.get(f"x-ratelimit-reset-{kind}", ""))
        for kind in ("requests", "tokens")
        if headers.get(f"x-ratelimit-remaining-{kind}") == "0"
    ]
    wait = max(waits, default=0.0)
    return wait if 0 < wait <= _LONGEST_S else None


def _seconds(text: str) -> float:
    """``6m0s``, ``1.5s`` or ``20ms`` in seconds; 0 for what is none of that."""
    match = _RESET.match(text)
    if match is None:
        return 0.0
    hours, minutes, seconds, thousandths = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds + thousandths / 1000
