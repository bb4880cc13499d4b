"""Which clients of the openai package the core stands in for, and why not for the others.

The requests of a client that is as the package made it are the core's to send. A client that somebody has put in place
of it, or has changed, is asked itself, and so is every client while the package, httpx or httpcore is patched:
recorders, tracers and tests are to see the calls.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from types import FunctionType
from typing import Any

import httpcore
import httpx
import openai
from openai import AsyncOpenAI, OpenAI
from openai._base_client import AsyncHttpxClientWrapper, SyncHttpxClientWrapper
from openai.resources.chat.completions import AsyncCompletions, Completions

from fastcrew_async.engine.calling import is_ours
from fastcrew_async.model.client import AsyncClient, SyncClient

_STAND_INS: dict[type, Any] = {AsyncOpenAI: AsyncClient, OpenAI: SyncClient}
_KEPT = "_fastcrew_async"
_SOURCES = tuple(str(Path(str(package.__file__)).parent) for package in (openai, httpx, httpcore))


def _stock(owner: type, name: str) -> Any:
    """The method as its package wrote it; None, which nothing is, where it was patched before we came."""
    found = vars(owner)[name]
    return found if type(found) is FunctionType and found.__code__.co_filename.startswith(_SOURCES) else None


_WATCHED = tuple(
    (vars(owner), name, _stock(owner, name))
    for owner, names in {
        OpenAI: ("_prepare_options", "_send_request"),
        AsyncOpenAI: ("_prepare_options", "_send_request"),
        OpenAI.__mro__[1]: ("post", "request"),
        AsyncOpenAI.__mro__[1]: ("post", "request"),
        Completions: ("create", "parse"),
        AsyncCompletions: ("create", "parse"),
        httpx.Client: ("send",),
        httpx.AsyncClient: ("send",),
        httpx.HTTPTransport: ("handle_request",),
        httpx.AsyncHTTPTransport: ("handle_async_request",),
        httpcore.ConnectionPool: ("handle_request",),
        httpcore.AsyncConnectionPool: ("handle_async_request",),
    }.items()
    for name in names
    if name in vars(owner)
)


def stand_in(sdk: Any) -> Any:
    """The core's client in place of `sdk`, or `sdk` where it is to be asked itself."""
    if type(sdk) not in _STAND_INS:
        return sdk
    for names, name, stock in _WATCHED:
        if names.get(name) is not stock:
            return sdk
    attributes = vars(sdk)
    client, count = attributes.get(_KEPT, (None, 0))
    # Seen for the first time, or something was put on it, or may have been put on what it hands out.
    if count != len(attributes) or "chat" in attributes or "beta" in attributes:
        client = (client or _STAND_INS[type(sdk)](sdk)) if changed(sdk) is None else None
        attributes[_KEPT] = (client, len(attributes) + (_KEPT not in attributes))
    return client or sdk


def reason(sdk: Any) -> str | None:
    """Why `sdk` is asked itself; None where the core stands in for it."""
    if type(sdk) not in _STAND_INS:
        return f"its client is a {type(sdk).__qualname__}, which is not the openai package's own"
    for names, name, stock in _WATCHED:
        if names.get(name) is not stock:
            return f"{name}() of openai, httpx or httpcore is patched"
    return changed(sdk)


def changed(sdk: Any) -> str | None:
    """What makes `sdk` another client than the openai package makes by itself, or None."""
    http = sdk._client
    if type(http) not in (AsyncHttpxClientWrapper, SyncHttpxClientWrapper):
        return "it has an HTTP client of its own (interceptor, or http_client among client_params)"
    transport = http._transport
    if (
        not all(is_ours(hook) for hooks in http.event_hooks.values() for hook in hooks)
        or type(transport) not in (httpx.HTTPTransport, httpx.AsyncHTTPTransport)
        or _replaced(http)
        or _replaced(transport)
    ):
        return "its HTTP client was changed"
    if sdk._api_key_provider is not None or sdk._workload_identity_auth is not None:
        return "its API key is asked for anew for each call"
    if _replaced(sdk):
        return "a method of its client was replaced"
    return None


def _replaced(thing: Any) -> bool:
    """Whether the object has a method of its own, or one of its parts that the calls go through has."""
    kind = type(thing)
    for name, value in vars(thing).items():
        of_class = getattr(kind, name, None)
        if isinstance(of_class, FunctionType):
            return True
        if isinstance(of_class, cached_property) and name in ("chat", "beta", "completions", "with_raw_response"):
            if name == "with_raw_response":
                if any(_wraps_another(thing, value, method) for method in ("create", "parse")):
                    return True
            elif not type(value).__module__.startswith("openai.") or _replaced(value):
                return True
    return False


def _wraps_another(completions: Any, raw: Any, method: str) -> bool:
    wrapped = getattr(vars(raw).get(method), "__wrapped__", None)
    return getattr(wrapped, "__func__", None) is not getattr(type(completions), method)
