"""Giving back the places of vectors whose records are gone.

Deleting a record leaves its vector where it is. A file of vectors is given back as a whole, once those that live are
written anew at the end, which is done in slices, as the other writes have their turns between them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator
from typing import Any, TypeAlias, TypeVar

_logger = logging.getLogger(__name__)

T = TypeVar("T")
Steps: TypeAlias = "Generator[tuple[Any, ...], Any, T]"
"""Calls of the core's, each the name of a method and its arguments; what it answers is sent back."""

SLICE = 256
"""Vectors that are moved in one transaction, at most."""
_LEAST = 32
"""Vectors that are worth a transaction."""
_MOST = 2048
"""Vectors that one transaction moves for others, at most."""


def drive(core: Any, steps: Steps[T]) -> T:
    """Makes the calls."""
    act: Callable[[Any], tuple[Any, ...]] = steps.send
    answer: Any = None
    while True:
        try:
            name, *args = act(answer)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        try:
            act, answer = steps.send, getattr(core, f"{name}_sync")(*args)
        except BaseException as error:
            act, answer = steps.throw, error


async def adrive(core: Any, steps: Steps[T]) -> T:
    """The async twin of ``drive``."""
    act: Callable[[Any], tuple[Any, ...]] = steps.send
    answer: Any = None
    while True:
        try:
            name, *args = act(answer)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        try:
            act, answer = steps.send, await getattr(core, name)(*args)
        except BaseException as error:
            act, answer = steps.throw, error


def compact(slice_size: int) -> Steps[int]:
    """Rewrites the files of which a fifth is gone; tells how many were removed."""
    removed = 0
    for base in _fragmented((yield ("sizes",)), 0.2):
        at: int | None = 0
        while at is not None:
            at = yield "compact", base, at, slice_size
        removed += 1
    return removed


class Upkeep:
    """Keeps the files of a folder at twice the size of what lives in them, at most and about.

    Who removes records moves up to two vectors for each in return: so the work comes in parts as large as the removals,
    and ends with their calls. It keeps up, as a file of which half is gone has one vector to move for each removed.
    One at a time does it, with the vectors of those who remove meanwhile added to its own transactions.
    """

    def __init__(self) -> None:
        self._removed = 0  # since the sizes were looked at
        self._enough = 0  # to look at them: a share of all, as looking goes over all
        self._owed = 0  # vectors that those have not moved who met another at it
        self._files: list[int] = []
        self._at = 0
        self._turn = threading.Lock()

    def after(self, removed: int) -> Steps[None]:
        """What is to be done after so many records were removed. What fails is logged, and tried again later."""
        self._removed += removed
        if not self._turn.acquire(blocking=False):
            self._owed += 2 * removed
            return
        try:
            if not self._files and self._removed >= self._enough:
                sizes = yield ("sizes",)
                self._files, self._at = _fragmented(sizes, 0.5), 0
                self._removed, self._enough = 0, sizes[2] // 20
            moves = max(2 * removed, _LEAST)
            while self._files and moves > 0:
                own, others = min(moves, SLICE), min(self._owed, _MOST)
                self._owed -= others
                at = yield "compact", self._files[0], self._at, own + others
                if at is None:
                    del self._files[0]
                self._at = at or 0
                if at:
                    moves -= own
                else:  # it went over the file and found none
                    self._owed += others
            if not self._files:
                self._owed = 0
        except Exception as error:
            self._files = []
            _logger.warning("Deleted vectors were not given back, later deletions try it again: %r", error)
        finally:
            self._turn.release()


def _fragmented(sizes: Any, share: float) -> list[int]:
    """The files of which such a share is gone, but for the last, which is being written to."""
    *_, files = sizes
    return [base for base, used, dead in files[:-1] if used and dead >= used * share]
