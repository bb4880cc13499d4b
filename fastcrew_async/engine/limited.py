"""Model calls, tool calls and kickoffs within the limits of the process (:mod:`fastcrew_async.limits`)."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar
from urllib.parse import urlsplit

from fastcrew_async import limits
from fastcrew_async.engine.beside import Beside
from fastcrew_async.engine.drivers import Work, is_abandoned
from fastcrew_async.engine.effects import Effect
from fastcrew_async.engine.turnstile import new_rank, rank
from fastcrew_async.permits import Permit, Permits, held, needed

T = TypeVar("T")

_CHARACTERS_A_TOKEN = 4
_FIRST_GUESS = 256  # tokens of an answer, until the model has given some


class Within(Effect):
    """Another effect, when the limits of `keys` allow it; all of them or none."""

    __slots__ = ("effect", "keys", "permits")

    def __init__(self, permits: Permits, keys: list[str], effect: Effect) -> None:
        self.permits = permits
        self.keys = keys
        self.effect = effect

    def perform(self) -> Any:
        keys = needed(self.keys)
        if not keys:
            return self.effect.perform()
        permit = _acquire_in_place(self.permits, keys)
        around = held.set((*held.get(), permit))
        try:
            return self.effect.perform()
        finally:
            held.reset(around)
            permit.end()

    async def aperform(self) -> Any:
        keys = needed(self.keys)
        if not keys:
            return await self.effect.aperform()
        permit = await self.permits.acquire(keys, 0, rank.get() or new_rank())
        around = held.set((*held.get(), permit))
        try:
            return await self.effect.aperform()
        finally:
            held.reset(around)
            permit.end()


def tool(name: str, effect: Effect) -> Effect:
    """A call of the tool `name`. One inside a call of the same tool is part of that."""
    permits = limits.active
    if permits is None or "tool" not in permits.kinds:
        return effect
    return Within(permits, [f"tool:{name}"], effect)


class _Enter(Effect):
    """Wait for a permit for a kickoff."""

    __slots__ = ("keys", "permits")

    def __init__(self, permits: Permits, keys: list[str]) -> None:
        self.permits = permits
        self.keys = keys

    def perform(self) -> Permit:
        return _acquire_in_place(self.permits, self.keys)

    async def aperform(self) -> Permit:
        return await self.permits.acquire(self.keys, 0, rank.get() or new_rank())


async def kickoff(run: Callable[[], Work[T]]) -> T:
    """``await run()``, a run, when the limits allow it; a run inside another one is part of that."""
    permits = limits.active
    if permits is None or "kickoffs" not in permits.kinds:
        return await run()
    tenant = limits.tenant.get()
    keys = needed(["kickoffs:"] if tenant is None else ["kickoffs:", f"kickoffs:{tenant}"])
    if not keys:
        return await run()
    permit: Permit = await _Enter(permits, keys)
    around = held.set((*held.get(), permit))
    try:
        return await run()
    finally:
        held.reset(around)
        permit.end()


class _Calling:
    """A model call that is under way: who hears of its answer's headers."""

    __slots__ = ("heard", "key", "permits", "ticket")

    def __init__(self, permits: Permits, key: str, ticket: int) -> None:
        self.permits = permits
        self.key = key
        self.ticket = ticket
        self.heard = False

    def hear(self, status: int, headers: Any) -> None:
        self.heard = True
        self.permits.sent(self.ticket)  # by now at the latest: it may have lain on its way
        self.permits.observe(self.key, headers, status, self.ticket)


_calling: ContextVar[_Calling | None] = ContextVar("fastcrew_async_calling", default=None)


async def model_call(permits: Permits, llm: Any, request: Any, kwargs: Any, call: Callable[[], Awaitable[T]]) -> T:
    """``await call()``, a call of `llm`, when the limits allow it."""
    keys = _keys_of(permits, llm)
    if not keys:
        return await call()
    used = _used.of(llm)
    permit = await permits.acquire(keys, used.begin(permits, llm, request, kwargs), rank.get() or new_rank())
    with _settled(permits, llm, permit, used):
        return await call()


def model_call_in_place(permits: Permits, llm: Any, request: Any, kwargs: Any, call: Callable[[], T]) -> T:
    """The same on this thread."""
    keys = _keys_of(permits, llm)
    if not keys:
        return call()
    used = _used.of(llm)
    permit = _acquire_in_place(permits, keys, used.begin(permits, llm, request, kwargs))
    with _settled(permits, llm, permit, used):
        return call()


@contextmanager
def _settled(permits: Permits, llm: Any, permit: Permit, used: Any) -> Iterator[None]:
    """One call under `permit`: its headers are heard, and what it took is settled at its end."""
    calling = _Calling(permits, _model_key(permits, llm), permit.ticket)
    around = _calling.set(calling)
    _listen(llm)
    took = None
    try:
        yield
        took = used.end(llm, permit.tokens)
    except Exception as error:
        took = _refused(calling, error)
        raise
    finally:
        _calling.reset(around)
        permit.end(took)


def _acquire_in_place(permits: Permits, keys: list[str], tokens: int = 0) -> Permit:
    return permits.acquire_in_place(keys, tokens, rank.get() or new_rank(), is_abandoned)


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


class _Used:
    """What a model has used, as it counts itself (``BaseLLM._token_usage``), and how much of that was settled.

    A model counts for all its calls together. Whichever call ends settles what was added since the last one ended, so
    that of calls that end at the same moment each may be settled with another's tokens, and their sum is right.
    """

    __slots__ = ("answer", "known", "settled")

    def __init__(self) -> None:
        self.settled: int | None = None
        self.known = False
        self.answer: float | None = None  # running mean of the tokens of an answer

    def begin(self, permits: Permits, llm: Any, request: Any, kwargs: Any) -> int:
        """What a call is expected to take: its messages and tools, and the longest answer allowed."""
        if not permits.counts_tokens:
            return 0
        if self.settled is None:
            self.settled = _total(llm)
        most = getattr(llm, "max_tokens", None) or getattr(llm, "max_completion_tokens", None)
        answer = most if isinstance(most, int) else self.answer or _FIRST_GUESS
        return min(_prompt_tokens(request, kwargs.get("tools")) + int(answer), 2**50)

    def end(self, llm: Any, reserved: int) -> int | None:
        """What was used since the last call that ended; None where the model does not tell."""
        if self.settled is None:
            return None
        total = _total(llm)
        took, self.settled = max(total - self.settled, 0), total
        if not took and not self.known:
            return None
        self.known = True
        completions = _count(llm, "completion_tokens")
        requests = _count(llm, "successful_requests")
        if requests:
            self.answer = completions / requests
        return took


_used: Beside[_Used] = Beside(_Used)


def _count(llm: Any, name: str) -> int:
    usage = getattr(llm, "_token_usage", None)
    found = usage.get(name, 0) if isinstance(usage, dict) else 0
    return found if isinstance(found, int) else 0


def _total(llm: Any) -> int:
    return _count(llm, "total_tokens")


def _prompt_tokens(request: Any, tools: Any) -> int:
    if isinstance(request, str):
        characters = len(request)
    else:
        characters = sum(len(str(message.get("content") or "")) for message in request)
    return (characters + (len(str(tools)) if tools else 0)) // _CHARACTERS_A_TOKEN + 1


def _refused(calling: _Calling, error: BaseException) -> int | None:
    """What a failed call took: nothing where the provider refused it (429), else what was reserved, to be safe."""
    found: BaseException | None = error
    while found is not None:
        response = getattr(found, "response", None)
        if getattr(found, "status_code", getattr(response, "status_code", None)) == 429:
            if not calling.heard:
                calling.hear(429, getattr(response, "headers", None) or {})
            return 0
        found = found.__cause__ or found.__context__
    return None


def _listen(llm: Any) -> None:
    """Have the clients of OpenAI's and Anthropic's packages tell when a request goes out and what headers come back, by
    httpx's event hooks."""
    httpx: Any = sys.modules.get("httpx")
    if httpx is None:
        return
    for name, kind, sent, heard in (
        ("_client", httpx.Client, _sent, _heard),
        ("_async_client", httpx.AsyncClient, _asent, _aheard),
    ):
        client = getattr(getattr(llm, name, None), "_client", None)
        if isinstance(client, kind) and heard not in client.event_hooks["response"]:
            client.event_hooks["request"].append(sent)
            client.event_hooks["response"].append(heard)


def _sent(request: Any) -> None:
    calling = _calling.get()
    if calling is not None:
        calling.permits.sent(calling.ticket)


async def _asent(request: Any) -> None:
    _sent(request)


def _heard(response: Any) -> None:
    calling = _calling.get()
    if calling is not None:
        calling.hear(response.status_code, response.headers)


async def _aheard(response: Any) -> None:
    _heard(response)
