"""Tasks that are tried again after an error that may pass."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from inspect import iscoroutinefunction
from math import isfinite

from fastcrew_async.environment import LONGEST, is_seconds, is_whole

On = Callable[[Exception], bool] | type[Exception] | tuple[type[Exception], ...]

_MOST = 2**32 - 1
_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})


def may_pass(error: Exception) -> bool:
    """Whether the same call may succeed later: the connection was lost or refused, the provider limits the rate, is
    overloaded or failed by itself. Judged by the error and its causes: a ``ConnectionError``, an error of httpx's
    transport, or a ``status_code`` of 408, 409, 425, 429, 500, 502, 503, 504 or 529, as the SDKs of model providers
    give it."""
    httpx = sys.modules.get("httpx")
    transport = (ConnectionError,) if httpx is None else (ConnectionError, httpx.TransportError)
    return any(isinstance(one, transport) or getattr(one, "status_code", None) in _PASSING for one in _causes(error))


@dataclass(frozen=True)
class Retry:
    """How often, and when, a task of a run is tried again. CrewAI's own retries, ``Agent.max_retry_limit`` and
    ``Task.guardrail_max_retries``, happen inside each attempt, as ever.

    The wait before the second attempt is `backoff` seconds; it doubles with each further one up to `longest`, and up
    to half of it is taken off at random. Where a provider's answer said how long to wait (``Retry-After``, in seconds)
    it is at least that, up to `longest`.
    """

    attempts: int = 3
    """Of one task, the first included."""

    backoff: float = 1.0
    """Seconds."""

    longest: float = 30.0
    """Seconds."""

    budget: int = 10
    """Retries of all tasks of a run: a provider that is down is not asked by every task as often as each may ask."""

    on: On = may_pass
    """Which errors are worth it: types, or a function of the error."""

    def __post_init__(self) -> None:
        for name, least in (("attempts", 1), ("budget", 0)):
            value = getattr(self, name)
            if not is_whole(value, least, _MOST):
                raise ValueError(f"{name}={value!r} must be a whole number of {least} or more (at most {_MOST})")
        for name in ("backoff", "longest"):
            value = getattr(self, name)
            if not is_seconds(value):
                raise ValueError(f"{name}={value!r} must be a number of seconds, 0 or more (at most {LONGEST})")
        types = self.on if isinstance(self.on, tuple) else (self.on,) if isinstance(self.on, type) else ()
        wrong = [kind for kind in types if not (isinstance(kind, type) and issubclass(kind, Exception))]
        if wrong or not (types or callable(self.on)):
            raise TypeError(f"on={self.on!r} must be types of exceptions, or a function of the error")
        if iscoroutinefunction(self.on):
            raise TypeError(f"on={self.on!r} must not be async: what it gives would always count as yes")

    def covers(self, error: Exception) -> bool:
        """Whether a task that failed with `error` is tried again, if it has attempts left."""
        if isinstance(self.on, (type, tuple)):
            return isinstance(error, self.on)
        return bool(self.on(error))


def retry_after(error: Exception) -> float:
    """Seconds to wait by the ``Retry-After`` header of the response behind the error; 0 where there is none."""
    for one in _causes(error):
        headers = getattr(getattr(one, "response", None), "headers", None)
        try:
            seconds = float(headers["retry-after"])  # type: ignore[index]
        except (TypeError, KeyError, ValueError):
            continue
        if isfinite(seconds) and seconds > 0:
            return seconds
    return 0.0


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__
