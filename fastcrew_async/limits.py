"""Limits for all runs of a process: what may go on at the same time, and how much in a minute.

A key is a kind and a name: ``model:gpt-4o`` (as ``llm.model`` has it, or with its provider, ``openai/gpt-4o``),
``tool:search``, ``host:api.example.com``, ``tenant:acme``, ``kickoffs``, ``kickoffs:acme``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from fastcrew_async.environment import LONGEST, MOST, is_name, is_seconds, is_whole

if TYPE_CHECKING:
    from fastcrew_async.permits import Permits

KINDS = ("kickoffs", "model", "tool", "host", "tenant")

tenant: ContextVar[str | None] = ContextVar("fastcrew_async_tenant", default=None)
"""For whom the current run works: ``kickoff(tenant=...)`` sets it for the run, a service may in its middleware."""

_SHORTEST = 0.001  # seconds of a window
_SLACK = 1.01  # of a window, as requests need unequal times on their way to the provider


@dataclass(frozen=True)
class Limit:
    """What one key allows; None is no limit.

    Raises:
        ValueError: a value is not a number above 0.
    """

    concurrent: int | None = None
    """Calls (or kickoffs) at the same time."""
    requests: int | None = None
    """Calls within any window."""
    tokens: int | None = None
    """Tokens of prompts and answers within any window; only model calls have tokens."""
    window: float = 60.0
    """The seconds that `requests` and `tokens` are for; a minute by default."""

    def __post_init__(self) -> None:
        for name in ("concurrent", "requests", "tokens"):
            _check_whole(name, getattr(self, name))
        if not is_seconds(self.window, _SHORTEST):
            raise ValueError(
                f"window={self.window!r} must be a number of seconds above 0 (a minute is 60), from {_SHORTEST} to "
                f"{LONGEST}"
            )


@dataclass(frozen=True)
class Limits:
    """The limits of a process, for :func:`fastcrew_async.configure`.

    Raises:
        TypeError: a value is not of the kind that it should be.
        ValueError: a number is out of range, or a key is of no known kind.
    """

    kickoffs: int | None = None
    """Kickoffs at the same time, of crews and of agents alone; one inside another counts as part of it."""
    model: Limit | None = None
    """What each model allows."""
    tool: Limit | None = None
    """What each tool allows."""
    host: Limit | None = None
    """What each host of a ``base_url`` allows to all models there together."""
    tenant: Limit | None = None
    """What each tenant may have of all models together."""
    keys: Mapping[str, Limit] = field(default_factory=dict)
    """Limits of single keys; each takes the place of the one for its kind."""
    ageing: float = 30.0
    """Seconds after which a call that waits gets one of four turns, however many of a higher priority there are."""
    learn: bool = True
    """Go by what the provider says of its limits in its answers, where that is less."""

    def __post_init__(self) -> None:
        _check_whole("kickoffs", self.kickoffs)
        for name in ("model", "tool", "host", "tenant"):
            _check_limit(name, getattr(self, name))
        if not isinstance(self.keys, Mapping):
            raise TypeError(f"keys={self.keys!r} must be a dict of keys and Limit objects")
        for key, limit in self.keys.items():
            _check_key(key)
            if not isinstance(limit, Limit):
                raise TypeError(f"keys[{key!r}]={limit!r} must be a Limit, as Limit(concurrent=10); Limit() is none")
        for key, given in (("tool", self.tool), *self.keys.items()):
            if given is not None and given.tokens is not None and key.partition(":")[0] in ("tool", "kickoffs"):
                raise ValueError(
                    f"{key}: tokens={given.tokens} limits nothing, as only model calls have tokens; use concurrent or "
                    "requests here, and tokens for a model, host or tenant"
                )
        if type(self.ageing) not in (int, float) or not 0 < self.ageing <= 86_400:
            raise ValueError(f"ageing={self.ageing!r} must be a number of seconds above 0, at most 86400 (default 30)")
        if type(self.learn) is not bool:
            raise TypeError(f"learn={self.learn!r} must be True or False")
        object.__setattr__(self, "keys", dict(self.keys))

    def rules(self) -> dict[str, tuple[int | None, int | None, int | None, float]]:
        """By key and by kind, as the core has them."""
        limits: dict[str, Limit | None] = {name: getattr(self, name) for name in ("model", "tool", "host", "tenant")}
        if self.kickoffs is not None:
            limits["kickoffs"] = Limit(self.kickoffs)
        if self.learn and limits["model"] is None:
            limits["model"] = Limit()
        limits.update(self.keys)
        if "kickoffs" in limits:
            limits["kickoffs:"] = limits.pop("kickoffs")  # of all, and not of each tenant
        return {
            key: (limit.concurrent, limit.requests, limit.tokens, limit.window * _SLACK)
            for key, limit in limits.items()
            if limit is not None
        }


def parsed(name: str, text: str) -> Limits | None:
    """Limits as JSON, which is their form in the environment.

    Raises:
        ValueError: that is not what the text holds; the message names the variable `name`.
    """
    if not text.strip():
        return None
    example = '{"kickoffs": 100, "model": {"requests": 500}}'
    try:
        found = json.loads(text, object_pairs_hook=_once_each)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}={text!r} is not JSON ({error}); write it like {example}") from None
    try:
        given = dict(_object(found, Limits, "Limits"))
        for key in ("model", "tool", "host", "tenant"):
            if given.get(key) is not None:
                given[key] = Limit(**_object(given[key], Limit, key))
        keys = given.get("keys", {})
        if isinstance(keys, dict):
            given["keys"] = {key: Limit(**_object(limit, Limit, key)) for key, limit in keys.items()}
        return Limits(**given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}; write it like {example}") from None


def observe(key: str, headers: Mapping[str, str], status: int = 200) -> None:
    """Tell what a provider has answered, for a model client that is not watched by itself.

    Args:
        key: whose limits they are, as ``model:gpt-4o``.
        headers: ``x-ratelimit-*``, ``anthropic-ratelimit-*`` and ``Retry-After`` are read, in any case.
        status: the answer's; with 429 nothing more goes under this key for the time that ``Retry-After`` names.

    Raises:
        ValueError: `key` is none.
        TypeError: `headers` is no mapping, or `status` no whole number.
    """
    _check_key(key)
    if not isinstance(headers, Mapping):
        raise TypeError(f"headers={headers!r} must be a dict or Mapping of names and texts")
    if not isinstance(status, int):
        raise TypeError(f"status={status!r} must be a whole number, as 429")
    if active is not None:
        active.observe(key, {name.lower(): str(value) for name, value in headers.items()}, status)


active: Permits | None = None
"""What gives out permits, while limits are set."""

_permits: Permits | None = None


def apply(limits: Limits | None, tools: Mapping[str, int] = MappingProxyType({})) -> None:
    """Put `limits`, and those of calls of single `tools` at once, in force for what comes next; those that wait are
    looked at anew."""
    global active, _permits
    limited = limits is not None or bool(tools)
    if not limited and _permits is None:
        return
    if _permits is None:
        from fastcrew_async.permits import Permits

        _permits = Permits()
    active = _permits if limited else None
    _permits.configure(limits, tools)


def after_fork(fresh: Permits | None) -> None:
    """A child has none of its parent's runs."""
    global active, _permits
    if active is not None:
        active = fresh
    _permits = fresh


def _object(found: Any, kind: type, name: str) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise TypeError(f"{name}={found!r} must be an object")
    known = {entry.name for entry in fields(kind)}
    for entry in found:
        if entry not in known:
            raise ValueError(f"{name} has no field {entry!r}; its fields are {', '.join(sorted(known))}")
    return found


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is there twice")
    return found


def _check_whole(name: str, value: Any) -> None:
    if value is not None and not is_whole(value, 1):
        raise ValueError(f"{name}={value!r} must be a whole number of 1 or more, or None for no limit (at most {MOST})")


def _check_key(key: object) -> None:
    kind, _, name = key.partition(":") if isinstance(key, str) else ("", "", "")
    if key != "kickoffs" and not (kind in KINDS and is_name(name)):
        raise ValueError(f"{key!r} is not a key; write kind:name, with a kind of {', '.join(KINDS)}")


def _check_limit(name: str, value: Any) -> None:
    if value is not None and not isinstance(value, Limit):
        raise TypeError(f"{name}={value!r} must be a Limit, as Limit(concurrent=10, requests=500), or None")
