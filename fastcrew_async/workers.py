"""The worker pool: where sync tools, callbacks and models run, off the event loop.

Workers are ``threading.Thread`` objects; each job gets a copy of the caller's context. They are daemons: a call that
never returns must not hold up the interpreter's exit.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Coroutine
from contextvars import ContextVar, copy_context
from functools import partial
from itertools import count
from typing import Any, ParamSpec, TypeVar

from fastcrew_async import runtime
from fastcrew_async._native import Awaitable, Job, WorkQueue

P = ParamSpec("P")
T = TypeVar("T")

_in_worker: ContextVar[bool] = ContextVar("fastcrew_async_in_worker", default=False)
_numbers = count(1)


class WorkerPool:
    """Threads that grow with the jobs that wait and end when idle.

    Args:
        max_workers: the most threads; by default ``FASTCREW_ASYNC_MAX_WORKERS``, or 64. Jobs started from inside a job
            may exceed it, because the outer job holds a thread while it waits for them.
        idle_seconds: how long a thread waits for its next job before it ends.

    Raises:
        ValueError: ``max_workers`` is less than 1, or ``FASTCREW_ASYNC_MAX_WORKERS`` is not a number.
    """

    def __init__(self, max_workers: int | None = None, *, idle_seconds: float = 30.0) -> None:
        self.max_workers = _max_workers() if max_workers is None else max_workers
        self.idle_seconds = idle_seconds
        self.runtime = runtime.get()
        self._queue = WorkQueue(self.runtime, self.max_workers)

    def run(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        """Run ``call(*args, **kwargs)`` in a worker, with a copy of the context, and return what it returns.

        Cancelled while the call waits, it never runs; cancelled while it runs, its result is dropped and the call
        counts as abandoned.

        Raises:
            RuntimeClosedError: the pool or the runtime is closed.
            BaseException: whatever the call raised.
        """
        return self.run_in("", partial(call, *args, **kwargs) if args or kwargs else call)

    async def run_in(self, group: str, call: Callable[[], T]) -> T:
        """``run(call)`` as one of a group, a tool for example: the group with the fewest running calls is served next,
        and none may hold more than three quarters of the workers, so that a slow one cannot keep the others waiting.
        """
        context = copy_context()
        nested = _in_worker.get()
        if not nested:
            context.run(_in_worker.set, True)
        answer, grow = self._queue.put(partial(context.run, call), nested, group)
        if grow:
            self._start_worker(answer)
        return await answer

    def stats(self) -> dict[str, int]:
        """``workers``, ``running`` and ``waiting`` now; ``done`` and ``abandoned`` so far."""
        return self._queue.stats()

    def close(self) -> None:
        """End the idle workers, and the others after their job; jobs that wait fail with ``RuntimeClosedError``."""
        self._queue.close()

    def _start_worker(self, answer: Awaitable[Any]) -> None:
        worker = threading.Thread(
            target=_work, args=(self._queue, self.idle_seconds), name=f"fastcrew-worker-{next(_numbers)}", daemon=True
        )
        try:
            worker.start()
        except RuntimeError:
            # No more threads: the job waits for another worker, if there is one.
            self._queue.lost()
            if not self._queue.stats()["workers"]:
                answer.close()
                raise


def _work(queue: WorkQueue, idle_seconds: float) -> None:
    while (job := queue.take(idle_seconds)) is not None:
        _answer(job)
        # Its objects must not live on in a worker that waits.
        del job


def _answer(job: Job) -> None:
    call = job.call()
    try:
        result = None if call is None else call()
    except BaseException as error:
        job.set_exception(error)
    else:
        job.set_result(result)


def _max_workers() -> int:
    text = os.environ.get("FASTCREW_ASYNC_MAX_WORKERS", "").strip() or "64"
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"FASTCREW_ASYNC_MAX_WORKERS={text!r} is not a whole number; unset it or use 64") from None


_lock = threading.Lock()
_pool: WorkerPool | None = None


def pool() -> WorkerPool:
    """The pool of this process; a forked child gets one of its own."""
    global _pool
    current = _pool
    if current is None or current.runtime.closed:
        with _lock:
            if _pool is None or _pool.runtime.closed:
                _pool = WorkerPool()
            current = _pool
    return current


def _forget() -> None:
    # The parent's threads do not exist here, and its lock may have been held by one of them.
    global _lock, _pool
    _lock, _pool = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
