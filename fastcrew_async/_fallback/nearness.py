"""How near vectors are, and the fusing of two rankings, in plain Python."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable

_RANK = 60
"""The constant of reciprocal rank fusion."""


def _dot(a: array[float], b: array[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def _cosine(a: array[float], b: array[float]) -> float:
    lengths = math.sqrt(_dot(a, a)) * math.sqrt(_dot(b, b))
    return max(-1.0, min(1.0, _dot(a, b) / lengths)) if lengths else 0.0


def _away(a: array[float], b: array[float]) -> float:
    return -math.fsum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


NEARNESS: dict[str, tuple[Callable[[array[float], array[float]], float], Callable[[float], float]]] = {
    "cosine": (_cosine, lambda near: 1 / (3 - 2 * near)),
    "euclid": (_away, lambda near: 1 / (1 - near)),
    "dot": (_dot, _logistic),
}


def fused(near: list[int], by_word: list[int]) -> list[tuple[int, float]]:
    """Reciprocal rank fusion; 1 where both rankings put a row first."""
    scores: dict[int, float] = {}
    for ranking in (near, by_word):
        for place, row in enumerate(ranking):
            scores[row] = scores.get(row, 0.0) + (_RANK + 1) / (_RANK + 1 + place) / 2
    return sorted(scores.items(), key=lambda match: (-match[1], match[0]))
