"""The tasks of a run and what each of them waits for, as a directed acyclic graph that is worked off.

Of the tasks that are ready, the one with the longest chain of tasks behind it goes first: with fewer places than ready
tasks, the critical path is what the run takes. Equals go in the order in which they are listed.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter
from heapq import heapify, heappop, heappush


class TaskGraph:
    """Tasks numbered by their place; ``dependencies[i]`` are those that task ``i`` waits for.

    Raises:
        ValueError: a task waits for one that is not there, or tasks wait for each other in a circle.
    """

    def __init__(self, dependencies: Sequence[Sequence[int]]) -> None:
        count = len(dependencies)
        self._waits = [set(tasks) for tasks in dependencies]
        self._followers: list[list[int]] = [[] for _ in range(count)]
        for task, waits in enumerate(self._waits):
            for dependency in waits:
                if not 0 <= dependency < count:
                    raise ValueError(f"task {task} waits for task {dependency}, and there are only {count} tasks")
                self._followers[dependency].append(task)
        try:
            order = list(TopologicalSorter(dict(enumerate(self._waits))).static_order())
        except CycleError as error:
            raise ValueError(f"tasks wait for each other in a circle: {error.args[1][:0:-1]}") from None
        self._chain = [1] * count
        for task in reversed(order):
            for follower in self._followers[task]:
                self._chain[task] = max(self._chain[task], self._chain[follower] + 1)
        self._ready = [(-self._chain[task], task) for task, waits in enumerate(self._waits) if not waits]
        heapify(self._ready)
        self._running: set[int] = set()
        self._dropped: set[int] = set()
        self._left = count
        self._lock = threading.Lock()

    @property
    def left(self) -> int:
        """Tasks that are running, ready or waiting."""
        return self._left

    def take(self, limit: int) -> list[int]:
        """Up to ``limit`` tasks that may start now; they count as running."""
        with self._lock:
            taken = [heappop(self._ready)[1] for _ in range(min(limit, len(self._ready)))]
            self._running.update(taken)
            return taken

    def finish(self, task: int) -> None:
        """A running task is done."""
        with self._lock:
            self._end(task)
            for follower in self._followers[task]:
                self._waits[follower].discard(task)
                if not self._waits[follower] and follower not in self._dropped:
                    heappush(self._ready, (-self._chain[follower], follower))

    def fail(self, task: int) -> list[int]:
        """A running task has failed; gives the tasks that will never start."""
        with self._lock:
            self._end(task)
            dropped: set[int] = set()
            open_ = [task]
            while open_:
                found = [one for one in self._followers[open_.pop()] if one not in self._dropped]
                self._dropped.update(found)
                dropped.update(found)
                open_ += found
            self._left -= len(dropped)
            return sorted(dropped)

    def _end(self, task: int) -> None:
        if task not in self._running:
            raise ValueError(f"task {task} is not running")
        self._running.discard(task)
        self._left -= 1
