"""Requests per minute of a crew or an agent, counted over a rolling minute and waited for outside any lock.

CrewAI's ``RPMController.check_or_wait`` sleeps 60 s with its lock held, so that every other agent of the crew waits
too, and its counter is no longer reset once the first kickoff has ended. The limit means the same here: at most
``max_rpm`` requests in any 60 seconds.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from crewai.utilities.rpm_controller import RPMController

from fastcrew_async import workers
from fastcrew_async.engine.beside import Beside
from fastcrew_async.engine.effects import Effect

MINUTE = 60.0
_STOCK_CHECK = RPMController.check_or_wait
_STOCK_WAIT = RPMController._wait_for_next_minute


class RollingMinute:
    """When the last requests of one controller were let through."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._admitted: deque[float] = deque()

    def admit(self, limit: int) -> float:
        """0 when a request may go now, which then counts; else the seconds until one may. A limit below 1 counts as 1:
        CrewAI, too, lets one go a minute."""
        with self._lock:
            now = self._clock()
            while self._admitted and now - self._admitted[0] >= MINUTE:
                self._admitted.popleft()
            if len(self._admitted) < max(limit, 1):
                self._admitted.append(now)
                return 0.0
            return MINUTE - (now - self._admitted[0])

    def clear(self) -> None:
        """Start a new minute."""
        with self._lock:
            self._admitted.clear()


_minutes: Beside[RollingMinute] = Beside(RollingMinute)


class WithinRate(Effect):
    """Wait until `check`, an executor's ``request_within_rpm_limit``, lets a request through."""

    __slots__ = ("check",)

    def __init__(self, check: Callable[[], Any]) -> None:
        self.check = check

    def perform(self) -> None:
        controller = self._controller()
        if controller is None:
            self.check()
            return
        while wait := self._wait(controller):
            if _replaced(controller):
                controller._wait_for_next_minute()
                _minutes.of(controller).clear()
            else:
                time.sleep(wait)

    async def aperform(self) -> None:
        controller = self._controller()
        if controller is None:
            await workers.pool().run(self.check)
            return
        while wait := self._wait(controller):
            if _replaced(controller):
                await workers.pool().run(controller._wait_for_next_minute)
                _minutes.of(controller).clear()
            else:
                await asyncio.sleep(wait)

    def _controller(self) -> RPMController | None:
        """The controller, or None when the limit is the user's own code."""
        controller = getattr(self.check, "__self__", None)
        if isinstance(controller, RPMController) and getattr(self.check, "__func__", None) is _STOCK_CHECK:
            return controller
        return None

    def _wait(self, controller: RPMController) -> float:
        if controller.max_rpm is None:
            return 0.0
        wait = _minutes.of(controller).admit(controller.max_rpm)
        if wait:
            controller.logger.log("info", "Max RPM reached, waiting for next minute to start.")
        return wait


def _replaced(controller: RPMController) -> bool:
    """Whether the waiting itself was replaced by the user; then theirs is used."""
    return getattr(controller._wait_for_next_minute, "__func__", None) is not _STOCK_WAIT
