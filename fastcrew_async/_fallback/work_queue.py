"""The queue that feeds the pool of threads: which job is next, and when another thread is needed.

Jobs and workers are counted under one lock, so a job is never left without a worker that will come for it. Jobs put by
a job ("nested") go first and may exceed the limit of workers: the job that waits for them holds a worker meanwhile, and
would hold it for ever otherwise.

Jobs belong to groups (a tool each). The next job is one of the group with the fewest running, and a named group never
has more running than its share of the workers, so that a slow tool leaves room for the others.

A job that is abandoned while it runs goes on to its end. Up to ``max_abandoned`` such jobs do not count against the
limit of workers: others take their places. When abandoned jobs hold all places there are, new jobs are refused.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import count
from typing import TypeVar, cast

from fastcrew_async._fallback.bridge import Awaitable, Operation
from fastcrew_async._fallback.runtime import Runtime
from fastcrew_async.errors import AbandonedCallsError, RuntimeClosedError

T = TypeVar("T")
_tickets = count()


class Job:
    """One call on its way to a worker and back."""

    def __init__(
        self, queue: WorkQueue, call: Callable[[], object], operation: Operation[object], group: str | None
    ) -> None:
        self._queue = queue
        self._group = group  # None for a nested one
        self._ticket = next(_tickets)
        self._call: Callable[[], object] | None = call
        self._operation: Operation[object] | None = operation
        self.abandoned = False  # while it was running; changed with the queue locked

    def call(self) -> Callable[[], object] | None:
        """What to call, once; None when the job was abandoned."""
        call, self._call = self._call, None
        return call

    def set_result(self, value: object) -> None:
        """Answer the job. Only the first answer counts."""
        self._finish(value, None)

    def set_exception(self, exception: BaseException) -> None:
        """Fail the job with what the call raised."""
        if isinstance(exception, StopIteration):
            # To a coroutine it would be a result.
            wrapped = RuntimeError("the call raised StopIteration")
            wrapped.__cause__ = exception
            exception = wrapped
        self._finish(None, exception)

    def abandon(self) -> None:
        """Nobody waits for it any more: one that waits is removed, one that runs is left alone and counted."""
        if self._operation is not None:
            self._queue._abandon(self)
            self._call = None

    def _finish(self, value: object, error: BaseException | None) -> None:
        operation, self._operation = self._operation, None
        if operation is not None:
            self._queue._finished(self)
            operation.complete(value, error)


class WorkQueue:
    """Jobs for at most ``max_workers`` threads, which the caller runs, and one more for each of up to
    ``max_abandoned`` jobs that were abandoned and still run.

    Raises:
        ValueError: ``max_workers`` is less than 1.
    """

    def __init__(self, runtime: Runtime, max_workers: int, max_abandoned: int) -> None:
        if max_workers < 1:
            raise ValueError(f"max_workers must be at least 1, not {max_workers}")
        self._runtime = runtime
        self._max_workers = max_workers
        self._max_abandoned = max_abandoned
        # Dictionaries as ordered sets: the oldest first, any one removed at once.
        self._groups: dict[str, _Group] = {}
        self._nested: dict[Job, None] = {}
        self._share = max(1, max_workers - -(-max_workers // 4))  # three quarters: what one group may hold
        self._workers = self._running = self._done = self._abandoned = self._held = 0
        self._closed = False
        self._changed = threading.Condition()

    def put(self, call: Callable[[], T], nested: bool = False, group: str = "") -> tuple[Awaitable[T], bool]:
        """Queue ``call`` for a worker and give its awaitable, which belongs to the running loop. The second value says
        that the caller must start one more worker now. ``group`` is the tool that the call belongs to."""
        self.check()
        operation: Operation[object] = Operation(self._runtime)
        job = Job(self, call, operation, None if nested else group)
        with self._changed:
            if self._closed:
                self._runtime.leave(operation)
                raise RuntimeClosedError("the work queue is closed")
            (self._nested if nested else self._groups.setdefault(group, _Group()).jobs)[job] = None
            grow = self._grow(nested)
            self._changed.notify()

        async def start() -> T:
            try:
                return cast(T, await operation.wait())
            finally:
                job.abandon()

        return Awaitable(start, unused=job.abandon), grow

    def take(self, timeout: float) -> Job | None:
        """The next job for the calling worker, which waits for it at most ``timeout`` seconds. None ends the worker:
        nothing came, or there are too many workers, or the queue is closed."""
        self._runtime.check_process("work queue")
        with self._changed:
            job = self._next()
            if job is None and not self._closed and self._workers <= self._most():
                found: list[Job] = []

                def come() -> bool:
                    found.extend(job for job in (self._next(),) if job is not None)
                    return bool(found) or self._closed

                self._changed.wait_for(come, timeout)
                job = found[0] if found else None
            if job is None:
                self._workers -= 1
                if self._waiting():
                    # It may have been the one too many that kept a waiting worker from the next job.
                    self._changed.notify()
            return job

    def grow(self) -> bool:
        """Whether the caller must start one more worker now, for jobs that wait: an abandoned one may have left its
        place."""
        with self._changed:
            return not self._closed and (self._grow(True) or self._grow(False))

    def check(self) -> None:
        """Raise what ``put`` raises when abandoned calls hold all places."""
        with self._changed:
            if self._held < self._max_workers + self._max_abandoned:
                return
            raise AbandonedCallsError(
                f"{self._held} sync calls were abandoned at a deadline or a cancellation and still run, and hold all "
                f"places (max_workers={self._max_workers}, max_abandoned={self._max_abandoned}): give what they wait "
                "for a timeout of its own, or set FASTCREW_ASYNC_MAX_ABANDONED higher"
            )

    def hold(self) -> None:
        """Count a call that was abandoned on a thread which is not a worker, until it is ``released``."""
        with self._changed:
            self._abandoned += 1
            self._held += 1

    def released(self) -> None:
        """A call that was counted by ``hold`` has ended."""
        with self._changed:
            self._held -= 1

    def lost(self) -> None:
        """Take back a worker that ``put`` asked for and that could not be started."""
        with self._changed:
            self._workers -= 1

    def close(self) -> None:
        """End the workers that wait, and fail the jobs that do."""
        self._runtime.check_process("work queue")
        with self._changed:
            self._closed = True
            waiting = [*self._nested, *(job for group in self._groups.values() for job in group.jobs)]
            self._nested.clear()
            for group in self._groups.values():
                group.jobs.clear()
            self._changed.notify_all()
        for job in waiting:
            operation, job._operation = job._operation, None
            if operation is not None:
                operation.complete(error=RuntimeClosedError("the work queue is closed"))

    def stats(self) -> dict[str, int]:
        """Workers, running and waiting jobs now, and abandoned calls that still run; done and abandoned jobs so far."""
        self._runtime.check_process("work queue")
        with self._changed:
            return {
                "workers": self._workers,
                "running": self._running,
                "waiting": self._waiting(),
                "done": self._done,
                "abandoned": self._abandoned,
                "still_running": self._held,
            }

    def _most(self) -> int:
        return self._max_workers + min(self._held, self._max_abandoned)

    def _grow(self, nested: bool) -> bool:
        available = self._workers - self._running
        if nested:
            wanted = len(self._nested) > available
        else:
            runnable = sum(self._runnable(name) for name in self._groups) + len(self._nested)
            wanted = self._workers < self._most() and runnable > available
        self._workers += wanted
        return wanted

    def _runnable(self, name: str) -> int:
        """How many jobs of a group could run at once if there were workers."""
        group = self._groups[name]
        return min(len(group.jobs), self._share - group.running) if name else len(group.jobs)

    def _waiting(self) -> int:
        return sum(len(group.jobs) for group in self._groups.values()) + len(self._nested)

    def _next(self) -> Job | None:
        """The next job, which counts as running."""
        if self._nested:
            job = next(iter(self._nested))
            del self._nested[job]
        elif self._workers > self._most():
            return None
        else:
            ready = [group for name, group in self._groups.items() if self._runnable(name) > 0]
            if not ready:
                return None
            group = min(ready, key=lambda group: (group.running, next(iter(group.jobs))._ticket))
            job = next(iter(group.jobs))
            del group.jobs[job]
            group.running += 1
        self._running += 1
        return job

    def _abandon(self, job: Job) -> None:
        with self._changed:
            group = self._groups.get(job._group or "")
            jobs = self._nested if job._group is None else group.jobs if group else {}
            if job in jobs:
                del jobs[job]
                self._tidy(job._group)
            elif job._operation is not None and not job.abandoned:
                job.abandoned = True
                self._leave_group(job)
                self._abandoned += 1
                self._held += 1
                # It has left its place in its group to one that waits, and its worker is not coming for that.
                self._changed.notify()

    def _finished(self, job: Job) -> None:
        with self._changed:
            self._running -= 1
            self._done += 1
            if job.abandoned:
                self._held -= 1
            else:
                self._leave_group(job)

    def _leave_group(self, job: Job) -> None:
        if job._group is not None:
            self._groups[job._group].running -= 1
            self._tidy(job._group)

    def _tidy(self, name: str | None) -> None:
        if name is not None and not self._groups[name].jobs and not self._groups[name].running:
            del self._groups[name]


class _Group:
    """The jobs of one tool: a dictionary as an ordered set, the oldest first."""

    def __init__(self) -> None:
        self.jobs: dict[Job, None] = {}
        self.running = 0
