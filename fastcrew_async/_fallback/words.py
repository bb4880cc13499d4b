"""Word search in plain Python; the rules are ``src/memory/words.rs``'s. It reads all texts at each search."""

from __future__ import annotations

import math
import sqlite3
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator

from fastcrew_async._fallback.porter import stem

_K1, _B = 1.2, 0.75
_ALONE = ((0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))

Takes = Callable[[int, int, int, bool, int], bool]


def words(text: str, stemmed: bool) -> Iterator[str]:
    """The words of a text."""
    word = ""
    for letter in f"{unicodedata.normalize('NFKD', text)} ":
        if "\u0300" <= letter <= "\u036f":
            continue
        alone = any(first <= ord(letter) <= last for first, last in _ALONE)
        if not alone and (letter.isalnum() or unicodedata.category(letter)[0] == "M"):
            word += "".join(low for low in letter.lower() if not "\u0300" <= low <= "\u036f")
            continue
        if word:
            yield stem(word) if stemmed else word
            word = ""
        if alone:
            yield letter


def rank(
    connection: sqlite3.Connection, query: str, method: str, stemmed: bool, takes: Takes, want: int
) -> list[tuple[int, float]]:
    """The rows that have a word of the query, the best first, and of equals the one saved first.

    Raises:
        ValueError: there is no such method.
    """
    if method not in ("bm25", "tfidf"):
        raise ValueError(f'method must be "bm25" or "tfidf", not {method!r}')
    found = connection.execute("SELECT row, scope, source, private, created_at, content FROM record ORDER BY row")
    texts: dict[int, Counter[str]] = {}
    taken: list[int] = []
    for *facts, content in found:
        texts[facts[0]] = Counter(words(content, stemmed))
        if takes(*facts):
            taken.append(facts[0])
    uses = Counter(word for text in texts.values() for word in text)
    score = _bm25(texts, uses) if method == "bm25" else _tfidf(texts, uses)
    asked = Counter(words(query, stemmed))
    scored = [(row, score(asked, texts[row])) for row in taken if asked.keys() & texts[row].keys()]
    return sorted(scored, key=lambda match: (-match[1], match[0]))[:want]


def _bm25(texts: dict[int, Counter[str]], uses: Counter[str]) -> Callable[[Counter[str], Counter[str]], float]:
    count = len(texts)
    mean = max(sum(text.total() for text in texts.values()) / count, 1.0) if count else 1.0

    def score(asked: Counter[str], text: Counter[str]) -> float:
        pull = _K1 * (1 - _B + _B * text.total() / mean)
        return sum(
            times
            * math.log(1 + (count - uses[word] + 0.5) / (uses[word] + 0.5))
            * (text[word] * (_K1 + 1) / (text[word] + pull))
            for word, times in asked.items()
            if text[word]
        )

    return score


def _tfidf(texts: dict[int, Counter[str]], uses: Counter[str]) -> Callable[[Counter[str], Counter[str]], float]:
    count = len(texts)

    def weight(word: str) -> float:
        return math.log((1 + count) / (1 + uses[word])) + 1

    def length(text: Counter[str]) -> float:
        return math.sqrt(sum((times * weight(word)) ** 2 for word, times in text.items()))

    def score(asked: Counter[str], text: Counter[str]) -> float:
        shared = sum(times * text[word] * weight(word) ** 2 for word, times in asked.items() if text[word])
        return min(shared / (length(asked) * length(text)), 1.0)

    return score
