"""How near two vectors are, by a function of the user's.

The core decides what the filters take and gives the vectors in blocks; the function scores them, on the caller's thread
or, for the async methods, on a worker.
"""

from __future__ import annotations

import heapq
import math
from array import array
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

from fastcrew_async import workers

if TYPE_CHECKING:
    from fastcrew_async._native import Memories

Similarity: TypeAlias = "Callable[[memoryview[float], memoryview[float]], Iterable[float]]"

BUILT_IN = ("cosine", "dot", "euclid")
_BLOCK_BYTES = 4 << 20
_SPARE = 8
"""More than are wanted are ranked: rows may go between the ranking and the reading of their records."""

_registered: dict[str, Similarity] = {}


def register(name: str, similarity: Similarity) -> None:
    """Make ``similarity`` what ``MemoryStore(metric=name)`` ranks by; a name that is registered again changes.

    Args:
        name: Any but those of the store's own metrics.
        similarity: Gets a vector of d numbers and a block of n vectors, memoryviews of 32-bit floats of the shapes
            ``(d,)`` and ``(n, d)`` (``numpy.asarray`` takes them as they are), and returns n finite scores, higher for
            nearer: from 0 to 1 for CrewAI's ``Memory``, which weighs them with recency and importance, and by
            default finds none below 0. It may be called on any thread, and several times for one search.

    Raises:
        TypeError: ``similarity`` cannot be called, or the name is no text.
        ValueError: the name is empty or one of the store's own.
    """
    if not isinstance(name, str) or not callable(similarity):
        raise TypeError(f"a similarity is registered by a name and a function, not by {name!r} and {similarity!r}")
    if not name or name in BUILT_IN:
        raise ValueError(f"{name!r} cannot be registered: it is empty or the name of a metric of the store")
    _registered[name] = similarity


def check(metric: str) -> None:
    """Raise ValueError where there is no metric of this name."""
    if metric not in BUILT_IN and metric not in _registered:
        known = ", ".join(map(repr, sorted(_registered))) or "none"
        raise ValueError(
            f'metric must be "cosine", "dot" or "euclid", or the name of a registered similarity ({known}), '
            f"not {metric!r}"
        )


def search(core: Memories, metric: str, vector: bytes, wanted: Any, limit: int, least: float) -> list[Any]:
    """As the core's own search, by the similarity of this name."""
    ranking = _Ranking(metric, vector, limit, least)
    while ranking.asks:
        at: int | None = 0
        while at is not None:
            rows, numbers, at = core.candidates_sync(vector, wanted, at, ranking.block)
            ranking.take(rows, numbers)
        ranking.end(core.at_rows_sync(ranking.rows))
    return ranking.found


async def asearch(core: Memories, metric: str, vector: bytes, wanted: Any, limit: int, least: float) -> list[Any]:
    """The async twin of ``search``."""
    ranking = _Ranking(metric, vector, limit, least)
    while ranking.asks:
        at: int | None = 0
        while at is not None:
            rows, numbers, at = await core.candidates(vector, wanted, at, ranking.block)
            await workers.pool().run(ranking.take, rows, numbers)
        ranking.end(await core.at_rows(ranking.rows))
    return ranking.found


class _Ranking:
    """The best so far; begun again with more where too many of the best are gone."""

    def __init__(self, metric: str, vector: bytes, limit: int, least: float) -> None:
        check(metric)
        self.metric = metric
        self.query = memoryview(vector).cast("f")
        self.block = max(1, _BLOCK_BYTES // max(len(vector), 1))
        self.limit = limit
        self.least = least
        self.want = limit + _SPARE
        self.asks = limit > 0
        self.best: dict[int, float] = {}
        self.found: list[Any] = []

    @property
    def rows(self) -> list[int]:
        return list(self.best)

    def take(self, rows: bytes, numbers: bytes) -> None:
        """Rank a block."""
        if not rows:
            return
        packed = array("q", rows)
        scores = self._scores(memoryview(numbers).cast("B").cast("f", (len(packed), len(self.query))), len(packed))
        fresh = {row: score for row, score in zip(packed, scores, strict=True) if score >= self.least}
        # Of equals the one saved first.
        ranked = heapq.nsmallest(self.want, (self.best | fresh).items(), key=lambda match: (-match[1], match[0]))
        self.best = dict(ranked)

    def end(self, records: list[Any]) -> None:
        """The records of ``rows``, in their order."""
        there = ((row, score) for row, score in zip(records, self.best.values(), strict=True) if row is not None)
        self.found = list(islice(there, self.limit))
        self.asks = len(self.found) < self.limit and len(self.best) == self.want
        self.want *= 2
        if self.asks:
            self.best = {}

    def _scores(self, block: memoryview[float], count: int) -> array[float]:
        given = _registered[self.metric](self.query, block)
        try:
            scores = array("d", given)
        except TypeError as error:
            raise TypeError(
                f"the similarity {self.metric!r} must return {count} numbers, one for each vector, not {given!r:.200}"
            ) from error
        if len(scores) != count:
            raise ValueError(f"the similarity {self.metric!r} returned {len(scores)} scores for {count} vectors")
        if not all(map(math.isfinite, scores)):
            wrong = next(score for score in scores if not math.isfinite(score))
            raise ValueError(f"the similarity {self.metric!r} returned the score {wrong}: every score must be finite")
        return scores
