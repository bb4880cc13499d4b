"""The connections of this process to model servers, shared by all runs and models."""

from __future__ import annotations

import os
import threading
from urllib.request import getproxies

import certifi

from fastcrew_async import runtime
from fastcrew_async._native import HttpClient

MAX_CONNECTIONS = 1000
"""Requests under way at once, as many as the openai package allows."""

_lock = threading.Lock()
_pools: dict[object, HttpClient] = {}


def connections(connect_timeout: float | None) -> HttpClient:
    """The pool for the environment as it is now: proxies and ``SSL_CERT_FILE``, as httpx reads them.

    Without ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` the system's certificate authorities are trusted beside those of
    certifi, which httpx knows alone.
    """
    found = getproxies()
    proxies = [
        (scheme, url if "://" in url else f"http://{url}")
        for scheme in ("http", "https", "all")
        if (url := found.get(scheme))
    ]
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    options = (connect_timeout, tuple(proxies), found.get("no", ""), file, folder)
    current = runtime.get()
    key = (current, *options)
    with _lock:
        pool = _pools.get(key)
        if pool is None:
            for stale in [known for known in _pools if known[0] is not current]:  # type: ignore[index]
                del _pools[stale]
            authorities = file or folder
            pool = _pools[key] = HttpClient(
                current,
                connect_timeout,
                proxies,
                found.get("no", ""),
                [authorities or certifi.where()],
                not authorities,
                MAX_CONNECTIONS,
            )
        return pool


def _forget() -> None:
    # The parent's connections are not ours, and its lock may have been held by one of its threads.
    global _lock
    _lock = threading.Lock()
    _pools.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
