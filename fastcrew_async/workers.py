"""The worker pool: where sync tools, callbacks and models run, off the event loop.

Workers are ``threading.Thread`` objects; each job gets a copy of the caller's context. They are daemons: a call that
never returns must not hold up the interpreter's exit.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Coroutine
from contextvars import ContextVar, copy_context
from functools import partial
from itertools import count
from time import monotonic
from typing import Any, ParamSpec, TypeVar

from fastcrew_async import environment, runtime
from fastcrew_async._native import Job, WorkQueue
from fastcrew_async.calls import call_stack

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger(__name__)
_in_worker: ContextVar[bool] = ContextVar("fastcrew_async_in_worker", default=False)
_numbers = count(1)


class WorkerPool:
    """Threads that grow with the jobs that wait and end when idle.

    Args:
        max_workers: the most threads; by default ``FASTCREW_ASYNC_MAX_WORKERS``, or 64. Jobs started from inside a job
            may exceed it, because the outer job holds a thread while it waits for them.
        idle_seconds: how long a thread waits for its next job before it ends.
        max_abandoned: how many calls that were cancelled while they ran, and still run, do not count against
            ``max_workers``; by default ``FASTCREW_ASYNC_MAX_ABANDONED``, or 64. More of them take the places of others.

    Raises:
        ValueError: ``max_workers`` is no whole number of 1 or more, ``max_abandoned`` none of 0 or more, or an
            environment variable is out of range.
    """

    def __init__(
        self, max_workers: int | None = None, *, idle_seconds: float = 30.0, max_abandoned: int | None = None
    ) -> None:
        self.max_workers = environment.max_workers() if max_workers is None else max_workers
        self.max_abandoned = environment.max_abandoned() if max_abandoned is None else max_abandoned
        if not environment.is_whole(self.max_workers, 1):
            raise ValueError(f"max_workers must be at least 1, not {self.max_workers!r}")
        if not environment.is_whole(self.max_abandoned, 0):
            raise ValueError(f"max_abandoned must be 0 or more, not {self.max_abandoned!r}")
        self.idle_seconds = idle_seconds
        self.runtime = runtime.get()
        self._queue = WorkQueue(self.runtime, self.max_workers, self.max_abandoned)

    def run(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        """Run ``call(*args, **kwargs)`` in a worker, with a copy of the context, and return what it returns.

        Cancelled while the call waits, it never runs; cancelled while it runs, its result is dropped and the call
        counts as abandoned: it cannot be stopped and goes on to its end, which nobody waits for. A warning is logged.

        Raises:
            AbandonedCallsError: abandoned calls hold all places there are.
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
        begun: list[float] = []
        answer, grow = self._queue.put(partial(_begin, begun, partial(context.run, call)), nested, group)
        if grow and not self._start_worker() and not self._queue.stats()["workers"]:
            answer.close()
            raise RuntimeError("can't start new thread")
        try:
            return await answer
        except asyncio.CancelledError:
            if begun:
                self._tell_abandoned(begun[0])
                self._fill_places()
            raise

    def check(self) -> None:
        """Raise what :meth:`run` raises where abandoned calls hold all places."""
        self._queue.check()

    def hold(self, seconds: float) -> Callable[[], None]:
        """Count a call that is abandoned after `seconds` on a thread which is not of the pool; call what this gives at
        its end."""
        self._queue.hold()
        self._tell_abandoned(monotonic() - seconds)
        return self._queue.released

    def stats(self) -> dict[str, int]:
        """``workers``, ``running`` and ``waiting`` now, and abandoned calls that are ``still_running``; ``done`` and
        ``abandoned`` so far."""
        return self._queue.stats()

    def close(self) -> None:
        """End the idle workers, and the others after their job; jobs that wait fail with ``RuntimeClosedError``."""
        self._queue.close()

    def _tell_abandoned(self, began: float) -> None:
        logger.warning(
            "The run of a sync call was cancelled, or is past its deadline, after %.1f s of the call: %s. "
            "The call cannot be stopped and goes on in its thread; %d such calls do.",
            monotonic() - began,
            " > ".join(call.name for call in call_stack()) or "outside of a crew",
            self.stats()["still_running"],
        )

    def _fill_places(self) -> None:
        """Start workers for jobs that wait, in the places that abandoned ones no longer count for."""
        while self._queue.grow():
            if not self._start_worker():
                return

    def _start_worker(self) -> bool:
        worker = threading.Thread(
            target=_work, args=(self._queue, self.idle_seconds), name=f"fastcrew-worker-{next(_numbers)}", daemon=True
        )
        try:
            worker.start()
        except RuntimeError:
            # No more threads: the job waits for another worker, if there is one.
            self._queue.lost()
            return False
        return True


def _begin(begun: list[float], call: Callable[[], T]) -> T:
    begun.append(monotonic())
    return call()


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


def check() -> None:
    """Raise ``AbandonedCallsError`` where abandoned calls hold all places of the process's pool."""
    if _pool is not None and not _pool.runtime.closed:
        _pool.check()


def _forget() -> None:
    # The parent's threads do not exist here, and its lock may have been held by one of them.
    global _lock, _pool
    _lock, _pool = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
