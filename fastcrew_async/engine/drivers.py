"""The two drivers of the engine's coroutines: on the running event loop, and in place."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from time import perf_counter
from typing import Any, TypeVar

from fastcrew_async import workers
from fastcrew_async.deadlines import time_left, within
from fastcrew_async.engine.effects import Effect
from fastcrew_async.engine.forgotten import held
from fastcrew_async.engine.turnstile import Rank, new_rank, rank, turnstile

T = TypeVar("T")
Work = Coroutine[Effect, Any, T]
"""A coroutine of the engine: it awaits nothing but effects."""


class Abandoned:
    """Whether the run, from inside which something is driven in place on another thread, was cancelled."""

    __slots__ = ("_around", "_loop", "_now")

    def __init__(self) -> None:
        self._around = _abandoned.get()
        self._loop = asyncio._get_running_loop()
        self._now = False

    def __bool__(self) -> bool:
        return self._now or bool(self._around)

    def set(self) -> None:
        """It was."""
        self._now = True

    def outside(self, loop: asyncio.AbstractEventLoop) -> Abandoned | None:
        """The nearest mark around that is not of `loop`, whose own runs are ended by a cancellation."""
        mark: Abandoned | None = self
        while mark is not None and mark._loop is loop:
            mark = mark._around
        return mark


_abandoned: contextvars.ContextVar[Abandoned | None] = contextvars.ContextVar("fastcrew_async_abandoned", default=None)


def is_abandoned() -> bool:
    """Whether what is driven here in place has been abandoned: by a cancellation around it, or its deadline."""
    return bool(_abandoned.get())


@contextmanager
def abandonable() -> Iterator[Abandoned]:
    """What is begun in here starts nothing further once the given mark is set."""
    abandoned = Abandoned()
    token = _abandoned.set(abandoned)
    try:
        yield abandoned
    finally:
        _abandoned.reset(token)


class own_run:
    """What is awaited inside is a run of its own, with a place among all runs, unless it is part of one already.

    What a cancelled run leaves behind on a worker thread (a sync tool that has kicked off a crew) starts nothing
    further.
    """

    __slots__ = ("_abandoned", "_begun", "_priority", "_token")
    _begun: contextvars.Token[Rank | None] | None

    def __init__(self, priority: int = 0) -> None:
        self._priority = priority

    def __enter__(self) -> None:
        self._begun = None
        if rank.get() is None:
            self._begun = rank.set(new_rank(self._priority))
            self._abandoned = Abandoned()
            self._token = _abandoned.set(self._abandoned)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._begun is not None:
            if kind is not None and issubclass(kind, asyncio.CancelledError):
                self._abandoned.set()
            with suppress(ValueError):  # where the collector closes a forgotten coroutine, in any context
                rank.reset(self._begun)
                _abandoned.reset(self._token)


async def drive(work: Work[T], priority: int = 0) -> T:
    """Run `work` on the current event loop. Cancelling the awaiting task cancels `work` at its current effect.

    `priority` counts where this is a run of its own, and not part of one.

    Raises:
        TimeoutError: this loop is inside a sync tool of a run on another one, which was abandoned; as from
            :func:`drive_in_place`.
    """
    gate = turnstile()
    around = _abandoned.get()
    abandoned = None if around is None else around.outside(gate.loop)
    refused = False
    value: Any = None
    error: BaseException | None = None
    with held(gate.loop), own_run(priority):
        try:
            while True:
                if gate.closed:
                    try:
                        await gate.turn()
                    except BaseException as cancelled:
                        error = cancelled
                started = perf_counter()
                try:
                    effect = work.send(value) if error is None else work.throw(error)
                except StopIteration as stop:
                    if refused:
                        raise _left_behind() from None
                    result: T = stop.value
                    return result
                finally:
                    gate.spend(perf_counter() - started)
                    value = error = None
                try:
                    if abandoned and effect.starts:
                        refused = True
                        raise _left_behind()
                    value = await effect.aperform()
                except BaseException as raised:
                    if gate.loop.is_closed():  # it has forgotten this run, which is ended
                        raise
                    error = raised
                del effect
        finally:
            if gate.loop.is_closed():
                _collect(work)
            else:
                work.close()


class _Forgotten(BaseException):
    """Ends the work of a loop that has closed over it. Not GeneratorExit, with which cleanup must not await."""


def _collect(work: Work[Any]) -> None:
    """Close `work` where nothing performs the effects of its cleanup any more."""
    with suppress(_Forgotten, StopIteration):
        while True:
            work.throw(_Forgotten)


def drive_in_place(work: Work[T]) -> T:
    """Run `work` on this thread, without an event loop.

    Raises:
        TimeoutError: the run around it was cancelled, or is past its deadline, before this was complete. From then on
            nothing is started, whatever the engine makes of the refusals, and what is open is closed.
    """
    abandoned = _abandoned.get()
    refused = False
    value: Any = None
    error: BaseException | None = None
    try:
        while True:
            try:
                effect = work.send(value) if error is None else work.throw(error)
            except StopIteration as stop:
                if refused:
                    raise _left_behind() from None
                result: T = stop.value
                return result
            finally:
                value = error = None
            try:
                if abandoned and effect.starts:
                    refused = True
                    raise _left_behind()
                value = effect.perform()
            except BaseException as raised:
                error = raised
            del effect
    finally:
        work.close()


def _left_behind() -> TimeoutError:
    return TimeoutError("the run was abandoned: it was cancelled, or is past its deadline")


class Deadline(Effect):
    """Run `work` for at most `seconds`; then it is cancelled and TimeoutError is raised at once.

    In place, the work goes on a thread of its own. At the deadline the thread starts nothing further, and a model or
    tool call that it is in is left to end by itself.
    """

    __slots__ = ("seconds", "work", "wrap")

    def __init__(self, work: Work[Any], seconds: float, wrap: Callable[[Exception], Exception]) -> None:
        self.work = work
        self.seconds = seconds
        self.wrap = wrap  # what an error of the work becomes in place, where CrewAI passes it on from a thread

    def perform(self) -> Any:
        outcome: Future[Any] = Future()
        abandoned = Abandoned()
        around = time_left()
        seconds = self.seconds if around is None else min(self.seconds, around)
        workers.check()

        def run() -> None:
            _abandoned.set(abandoned)
            try:
                outcome.set_result(drive_in_place(self.work))
            except BaseException as error:
                outcome.set_exception(error)

        with within(seconds):
            context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(run,), name="fastcrew-deadline", daemon=True).start()
        if not _wait(outcome, seconds):
            abandoned.set()
            released = workers.pool().hold(seconds)
            outcome.add_done_callback(lambda _: released())
            raise TimeoutError
        error = outcome.exception()
        if isinstance(error, Exception) and not isinstance(error, TimeoutError):
            wrapped = self.wrap(error)
            raise wrapped from (error if wrapped is not error else None)
        return outcome.result()

    async def aperform(self) -> Any:
        try:
            with within(self.seconds):
                return await asyncio.wait_for(drive(self.work), self.seconds)
        except asyncio.TimeoutError as error:  # not the builtin before Python 3.11
            raise TimeoutError from error
        finally:
            self.work.close()  # cancelled before its first step


class Apart(Effect):
    """Run `work` in a copy of the context, as a flow's ``kickoff`` does: what it sets there stays there."""

    __slots__ = ("work",)
    starts = False  # the work may

    def __init__(self, work: Work[Any]) -> None:
        self.work = work

    def perform(self) -> Any:
        return contextvars.copy_context().run(drive_in_place, self.work)

    async def aperform(self) -> Any:
        try:
            return await asyncio.create_task(drive(self.work))  # which a cancellation of this one cancels
        finally:
            self.work.close()  # cancelled before its first step


class Spawn(Effect):
    """Start `work` beside this one, in a copy of the context; gives a handle for :class:`Join`.

    The handle is also put into `handles`, for :class:`Stop`: a cancellation may come before this effect's answer.
    """

    __slots__ = ("handles", "work")

    def __init__(self, work: Work[Any], handles: list[Any]) -> None:
        self.work = work
        self.handles = handles

    def perform(self) -> Future[Any]:
        outcome: Future[Any] = Future()

        def run() -> None:
            try:
                outcome.set_result(drive_in_place(self.work))
            except BaseException as error:
                outcome.set_exception(error)

        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(run,), name="fastcrew-branch", daemon=True).start()
        self.handles.append(outcome)
        return outcome

    async def aperform(self) -> asyncio.Task[Any]:
        work = self.work
        task = asyncio.create_task(drive(work))
        task.add_done_callback(lambda _: work.close())  # one that was cancelled before its start
        self.handles.append(task)
        return task


class Join(Effect):
    """Wait for a branch; its error is raised here."""

    __slots__ = ("handle",)

    starts = False

    def __init__(self, handle: Any) -> None:
        self.handle = handle

    def perform(self) -> Any:
        return self.handle.result()

    async def aperform(self) -> Any:
        return await self.handle


class First(Effect):
    """Wait until at least one of several branches has ended; gives those that have."""

    __slots__ = ("handles",)

    starts = False

    def __init__(self, handles: Sequence[Any]) -> None:
        self.handles = handles

    def perform(self) -> set[Any]:
        return set(concurrent.futures.wait(self.handles, return_when=concurrent.futures.FIRST_COMPLETED).done)

    async def aperform(self) -> set[Any]:
        done: set[Any] = (await asyncio.wait(self.handles, return_when=asyncio.FIRST_COMPLETED))[0]
        return done


class Stop(Effect):
    """Cancel branches that still run and wait for their end. In place, their threads are left to end by themselves."""

    __slots__ = ("handles",)

    starts = False

    def __init__(self, handles: list[Any]) -> None:
        self.handles = handles

    def perform(self) -> None:
        return None

    async def aperform(self) -> None:
        for task in self.handles:
            task.cancel()
        if self.handles:
            await asyncio.wait(self.handles)
            for task in self.handles:
                seen(task)  # the run reports the first error, as CrewAI does


def seen(task: asyncio.Future[Any]) -> None:
    """The error of a task that was cancelled, if its end has raised one, is nothing for the loop to complain of."""
    if not task.cancelled():
        task.exception()


def _wait(outcome: Future[Any], seconds: float) -> bool:
    done = threading.Event()
    outcome.add_done_callback(lambda _: done.set())
    return done.wait(seconds)
