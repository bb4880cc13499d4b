"""The environment variables of the runtime, and which values may be given for settings anywhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import TypeVar

T = TypeVar("T")

PREFIX = "FASTCREW_ASYNC_"
BACKEND = f"{PREFIX}BACKEND"
WORKERS = f"{PREFIX}MAX_WORKERS"
ABANDONED = f"{PREFIX}MAX_ABANDONED"

LONGEST = 1_000_000_000
"""Most seconds, some 30 years: far below what clocks and event loops can add to the time."""
MOST = 2**53 - 1
"""The largest whole number, which JSON and every database can hold."""
MOST_WORKERS = 1_000_000


def is_seconds(value: object, least: float = 0.0) -> bool:
    """Whether this is a number of seconds from `least` to ``LONGEST``; NaN, infinities and bools are none."""
    return type(value) in (int, float) and least <= value <= LONGEST  # type: ignore[operator]


def is_whole(value: object, least: int, most: int = MOST) -> bool:
    """Whether this is a whole number in that range; bools are none."""
    return type(value) is int and least <= value <= most


def is_name(value: object) -> bool:
    """Whether this is a text that is not blank, and that UTF-8 can hold."""
    return isinstance(value, str) and not value.isspace() and value.encode(errors="ignore").decode() == value != ""


def number(name: str, default: float) -> float:
    """The variable as a number.

    Raises:
        ValueError: it is none.
    """
    return _read(name, default, float, "a number")


def whole(name: str, default: int) -> int:
    """The variable as a whole number.

    Raises:
        ValueError: it is none.
    """
    return _read(name, default, int, "a whole number")


def _read(name: str, default: T, kind: Callable[[str], T], what: str) -> T:
    text = os.environ.get(name, "").strip()
    try:
        return kind(text) if text else default
    except ValueError:
        raise ValueError(f"{name}={text!r} is not {what}; unset it or set {what} (default {default:g})") from None


def switch(name: str, default: bool) -> bool:
    """The variable as true or false.

    Raises:
        ValueError: it is neither.
    """
    text = os.environ.get(name, "").strip().lower()
    if not text:
        return default
    if text in {"1", "true", "yes", "on"}:
        return True
    if text in {"0", "false", "no", "off"}:
        return False
    raise ValueError(f"{name}={text!r} is neither true nor false; use 1 or 0")


def max_workers() -> int:
    """Most threads of the worker pool: ``FASTCREW_ASYNC_MAX_WORKERS``, or 64.

    Raises:
        ValueError: it is no whole number from 1 to a million.
    """
    return _of_workers(WORKERS, 1)


def max_abandoned() -> int:
    """Abandoned calls that do not count as one of them: ``FASTCREW_ASYNC_MAX_ABANDONED``, or 64.

    Raises:
        ValueError: it is no whole number from 0 to a million.
    """
    return _of_workers(ABANDONED, 0)


def _of_workers(name: str, least: int) -> int:
    value = whole(name, 64)
    if not is_whole(value, least, MOST_WORKERS):
        raise ValueError(
            f"{name}={value} is out of range; use a whole number of {least} to {MOST_WORKERS:,} (default 64)"
        )
    return value


def unknown(known: Iterable[str]) -> list[str]:
    """Variables with our prefix that are set, and that this release does not read; `known` are those of settings."""
    read = {BACKEND, WORKERS, ABANDONED, *known}
    return sorted(name for name in os.environ if name.startswith(PREFIX) and name not in read)


def check(known: Iterable[str]) -> None:
    """Look at the variables that are no settings, and for the names of those that were meant to be.

    Raises:
        ValueError: one has a value that is out of range, or a name that is nearly one of ours.
    """
    max_workers()
    max_abandoned()
    meant = {name.removeprefix(PREFIX): name for name in (BACKEND, WORKERS, ABANDONED, *known)}
    for name in unknown(known):
        near = get_close_matches(name.removeprefix(PREFIX), meant, n=1, cutoff=0.7)
        if near:
            raise ValueError(
                f"the environment variable {name} is not read by anything: did you mean {meant[near[0]]}? "
                "Rename it, or unset it"
            )
