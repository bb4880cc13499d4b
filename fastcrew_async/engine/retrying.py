"""A task again, after an error that may pass."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any

from crewai.task import Task
from crewai.tasks.task_output import TaskOutput

from fastcrew_async._native import Retries
from fastcrew_async.engine.effects import Effect
from fastcrew_async.engine.task import run_task
from fastcrew_async.retry import Retry, retry_after

RunTask = Callable[..., Coroutine[Effect, Any, TaskOutput]]
logger = logging.getLogger(__name__)


class Pause(Effect):
    """Wait for so many seconds."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def perform(self) -> None:
        time.sleep(self.seconds)

    async def aperform(self) -> None:
        await asyncio.sleep(self.seconds)


def tried_again(policy: Retry | None) -> RunTask:
    """``run_task`` for the tasks of one run, which share the budget of `policy`; itself where there is none.

    Each attempt has its own started and failed events.
    """
    if policy is None:
        return run_task
    retries = Retries(policy.attempts, policy.backoff, policy.longest, policy.budget)

    async def run(task: Task, *about: Any) -> TaskOutput:
        failures = 0
        while True:
            try:
                return await run_task(task, *about)
            except Exception as error:
                failures += 1
                if not policy.covers(error):
                    raise
                wait = retries.failed(failures, random.random())
                if wait is None:
                    raise
                wait = max(wait, min(retry_after(error), policy.longest))
                name = task.name or task.description
                logger.warning("task %r failed (%s); attempt %d in %.1f s", name, error, failures + 1, wait)
            await Pause(wait)

    return run
