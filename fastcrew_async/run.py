"""A kickoff that is under way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Generator, Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from crewai.crews.crew_output import CrewOutput

from fastcrew_async.engine import forgotten, progress

if TYPE_CHECKING:
    from fastcrew_async.messages import RunState

Status = Literal["running", "done", "failed", "timed out", "cancelled"]

_running: dict[asyncio.AbstractEventLoop, int] = {}


class Run:
    """What ``AsyncCrew.start`` gives. Awaiting it gives the crew's output, or raises what the run raised.

    Cancelling the task that awaits it cancels the run; ``asyncio.shield(run.task)`` waits without that.
    """

    def __init__(
        self, kickoff: Coroutine[Any, Any, CrewOutput], crew: str = "", inputs: Mapping[str, Any] | None = None
    ) -> None:
        self.id = str(uuid4())
        """Tells this run from others, for logs and tables of your own."""
        self._progress = progress.Progress()
        watched = progress.current.set(self._progress)
        try:
            self.task = asyncio.create_task(kickoff, name=f"fastcrew-run-{self.id[:8]}")
            """The task that runs it."""
        finally:
            progress.current.reset(watched)
        self._crew = crew
        self._inputs = dict(inputs or {})
        self._started_at = datetime.now(timezone.utc)
        self._began = time.monotonic()
        self._ended: float | None = None
        loop = self.task.get_loop()
        if loop not in _running:
            for one in list(_running):
                if one.is_closed():
                    _running.pop(one, None)
        _running[loop] = _running.get(loop, 0) + 1
        forgotten.hold(loop, self.task)  # an event loop itself keeps its tasks by weak references only
        self.task.add_done_callback(self._end)

    def __await__(self) -> Generator[Any, Any, CrewOutput]:
        if asyncio.get_running_loop() is not self.task.get_loop():  # after which nobody could await the task
            raise RuntimeError(
                f"{self!r} runs on another event loop; await it there, as asyncio.run_coroutine_threadsafe does"
            )
        return self.task.__await__()

    @property
    def status(self) -> Status:
        """Where it stands."""
        if not self.task.done():
            return "running"
        if self.task.cancelled():
            return "cancelled"
        error = self.task.exception()
        if error is None:
            return "done"
        return "timed out" if isinstance(error, TimeoutError) else "failed"

    @property
    def seconds(self) -> float:
        """How long it has run, in seconds of wall time."""
        return (self._ended or time.monotonic()) - self._began

    def state(self) -> RunState:
        """What it holds now, as a document: see :mod:`fastcrew_async.codec`. Of a run that is under way, or has failed,
        the outputs of the tasks that are done, in the order in which these are listed. The messages are all so far, one
        execution of an agent after the other as they began: those of each try of a task, and of coworkers who were
        delegated to, too. Crews inside the run are not part of it. The tokens are there once it is done. To be called
        on the run's own loop."""
        from fastcrew_async.codec.bodies import plain_part
        from fastcrew_async.messages import RunState, calls_in

        state = RunState(
            id=self.id,
            crew=self._crew,
            status=self.status,
            started_at=self._started_at,
            seconds=self.seconds,
            inputs=self._inputs,
        )
        outputs = self._progress.outputs
        state.messages = self._progress.messages()
        if self.status == "done":
            output = self.task.result()
            outputs = output.tasks_output
            state.usage = output.token_usage.model_dump()
            if not state.messages:  # of code of the user's own, which tells nothing on its way
                state.messages = [dict(message) for task in outputs for message in task.messages]
        state.outputs = [plain_part(task) for task in outputs]
        state.tool_calls = calls_in(state.messages)
        if self.status in ("failed", "timed out"):
            state.error = str(self.task.exception())
        return state

    def cancel(self) -> bool:
        """End it: no further model or tool call starts, its events are closed, the crew can be used again. False where
        it has ended already. Awaiting the run then raises ``asyncio.CancelledError``. May be called from any thread."""
        loop = self.task.get_loop()
        if asyncio._get_running_loop() is loop or loop.is_closed():
            return self.task.cancel()
        if self.task.done():
            return False
        loop.call_soon_threadsafe(self.task.cancel)
        return True

    def __repr__(self) -> str:
        return f"<Run {self.id} {self.status}, {self.seconds:.1f} s>"

    def _end(self, _: object) -> None:
        self._ended = time.monotonic()
        loop = self.task.get_loop()
        forgotten.let_go(loop, self.task)
        _running[loop] -= 1
        if not _running[loop]:
            del _running[loop]


def under_way() -> int:
    """How many there are, on all loops; those of a loop that was closed go no further."""
    return sum(runs for loop, runs in list(_running.items()) if not loop.is_closed())
