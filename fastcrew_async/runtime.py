"""The runtime of this process: built at its first use, replaced after a fork or a close."""

from __future__ import annotations

import os
import threading

from fastcrew_async._native import Runtime

_lock = threading.Lock()
_runtime: Runtime | None = None


def get() -> Runtime:
    """The runtime of this process.

    A forked child gets one of its own; after :func:`close` the next call makes a new one.
    """
    global _runtime
    runtime = _runtime
    if runtime is None or runtime.closed:
        with _lock:
            if _runtime is None or _runtime.closed:
                from fastcrew_async import core_log

                core_log.start()
                _runtime = Runtime()
            runtime = _runtime
    return runtime


def close(timeout: float = 5.0) -> bool:
    """Close the runtime of this process, if there is one; see :meth:`Runtime.close`. Blocks the calling thread.

    Args:
        timeout: how many seconds to wait for what is in flight before it fails with ``RuntimeClosedError``.

    Returns:
        Whether everything in flight had ended in time.
    """
    global _runtime
    with _lock:
        runtime, _runtime = _runtime, None
    if runtime is None:
        return True
    from fastcrew_async import core_log

    drained = runtime.close(timeout)
    core_log.flush()
    return drained


async def sleep(seconds: float) -> None:
    """Sleep on the core's clock; a small operation that exercises the bridge and nothing else.

    Raises:
        ValueError: ``seconds`` is negative or not a number.
    """
    await get().sleep(seconds)


def _forget() -> None:
    # The parent's runtime has no threads here, and its lock may have been held by one of them.
    global _lock, _runtime
    _lock, _runtime = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
