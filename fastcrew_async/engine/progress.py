"""What the crew of a run has done so far, for who watches it: :meth:`fastcrew_async.Run.state`."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from crewai.tasks.task_output import TaskOutput

current: ContextVar[Progress | None] = ContextVar("fastcrew_async_progress", default=None)
"""Of the run that this code is part of; None where nobody watches it, and in a crew inside of the run's."""


_ENDED = object()


class _Execution:
    """An agent at work, or what was said until its work ended."""

    __slots__ = ("_at_work", "_said", "task")

    def __init__(self, task: Any, at_work: Any, said: Any = None) -> None:
        self.task = task
        self._at_work = at_work
        self._said = said

    @property
    def messages(self) -> list[Any]:
        return self._said if self._at_work is None else self._at_work.state.messages  # type: ignore[no-any-return]

    def is_of(self, executor: Any) -> bool:
        return self._at_work is not None and self._at_work is executor

    def end(self, said: Any) -> None:
        self._at_work, self._said = None, list(said)


class Progress:
    """Of one crew. Written and read on the run's loop."""

    __slots__ = ("_crew", "_executions", "_outputs")

    def __init__(self) -> None:
        self._crew: Any = None
        self._executions: list[_Execution] = []  # as they began
        self._outputs: dict[int, TaskOutput] = {}

    @property
    def outputs(self) -> list[TaskOutput]:
        """Of the tasks that are done, as these are listed."""
        return [self._outputs[place] for place in sorted(self._outputs)]

    def messages(self) -> list[dict[str, Any]]:
        """What was said to the models and by them, one execution of an agent after the other as they began: each try of
        a task, and the work of coworkers."""
        return [dict(message) for execution in self._executions for message in execution.messages]

    def begin(self, crew: Any) -> bool:
        """`crew` runs; whether it is the run's, which the first one is."""
        if self._crew is None:
            self._crew = crew
        return self._crew is crew

    def done(self, crew: Any, place: int, task: Any, output: TaskOutput) -> None:
        """The task at `place` of `crew` has its output."""
        if crew is not self._crew or self._outputs.get(place) is output:
            return
        self._outputs[place] = output
        last = next((one for one in reversed(self._executions) if one.task is task), None)
        if last is None:  # of an executor that tells nothing
            self._executions.append(_Execution(task, None, output.messages))
        else:
            last.end(output.messages)

    def begin_execution(self, executor: Any) -> None:
        """An agent of the crew goes to work; one alone is not the crew's. An executor keeps the crew it was made
        for when its agent is given to another one, as in CrewAI; the agent has the one that it works for."""
        if executor.crew is not None and (executor.crew is self._crew or executor.agent.crew is self._crew):
            self._executions.append(_Execution(executor.task, executor))

    def end_execution(self, executor: Any) -> None:
        """It has come to its end, with or without an answer."""
        for execution in reversed(self._executions):
            if execution.is_of(executor):
                execution.end(executor.state.messages)
                return

    def end(self, crew: Any) -> None:
        """`crew` has come to its end, and may be used by others."""
        if crew is self._crew:
            self._crew = _ENDED
