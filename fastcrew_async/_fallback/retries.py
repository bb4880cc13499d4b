"""When what has failed is tried again."""

from __future__ import annotations

import threading


class Retries:
    """The retries of one run: ``attempts`` of each task, the first included, and ``budget`` retries of all of them.

    ``backoff`` and ``longest`` are seconds.
    """

    def __init__(self, attempts: int, backoff: float, longest: float, budget: int) -> None:
        self._attempts = attempts
        self._backoff = backoff
        self._longest = longest
        self._left = budget
        self._lock = threading.Lock()

    @property
    def left(self) -> int:
        """Retries that the run still has."""
        return self._left

    def failed(self, failures: int, chance: float) -> float | None:
        """Seconds until the next attempt of a task that has failed ``failures`` times; None when that was the last."""
        if failures >= self._attempts:
            return None
        with self._lock:
            if not self._left:
                return None
            self._left -= 1
        doubled = self._backoff * 2.0 ** min(max(failures - 1, 0), 1000)
        return min(doubled, self._longest) * (0.5 + 0.5 * chance)
