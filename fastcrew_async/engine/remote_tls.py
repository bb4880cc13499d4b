"""TLS contexts for the clients that CrewAI makes to ask remote agents.

Source: ``_get_tls_verify`` of ``crewai/a2a/utils/agent_card.py`` of CrewAI 1.15.30. CrewAI makes an HTTP client for
each card and each message, and httpx reads the certificate authorities for each client that is given no context: 25 ms
of CPU. Here they are read on a worker, once for as long as nothing that they depend on has changed, and given to the
clients of those runs that the engine drives on a loop.
"""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from fastcrew_async.engine.lane import Lane, OnLane
from fastcrew_async.engine.lent import Loan
from fastcrew_async.engine.seams import is_crewais

Key = tuple[Any, ...]
Contexts = Mapping[Key, ssl.SSLContext]
_given: ContextVar[Contexts | None] = ContextVar("fastcrew_async_remote_tls", default=None)
_reading = Lane(1)
_MOST = 64  # kept; programs have one or two
_kept: dict[Key, tuple[Key, ssl.SSLContext]] = {}  # with what was there when it was read


async def contexts(agent: Any) -> Contexts:
    """Those of all remote agents that `agent` may ask, read on a worker."""
    found: Contexts = await OnLane(_reading, _of, agent).aperform()
    return found


@contextlib.contextmanager
def given(ready: Contexts) -> Iterator[None]:
    """CrewAI's clients made inside get these."""
    token = _given.set(ready)
    try:
        with LOAN:
            yield
    finally:
        _given.reset(token)


def _of(agent: Any) -> Contexts:
    configs = agent.a2a if isinstance(agent.a2a, (list, tuple)) else [agent.a2a]
    found = {}
    for tls in (getattr(getattr(config, "auth", None), "tls", None) for config in configs):
        if _is_stock(tls):
            with contextlib.suppress(Exception):  # CrewAI meets it again, and tells it in its own way
                found[_key(tls)] = _context(tls)
    return found


def _is_stock(tls: Any) -> bool:
    return not tls or is_crewais(type(tls).get_httpx_ssl_context)


def _key(tls: Any) -> Key:
    """What CrewAI's context depends on."""
    return (tls.verify, tls.client_cert_path, tls.client_key_path, tls.ca_cert_path) if tls else ()


def _context(tls: Any) -> ssl.SSLContext:
    import certifi
    import httpx

    key = _key(tls)
    default = ssl.get_default_verify_paths()
    files = (*key[1:], certifi.where(), default.cafile, default.capath, os.environ.get("SSL_CERT_FILE"))
    read = (
        ssl.SSLContext,  # packages that trust the system's store put their own there
        ssl.create_default_context,
        httpx.create_ssl_context,
        *(os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE")),
        *(_stamp(file) for file in (*files, os.environ.get("SSL_CERT_DIR"))),
    )
    before, context = _kept.get(key, (None, None))
    if context is None or before != read:
        context = httpx.create_ssl_context(verify=tls.get_httpx_ssl_context() if tls else True)
        if len(_kept) >= _MOST:
            _kept.clear()
        _kept[key] = read, context
    return context


def _stamp(path: Any) -> Key | None:
    try:
        found = os.stat(path)
    except (OSError, TypeError):
        return None
    return str(path), found.st_mtime_ns, found.st_size, found.st_ino


def _verify(auth: Any) -> Any:
    """In place of ``_get_tls_verify``."""
    ready, tls = _given.get(), auth.tls if auth else None
    found = ready.get(_key(tls)) if ready is not None and _is_stock(tls) else None
    return LOAN.stock(auth) if found is None else found


LOAN = Loan(
    "_get_tls_verify",
    "crewai.a2a.utils.agent_card",
    "crewai.a2a.utils.delegation",
    stand_in=_verify,
    reason="lent while an agent that may ask remote agents is at work, in an AsyncCrew too: its HTTP clients share the "
    "certificate authorities, which each would read on the loop",
)
