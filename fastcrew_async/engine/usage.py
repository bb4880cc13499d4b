"""How many tokens a model call is expected to take, and how many it took."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from typing import Any

_CHARACTERS_A_TOKEN = 4
_MOST_TOKENS = 2**50
_MOST_COUNTERS = 4096
_PARTS = re.compile(rb'"(total|prompt|completion|input|output)_tokens"\s*:\s*(\d{1,15})')


def expected(llm: Any, request: Any, tools: Any, answer: float) -> int:
    """The messages and tools, four characters a token, and the longest answer that is allowed, or else `answer`."""
    most = getattr(llm, "max_tokens", None) or getattr(llm, "max_completion_tokens", None)
    characters = len(request) if isinstance(request, str) else sum(map(_length, request))
    prompt = (characters + (len(str(tools)) if tools else 0)) // _CHARACTERS_A_TOKEN + 1
    return min(prompt + int(most if isinstance(most, int) else answer), _MOST_TOKENS)


def _length(message: Any) -> int:
    content = message.get("content") if isinstance(message, dict) else message
    return len(str(content or ""))


def of_fields(found: Any) -> tuple[int, int] | None:
    """All tokens, and those of the answer, of the object ``usage`` of an answer; None where it does not tell."""
    if not isinstance(found, dict):
        return None
    answer = _whole(found.get("completion_tokens", found.get("output_tokens")))
    total = _whole(found.get("total_tokens"))
    if total is None:
        prompt = _whole(found.get("prompt_tokens", found.get("input_tokens")))
        total = None if prompt is None and answer is None else (prompt or 0) + (answer or 0)
    return None if total is None else (total, answer or 0)


def of_body(body: bytes) -> tuple[int, int] | None:
    """The same, of a whole answer as it came: its own count stands after what the model has written."""
    start = body.rfind(b'"usage"')
    found = {f"{name.decode()}_tokens": int(number) for name, number in reversed(_PARTS.findall(body, max(start, 0)))}
    return of_fields(found) if start >= 0 else None


def _whole(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None


class Counters:
    """What models have used as they count themselves (``BaseLLM._token_usage``), and how much of it was settled.

    For models whose answers do not pass by here. A model counts for all its calls together, and so do its copies that
    share a counter. Whichever call ends settles what was added since the last one ended: of calls that end in two
    threads at the same moment each may get the other's tokens, and their sum is right. A counter that a new run has
    begun anew is another one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._settled: OrderedDict[int, tuple[dict[str, Any], int, int]] = OrderedDict()

    def begin(self, llm: Any) -> None:
        """A call begins: what is on the counter now is none of its."""
        counter = getattr(llm, "_token_usage", None)
        if isinstance(counter, dict):
            with self._lock:
                if id(counter) not in self._settled:
                    self._settled[id(counter)] = (counter, *_both(counter))
                    if len(self._settled) > _MOST_COUNTERS:
                        self._settled.popitem(last=False)
                else:
                    self._settled.move_to_end(id(counter))

    def end(self, llm: Any) -> tuple[int, int] | None:
        """What was added since the last call that ended; None where nothing was."""
        counter = getattr(llm, "_token_usage", None)
        if not isinstance(counter, dict):
            return None
        with self._lock:
            known = self._settled.get(id(counter))
            if known is None:
                return None
            total, answers = _both(counter)
            self._settled[id(counter)] = (counter, total, answers)
        return (total - known[1], max(answers - known[2], 0)) if total > known[1] else None


def _both(counter: dict[str, Any]) -> tuple[int, int]:
    return _whole(counter.get("total_tokens")) or 0, _whole(counter.get("completion_tokens")) or 0
