"""Settings of the runtime, with their environment variables and defaults."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TypeVar

from fastcrew_async import environment
from fastcrew_async.environment import MOST, is_name, is_whole, number, switch, whole
from fastcrew_async.limits import Limits, apply, parsed
from fastcrew_async.tools import ToolPolicy, check_seconds

T = TypeVar("T")


def _limits(name: str, default: Limits | None) -> Limits | None:
    return parsed(name, os.environ.get(name, "")) or default


def _setting(read: Callable[[str, T], T], name: str, default: T) -> T:
    """A field that is read from the environment; ``doctor`` looks for its name and default in the metadata."""
    found: T = field(default_factory=lambda: read(name, default), metadata={"environment": name, "default": default})
    return found


@dataclass(frozen=True)
class Settings:
    """What can be set, once per process, through :func:`configure` or the environment."""

    slice_seconds: float = _setting(number, "FASTCREW_ASYNC_SLICE_SECONDS", 0.002)
    """CPU time in seconds that the engine may use of one iteration of an event loop before its next steps wait for
    the following iteration, so that the host's own callbacks run in between. 0 switches the turnstile off."""

    collector_policy: bool = _setting(switch, "FASTCREW_ASYNC_COLLECTOR", True)
    """Keep full garbage collections out of running kickoffs: what exists at the start is frozen, and full
    collections happen when the engine is idle or the process has grown (see :mod:`fastcrew_async.engine.collector`)."""

    replay_runs: int = _setting(whole, "FASTCREW_ASYNC_REPLAY_RUNS", 1000)
    """How many runs keep their task outputs for ``replay``; older ones are removed. 0 stores nothing."""

    max_depth: int = _setting(whole, "FASTCREW_ASYNC_MAX_DEPTH", 100)
    """How deep crews, agents and tool calls may be nested in each other before a call is refused with
    :class:`~fastcrew_async.errors.ToolRecursionError`. A tool and the crew that it kicks off, or the coworker that it
    delegates to, are two levels."""

    refuse_repeats: bool = _setting(switch, "FASTCREW_ASYNC_REFUSE_REPEATS", False)
    """Refuse a tool call that has the name and the arguments of one it is called from, however deep."""

    storage_path: Path | None = None
    """The SQLite file for task outputs; by default ``fastcrew_async.db`` in CrewAI's storage folder."""

    tools: Mapping[str, ToolPolicy] = field(default_factory=dict, hash=False, metadata={"default": {}})
    """What is set for single tools, by their names."""

    tool_timeout: float = _setting(number, "FASTCREW_ASYNC_TOOL_TIMEOUT", 0.0)
    """Seconds that a call of a tool without a timeout of its own may take; 0 sets no limit. Delegating to a coworker
    has none either way: an agent at work is limited by its ``max_execution_time``."""

    tool_cache_entries: int = _setting(whole, "FASTCREW_ASYNC_TOOL_CACHE_ENTRIES", 10_000)
    """How many results of tools with a ``cache_ttl`` are kept at most; the least recently used goes first."""

    tool_cache_bytes: int = _setting(whole, "FASTCREW_ASYNC_TOOL_CACHE_BYTES", 64 * 2**20)
    """How many bytes these results may take."""

    limits: Limits | None = _setting(_limits, "FASTCREW_ASYNC_LIMITS", None)  # noqa: RUF009
    """What may go on at the same time and in a minute, for all runs together (see :mod:`fastcrew_async.limits`)."""

    def __post_init__(self) -> None:
        if self.limits is not None and not isinstance(self.limits, Limits):
            raise TypeError(f"limits={self.limits!r} must be a Limits object, as Limits(kickoffs=100), or None")
        for name in ("collector_policy", "refuse_repeats"):
            if type(getattr(self, name)) is not bool:
                raise ValueError(f"{name}={getattr(self, name)!r} is neither True nor False")
        if self.storage_path is not None:
            path = str(self.storage_path) if isinstance(self.storage_path, (str, Path)) else ""
            if not path or "\0" in path:
                raise ValueError(f"storage_path={self.storage_path!r} is not the path of a file, or None")
            object.__setattr__(self, "storage_path", Path(self.storage_path))
        _check_tools(self.tools)
        object.__setattr__(self, "tools", dict(self.tools))
        check_seconds("tool_timeout", self.tool_timeout, "0 for no limit")
        for name in ("tool_cache_entries", "tool_cache_bytes"):
            value = getattr(self, name)
            if not is_whole(value, 0):
                raise ValueError(
                    f"{name}={value!r} is not a whole number of 0 or more (at most {MOST}); use 0 to keep no results"
                )
        if type(self.slice_seconds) not in (int, float) or not 0 <= self.slice_seconds <= 10:
            raise ValueError(
                f"slice_seconds={self.slice_seconds!r} is out of range; use 0 to 10 seconds (default 0.002)"
            )
        if type(self.max_depth) is not int or not 1 <= self.max_depth <= 1_000_000:
            raise ValueError(
                f"max_depth={self.max_depth!r} is out of range; use a whole number of 1 to 1,000,000 (default 100)"
            )
        if not is_whole(self.replay_runs, 0):
            raise ValueError(
                f"replay_runs={self.replay_runs!r} is not a whole number of 0 or more (at most {MOST}); "
                "use 0 to store nothing"
            )


def _check_tools(policies: object) -> None:
    if not isinstance(policies, Mapping):
        raise ValueError(f'tools={policies!r} is not a mapping; use {{"name of the tool": ToolPolicy(timeout=10)}}')
    for name, policy in policies.items():
        if not is_name(name) or not isinstance(policy, ToolPolicy):
            raise ValueError(
                f'tools={{{name!r}: {policy!r}}} is not the policy of a tool; use {{"name of the tool": '
                "ToolPolicy(timeout=10)}"
            )


VARIABLES: dict[str, str] = {
    entry.name: entry.metadata["environment"] for entry in fields(Settings) if "environment" in entry.metadata
}
"""The environment variable of each setting that has one."""
_settings: Settings | None = None


def settings() -> Settings:
    """The settings in force, read from the environment at their first use.

    Raises:
        ValueError: an environment variable has a value that cannot be read, or a name that is nearly one of ours.
    """
    global _settings
    if _settings is None:
        environment.check(VARIABLES.values())
        try:
            found = Settings()
        except ValueError as error:
            # It begins with the setting, which has a variable of another name.
            source = VARIABLES.get(str(error).partition("=")[0])
            raise (ValueError(f"{source}: {error}") if source else error) from None
        _apply(found)
        _settings = found
    return _settings


def _apply(now: Settings) -> None:
    apply(now.limits, {name: own.concurrency for name, own in now.tools.items() if own.concurrency is not None})


def configure(**changes: object) -> Settings:
    """Change settings of this process; runs that have started keep theirs, but for the limits, which apply at once.
    Returns the settings now in force.

    Raises:
        TypeError: there is no such setting.
        ValueError: the value is out of range.
    """
    global _settings
    known = {entry.name for entry in fields(Settings)}
    unknown = sorted(set(changes) - known)
    if unknown:
        raise TypeError(f"unknown setting {unknown[0]!r}; the settings are {', '.join(sorted(known))}")
    changed = replace(settings(), **changes)  # type: ignore[arg-type]
    if not changes.keys().isdisjoint({"limits", "tools"}):
        _apply(changed)
    _settings = changed
    return changed
