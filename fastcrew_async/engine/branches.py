"""Several engine coroutines at the same time, under a bound."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from fastcrew_async.engine.drivers import Work, drive, drive_in_place
from fastcrew_async.engine.effects import Effect


class Together(Effect):
    """Run all of `works`, at most `limit` at a time, each in a copy of the context; their results, in order.

    An error of a type in `stops` ends it: what has not started never starts, and the error is raised. On a loop, what
    runs is cancelled and awaited; in place, a thread cannot be, and what runs is left to end by itself, as in CrewAI.
    """

    __slots__ = ("limit", "stops", "works")

    def __init__(self, works: Sequence[Work[Any]], limit: int, stops: tuple[type[BaseException], ...]) -> None:
        self.works = works
        self.limit = limit
        self.stops = stops

    def perform(self) -> list[Any]:
        results: list[Any] = [None] * len(self.works)
        with ThreadPoolExecutor(max_workers=min(self.limit, len(self.works))) as threads:
            indices = {
                threads.submit(contextvars.copy_context().run, drive_in_place, work): index
                for index, work in enumerate(self.works)
            }
            for future in as_completed(indices):
                try:
                    results[indices[future]] = future.result()
                except self.stops:
                    threads.shutdown(wait=False, cancel_futures=True)
                    for other, index in indices.items():
                        if other.cancelled():
                            self.works[index].close()
                    raise
        return results

    async def aperform(self) -> list[Any]:
        free = asyncio.Semaphore(self.limit)

        stopped = False

        async def run(work: Work[Any]) -> Any:
            nonlocal stopped
            try:
                async with free:
                    return None if stopped else await drive(work)
            except BaseException:
                stopped = True  # before the waiting task wakes: what gets its place must not start
                raise
            finally:
                work.close()

        tasks = [asyncio.create_task(run(work)) for work in self.works]
        try:
            return await asyncio.gather(*tasks)  # whose cancellation is theirs at once, before they take another step
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for task, work in zip(tasks, self.works, strict=True):
                work.close()  # one whose task was cancelled before it started
                if not task.cancelled():
                    task.exception()  # seen: the first one is raised
