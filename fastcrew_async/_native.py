"""Chooses, once, what the core's classes are: compiled Rust, or their pure-Python twins.

``FASTCREW_ASYNC_BACKEND`` decides: ``rust`` demands the compiled core, ``python`` the twins, ``auto`` (the default)
takes the core where it can be loaded.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from fastcrew_async.errors import BackendUnavailableError

__all__ = [
    "Awaitable",
    "CallFrame",
    "Codec",
    "FrameSplitter",
    "HttpClient",
    "HttpStream",
    "Job",
    "Limiter",
    "Memories",
    "ResultCache",
    "Retries",
    "Runtime",
    "Store",
    "TaskGraph",
    "WorkQueue",
    "backend",
    "canonical",
    "reason",
]

_VARIABLE = "FASTCREW_ASYNC_BACKEND"


def _choose() -> tuple[Literal["rust", "python"], str]:
    wanted = os.environ.get(_VARIABLE, "").strip().lower() or "auto"
    if wanted not in {"rust", "python", "auto"}:
        raise ValueError(f"{_VARIABLE}={wanted!r} is not a backend; use rust, python or auto")
    if wanted == "python":
        return "python", f"{_VARIABLE}=python"
    try:
        import fastcrew_async._core  # noqa: F401
    except ImportError as error:
        if wanted == "rust":
            raise BackendUnavailableError(
                f"{_VARIABLE}=rust, but the compiled core cannot be loaded ({error}); install a wheel of "
                f"fastcrew-async for this platform, build it with `maturin develop`, or set {_VARIABLE}=auto"
            ) from error
        return "python", f"the compiled core cannot be loaded: {error}"
    return "rust", f"{_VARIABLE}={wanted}, and the compiled core is here"


backend: Literal["rust", "python"]
"""Which one is in use."""

reason: str
"""Why."""

backend, reason = _choose()

if TYPE_CHECKING or backend == "rust":
    from fastcrew_async._core import (
        Awaitable,
        CallFrame,
        Codec,
        FrameSplitter,
        HttpClient,
        HttpStream,
        Job,
        Limiter,
        Memories,
        ResultCache,
        Retries,
        Runtime,
        Store,
        TaskGraph,
        WorkQueue,
        canonical,
    )
else:
    from fastcrew_async._fallback.bridge import Awaitable
    from fastcrew_async._fallback.call_stack import CallFrame
    from fastcrew_async._fallback.codec import Codec, FrameSplitter
    from fastcrew_async._fallback.http import HttpClient, HttpStream
    from fastcrew_async._fallback.limiter import Limiter
    from fastcrew_async._fallback.memory import Memories
    from fastcrew_async._fallback.result_cache import ResultCache, canonical
    from fastcrew_async._fallback.retries import Retries
    from fastcrew_async._fallback.runtime import Runtime
    from fastcrew_async._fallback.store import Store
    from fastcrew_async._fallback.task_graph import TaskGraph
    from fastcrew_async._fallback.work_queue import Job, WorkQueue
