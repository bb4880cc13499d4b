"""An embedder that embeds nothing: it hands a text through CrewAI to the store, which searches by its words.

CrewAI gives a store a vector, never the text. So a text travels as a vector: two marks, a vector of a real embedder
where there is one, and the text's bytes. The bytes are masked, by a mask made of the text, so that the vectors of two
texts are as unlike as random ones: CrewAI compares the vectors of one save, to drop what it keeps twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

_MARKS = (0.001953746, -0.000976189)
"""How such a vector begins; no embedder gives these two numbers."""
FIRST_MARK = _MARKS[0]

_SALT = 16
_SHORTEST = len(_MARKS) + _SALT
_LONGEST = 4096
"""Bytes of a text that travel; a longer one is searched for by its beginning."""


class WordEmbedder:
    """What ``Memory(embedder=...)`` takes, for search by words, or by words and by the vectors of ``embedder``."""

    def __init__(self, embedder: Callable[[list[str]], Any] | None = None) -> None:
        self.embedder = embedder

    def __call__(self, texts: list[str]) -> list[list[float]]:
        """The texts as vectors."""
        vectors: Sequence[Any] = [()] * len(texts) if self.embedder is None else self.embedder(texts)
        return [_wrapped(text, vector) for text, vector in zip(texts, vectors, strict=True)]


def unwrapped(vector: Sequence[float]) -> tuple[str | None, Sequence[float]]:
    """The text in a vector, or None, and the real vector, which may be empty."""
    if len(vector) <= _SHORTEST or vector[0] != _MARKS[0] or vector[1] != _MARKS[1]:
        return None, vector
    end = len(_MARKS) + 1 + int(vector[2])
    codes = bytes([int(number) + 128 for number in vector[end:]])
    text = _masked(codes[:_SALT], codes[_SALT:])
    return text.decode(errors="ignore"), vector[len(_MARKS) + 1 : end]


def _wrapped(text: str, vector: Any) -> list[float]:
    data = text.encode(errors="replace")[:_LONGEST]
    salt = hashlib.blake2b(data, digest_size=_SALT).digest()
    numbers = [float(number) for number in vector]
    return [*_MARKS, float(len(numbers)), *numbers, *(float(code - 128) for code in salt + _masked(salt, data))]


def _masked(salt: bytes, data: bytes) -> bytes:
    """The bytes masked, or, where they are, unmasked."""
    mask = hashlib.shake_128(salt).digest(len(data))
    return (int.from_bytes(data, "big") ^ int.from_bytes(mask, "big")).to_bytes(len(data), "big")
