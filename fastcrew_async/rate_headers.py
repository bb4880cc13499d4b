"""What a provider says of its limits with an answer: OpenAI's headers, Anthropic's, and ``Retry-After``."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

UNSAID = 1.0
"""Seconds to wait after a refusal that names no time."""

_LONGEST = 3600.0
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_NAMES = (
    (False, "x-ratelimit-{}-requests"),
    (True, "x-ratelimit-{}-tokens"),
    (False, "anthropic-ratelimit-requests-{}"),
    (True, "anthropic-ratelimit-tokens-{}"),
)


def limits(headers: Mapping[str, str]) -> Iterator[tuple[bool, tuple[int, int, float]]]:
    """Whether it is of tokens; the limit, what remains of it, and the seconds until it is whole again.

    What is missing or cannot be read is left out. `headers` are looked up in lower case.
    """
    for of_tokens, name in _NAMES:
        limit, remaining = (_count(headers.get(name.format(part))) for part in ("limit", "remaining"))
        reset = headers.get(name.format("reset"))
        whole = None if reset is None else seconds(reset)
        if limit is not None and remaining is not None and whole is not None:
            yield of_tokens, (limit, remaining, whole)


def _count(text: str | None) -> int | None:
    found = None if text is None else re.fullmatch("[0-9]{1,15}", text.strip())
    return int(found[0]) if found else None


def retry_after(headers: Mapping[str, str]) -> float:
    """For how many seconds to ask nothing more: an hour at most, :data:`UNSAID` where it is not said."""
    exact = headers.get("retry-after-ms")
    found = seconds(f"{exact}ms") if exact is not None else None
    if found is None and (text := headers.get("retry-after")) is not None:
        found = seconds(text)
    return UNSAID if found is None else min(found, _LONGEST)


def seconds(text: str) -> float | None:
    """``1.5``, ``6m0s``, ``250ms``, a date of HTTP or of RFC 3339, as seconds from now; None if it is none of them."""
    text = text.strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if re.fullmatch(f"({_PART.pattern})+", text):
        return sum(float(amount) * _UNITS[unit] for amount, unit in _PART.findall(text))
    for read in (parsedate_to_datetime, lambda stamp: datetime.fromisoformat(stamp.replace("Z", "+00:00"))):
        try:
            when = read(text)
        except (TypeError, ValueError, OverflowError):
            continue
        if when.tzinfo is None:
            when = when.replace(tzinfo=timezone.utc)
        return max(when.timestamp() - time.time(), 0.0)
    return None
