"""The tasks of a crew by their contexts: each starts the moment what it waits for is there.

CrewAI works its tasks off as they are listed (``_run_tasks`` in :mod:`fastcrew_async.engine.run`); this is the other
order, which ``AsyncCrew(crew, order="graph")`` chooses. The outputs come in the listed order in both.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any

from crewai.task import Task
from crewai.tasks.conditional_task import ConditionalTask
from crewai.tasks.task_output import TaskOutput

from fastcrew_async._native import TaskGraph
from fastcrew_async.engine.drivers import First, Join, Stop

Begin = Callable[[int, "TaskOutput | None", list[Any]], Awaitable[Any]]
End = Callable[[int, "TaskOutput | None"], Awaitable[TaskOutput]]

_ALL = 1 << 30


def dependencies(tasks: Sequence[Task]) -> list[list[int]]:
    """For each task the places of those it waits for: its explicit context, and what a condition looks at.

    A task without an explicit context waits for nothing, and has none: it is independent.

    Raises:
        ValueError: a context names a task that is not in the crew and has no output; the message has their names.
    """
    places = {id(task): place for place, task in enumerate(tasks)}
    found: list[list[int]] = []
    for place, task in enumerate(tasks):
        waits = {place - 1} if isinstance(task, ConditionalTask) and place else set()
        for other in task.context if isinstance(task.context, list) else ():
            if id(other) in places:
                waits.add(places[id(other)])
            elif other.output is None:
                raise ValueError(
                    f"task {_name(task)} has task {_name(other)} in its context, which is not one of the crew's tasks "
                    "and has no output: add it to the crew's tasks, or take it out of the context"
                )
        found.append(sorted(waits))
    return found


def graph_of(tasks: Sequence[Task]) -> TaskGraph:
    """The tasks' graph.

    Raises:
        ValueError: as :func:`dependencies`, or tasks wait for each other; the message has their names.
    """
    waits = dependencies(tasks)
    try:
        return TaskGraph(waits)
    except ValueError:
        circle = _circle(waits)
    names = " waits for ".join(_name(tasks[place]) for place in circle)
    raise ValueError(f"tasks wait for each other's output: {names}; take one of them out of another's context")


def _circle(waits: list[list[int]]) -> list[int]:
    try:
        TopologicalSorter(dict(enumerate(waits))).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))  # graphlib names what comes first first
    raise AssertionError("a graph that was refused has a circle")


def _name(task: Task) -> str:
    return repr(task.name or task.description)


async def run_graph(tasks: Sequence[Task], begin: Begin, end: End) -> list[TaskOutput]:
    """Work the tasks off; their outputs in the listed order.

    Args:
        tasks: those of the crew.
        begin: starts a task, given its place, the output of the listed task before it if that is there, and the list
            that takes the handles of its branches; gives the handle of the one that has its output, None where the
            task was skipped.
        end: given that, as it comes; gives the task's output.

    Raises:
        Exception: that of the first task that failed; the others have been cancelled.
    """
    graph = graph_of(tasks)
    outputs: dict[int, TaskOutput] = {}
    branches: list[Any] = []
    running: dict[Any, int] = {}

    try:
        while graph.left:
            for place in graph.take(_ALL):
                running[await begin(place, outputs.get(place - 1), branches)] = place
            done = await First(list(running))
            for handle in sorted(done, key=running.__getitem__):
                place = running.pop(handle)
                outputs[place] = await end(place, await Join(handle))
                graph.finish(place)
    except BaseException:
        await Stop(branches)
        raise
    return [outputs[place] for place in sorted(outputs)]
