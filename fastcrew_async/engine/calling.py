"""Model calls within the limits of the process: each attempt has a permit, and is settled with what it took.

A call of the engine waits here before it begins. What goes out besides, for a converter or a summary in CrewAI's own
code or from a tool, is counted where it passes: by the core's own client, and for those of OpenAI's and Anthropic's
packages by event hooks of their HTTP client. So is what a client sends again by itself.
"""

from __future__ import annotations

import asyncio
import sys
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any, TypeVar
from urllib.parse import urlsplit

from fastcrew_async import limits
from fastcrew_async.engine import usage
from fastcrew_async.engine.drivers import is_abandoned
from fastcrew_async.engine.turnstile import Rank, new_rank, rank
from fastcrew_async.permits import Permit, Permits

T = TypeVar("T")

_FIRST_GUESS = 256.0  # tokens of an answer, until the model has given some
_WEIGHT = 0.1  # of the newest answer in the mean
_WENT = "send_request_body.complete"  # as httpcore calls it

_counters = usage.Counters()
_answers: dict[str, float] = {}


class Calling:
    """A model call that is under way."""

    __slots__ = ("_rank", "_refused", "_sent", "_tokens", "_took", "alone", "key", "keys", "llm", "permit", "permits")

    def __init__(self, permits: Permits, llm: Any, keys: list[str], tokens: int) -> None:
        self.permits = permits
        self.llm = llm
        self.keys = keys
        self.key = _model_key(permits, llm)
        self.permit: Permit | None = None
        self.alone = False  # part of no call of the engine: it begins and ends with its request
        self._rank: Rank = rank.get() or new_rank()
        self._tokens = tokens
        self._took: tuple[int, int] | None = None
        self._sent = False
        self._refused = False

    async def enter(self) -> None:
        """Wait for a permit."""
        self.permit = await self.permits.acquire(self.keys, self._tokens, self._rank)

    def enter_in_place(self) -> None:
        """The same on this thread."""
        self.permit = self.permits.acquire_in_place(self.keys, self._tokens, self._rank, is_abandoned)

    def went(self) -> None:
        """The request is on the wire only now: it had to wait for a connection."""
        if self.permit is not None:
            self.permits.sent(self.permit.ticket)

    async def leave(self) -> None:
        """A request goes out now; each needs a permit of its own."""
        if self._needs_permit():
            await self.enter()
        self._goes()

    def leave_in_place(self) -> None:
        """The same on this thread."""
        if self._needs_permit():
            self.enter_in_place()
        self._goes()

    def _needs_permit(self) -> bool:
        if self._sent:
            self._end_attempt()
        return self._sent or self.permit is None

    def _goes(self) -> None:
        self._sent = True
        self.went()

    def hear(self, status: int, headers: Any) -> None:
        """The head of an answer is here; the names of `headers` are in lower case."""
        self._sent = True
        self._refused = status == 429
        if self.permit is not None:
            self.permits.observe(self.key, headers, status, self.permit.ticket)

    def took(self, found: tuple[int, int] | None) -> None:
        """What the answer says of its tokens; without a word what is known stands."""
        self._took = found or self._took

    def end(self, error: BaseException | None = None) -> None:
        """It is over. Refused (429) it took nothing, failed or without a word what was reserved, to be safe."""
        found = _counters.end(self.llm) if self.permits.counts_tokens else None
        took = self._took or found
        if error is not None and not self._refused:
            self._hear_of(error)
        if self._refused:
            self._end_attempt()
        elif self.permit is not None:
            self.permit.end(None if took is None else took[0])
        if took is not None and took[1]:
            mean = _answers.get(self.key)
            _answers[self.key] = took[1] if mean is None else mean + (took[1] - mean) * _WEIGHT

    def __del__(self) -> None:
        if self.permit is not None:  # no answer came, or nobody has read it
            self.permit.forget()

    def _end_attempt(self) -> None:
        if self.permit is not None:
            self.permit.end(0 if self._refused else None)
        self._refused = False

    def _hear_of(self, error: BaseException) -> None:
        """A refusal by a client that is not watched."""
        found: BaseException | None = error
        seen: set[int] = set()
        while found is not None and id(found) not in seen:  # an error raised anew may be its own context's cause
            seen.add(id(found))
            response = getattr(found, "response", None)
            if getattr(found, "status_code", getattr(response, "status_code", None)) == 429:
                self.hear(429, getattr(response, "headers", None) or {})
                return
            found = found.__cause__ or found.__context__


_calling: ContextVar[Calling | None] = ContextVar("fastcrew_async_calling", default=None)


def current_or_alone(params: dict[str, Any], url: str, in_place: bool) -> Calling | None:
    """The call that a request of the chat completions protocol is part of, or one of its own; None without limits."""
    calling = _calling.get()
    permits = limits.active
    if calling is not None or permits is None or (in_place and _holds_up_a_loop()):
        return calling
    most = params.get("max_tokens") or params.get("max_completion_tokens")
    llm = SimpleNamespace(model=params.get("model", ""), provider="openai", base_url=url, max_tokens=most)
    return _alone(permits, llm, params.get("messages") or (), params)


def _holds_up_a_loop() -> bool:
    """Whether a sync call is made on an event loop: whom it would wait for could not end."""
    return asyncio._get_running_loop() is not None


def _alone(permits: Permits, llm: Any, request: Any, params: dict[str, Any]) -> Calling | None:
    calling = _begun(permits, llm, request, params)
    if calling is not None:
        calling.alone = True
    return calling


async def call(permits: Permits, llm: Any, request: Any, kwargs: Any, made: Callable[[], Awaitable[T]]) -> T:
    """``await made()``, a call of `llm`, when the limits allow it."""
    calling = _begun(permits, llm, request, kwargs)
    if calling is None:
        return await made()
    listen(llm)
    await calling.enter()
    with counted(calling):
        return await made()


def call_in_place(permits: Permits, llm: Any, request: Any, kwargs: Any, made: Callable[[], T]) -> T:
    """The same on this thread."""
    calling = _begun(permits, llm, request, kwargs)
    if calling is None:
        return made()
    listen(llm)
    calling.enter_in_place()
    with counted(calling):
        return made()


def _begun(permits: Permits, llm: Any, request: Any, kwargs: Any) -> Calling | None:
    keys = _keys_of(permits, llm)
    if not keys:
        return None
    tokens = 0
    if permits.counts_tokens:
        _counters.begin(llm)
        mean = _answers.get(_model_key(permits, llm), _FIRST_GUESS)
        tokens = usage.expected(llm, request, kwargs.get("tools"), mean)
    return Calling(permits, llm, keys, tokens)


@contextmanager
def counted(calling: Calling) -> Iterator[None]:
    """What is done in here is the call that `calling` has a permit for, and ends it."""
    around = _calling.set(calling)
    failure: BaseException | None = None
    try:
        yield
    except BaseException as error:
        failure = error
        raise
    finally:
        _calling.reset(around)
        calling.end(failure)


def _model_key(permits: Permits, llm: Any) -> str:
    model = getattr(llm, "model", "")
    full = f"model:{getattr(llm, 'provider', '')}/{model}"
    return full if full in permits.rules else f"model:{model}"


def _keys_of(permits: Permits, llm: Any) -> list[str]:
    kinds = permits.kinds
    keys = [_model_key(permits, llm)] if "model" in kinds else []
    if "host" in kinds:
        place = urlsplit(str(getattr(llm, "base_url", None) or getattr(llm, "api_base", None) or "")).netloc
        if place:
            keys.append(f"host:{place}")
    if "tenant" in kinds and (tenant := limits.tenant.get()) is not None:
        keys.append(f"tenant:{tenant}")
    return keys


def listen(llm: Any) -> None:
    """Have the HTTP clients of one of CrewAI's models ask before a request goes out, and tell what comes back."""
    httpx: Any = sys.modules.get("httpx")
    if httpx is None or limits.active is None:
        return
    for name, kind, hooks in (
        ("_client", httpx.Client, _Hooks),
        ("_async_client", httpx.AsyncClient, _AsyncHooks),
    ):
        client = getattr(getattr(llm, name, None), "_client", None)
        if isinstance(client, kind):
            asked = client.event_hooks["request"]
            if not any(isinstance(getattr(hook, "__self__", None), hooks) for hook in asked):
                added = hooks(llm)
                asked.append(added.sent)
                client.event_hooks["response"].append(added.heard)


def is_ours(hook: Any) -> bool:
    """Whether an event hook of an HTTP client is one of :func:`listen`."""
    return isinstance(getattr(hook, "__self__", None), _Hooks)


class _Hooks:
    """Of an HTTP client of a model."""

    def __init__(self, llm: Any) -> None:
        self._llm = weakref.ref(llm)

    def sent(self, request: Any) -> Any:
        calling = self._calling_of(request)
        if calling is None or (calling.alone and _holds_up_a_loop()):
            return
        calling.leave_in_place()

        def trace(event: str, _: Any) -> None:
            if event.endswith(_WENT):
                calling.went()

        _note(request, calling, trace)

    def heard(self, response: Any) -> Any:
        calling = _heard(response)
        if calling is not None and _is_whole(response):
            response.read()
            _told(calling, response)

    def _calling_of(self, request: Any) -> Calling | None:
        calling = _calling.get()
        if calling is not None:
            return calling
        permits, llm = limits.active, self._llm()
        if permits is None or llm is None:
            return None
        return _alone(permits, llm, request.content.decode("utf-8", "replace"), {})


class _AsyncHooks(_Hooks):
    async def sent(self, request: Any) -> None:
        calling = self._calling_of(request)
        if calling is None:
            return
        await calling.leave()

        async def trace(event: str, _: Any) -> None:
            if event.endswith(_WENT):
                calling.went()

        _note(request, calling, trace)

    async def heard(self, response: Any) -> None:
        calling = _heard(response)
        if calling is not None and _is_whole(response):
            await response.aread()
            _told(calling, response)


def _note(request: Any, calling: Calling, trace: Any) -> None:
    request.extensions["fastcrew_async"] = calling
    request.extensions.setdefault("trace", trace)


def _heard(response: Any) -> Calling | None:
    calling: Calling | None = response.request.extensions.get("fastcrew_async")
    if calling is not None:
        calling.hear(response.status_code, response.headers)
    return calling


def _told(calling: Calling, response: Any) -> None:
    if calling.permits.counts_tokens and response.status_code < 400:
        calling.took(usage.of_body(response.content))
    if calling.alone:
        calling.end()


def _is_whole(response: Any) -> bool:
    return "json" in response.headers.get("content-type", "")
