"""What the crew of a run has done so far, for who watches it: :meth:`fastcrew_async.Run.state`."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from crewai.tasks.task_output import TaskOutput

current: ContextVar[Progress | None] = ContextVar("fastcrew_async_progress", default=None)
"""Of the run that this code is part of; None where nobody watches it."""


_ENDED = object()


class Progress:
    """Of one crew; crews inside it have none of their own. Written and read on the run's loop."""

    __slots__ = ("_at_work", "_crew", "_left", "outputs")

    def __init__(self) -> None:
        self.outputs: list[TaskOutput] = []
        """Of the tasks that are done, in the order of their ends."""
        self._crew: Any = None
        self._at_work: list[Any] = []
        # Of executions that have ended, by the task that has no output of them yet.
        self._left: dict[int, list[Any]] = {}

    def messages(self) -> list[dict[str, Any]]:
        """What was said to the models and by them: in the tasks that are done, then in what has not come to its end."""
        said = [output.messages for output in self.outputs]
        said += self._left.values()
        said += (executor.state.messages for executor in self._at_work)
        return [dict(message) for messages in said for message in messages]

    def begin(self, crew: Any) -> None:
        """`crew` runs; the first one is the run's."""
        if self._crew is None:
            self._crew = crew

    def done(self, crew: Any, task: Any, output: TaskOutput) -> None:
        """A task of `crew` has its output."""
        if crew is self._crew:
            self._left.pop(id(task), None)
            self.outputs.append(output)

    def begin_execution(self, executor: Any) -> None:
        """An agent goes to work."""
        if executor.crew is not None and executor.crew is self._crew:
            self._at_work.append(executor)

    def end_execution(self, executor: Any) -> None:
        """It has come to its end, with or without an answer."""
        if executor in self._at_work:
            self._at_work.remove(executor)
            if any(executor.task is task for task in self._crew.tasks):
                self._left[id(executor.task)] = list(executor.state.messages)

    def end(self, crew: Any) -> None:
        """`crew` has come to its end, and may be used by others."""
        if crew is self._crew:
            self._crew = _ENDED
