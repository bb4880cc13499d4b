"""Tool calls and kickoffs within the limits of the process (:mod:`fastcrew_async.limits`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

from crewai.utilities.string_utils import sanitize_tool_name

from fastcrew_async import limits
from fastcrew_async.engine.drivers import Work, is_abandoned
from fastcrew_async.engine.effects import Effect
from fastcrew_async.engine.turnstile import new_rank, rank
from fastcrew_async.permits import Permit, Permits, held, needed

T = TypeVar("T")


class a_call_of:
    """In it runs one call of a tool, when the limits allow it. One inside a call of the same tool is part of that.

    ``async with`` waits on the loop, ``with`` in place.
    """

    __slots__ = ("_around", "_keys", "_permit", "_permits")
    _permits: Permits
    _permit: Permit | None

    def __init__(self, tool: str) -> None:
        permits = limits.active
        self._permit = None
        self._keys: list[str] = []
        if permits is not None and "tool" in permits.kinds:
            self._permits = permits
            self._keys = needed(_tool_keys(permits.rules, tool))

    def __enter__(self) -> None:
        if self._keys:
            self._hold(_acquire_in_place(self._permits, self._keys))

    async def __aenter__(self) -> None:
        if self._keys:
            self._hold(await self._permits.acquire(self._keys, 0, rank.get() or new_rank()))

    def _hold(self, permit: Permit) -> None:
        self._permit = permit
        self._around = held.set((*held.get(), permit))

    def __exit__(self, *_: object) -> None:
        if self._permit is not None:
            held.reset(self._around)
            self._permit.end()

    async def __aexit__(self, *_: object) -> None:
        self.__exit__()


@lru_cache(maxsize=4096)
def _tool_keys(rules: frozenset[str], tool: str) -> list[str]:
    """The keys of a tool: those of `rules` with its name, as it is written or as the model sees it."""
    shown = _shown(tool)
    return [rule for rule in rules if rule.startswith("tool:") and _shown(rule[5:]) == shown] or [f"tool:{tool}"]


_shown = lru_cache(maxsize=4096)(sanitize_tool_name)


class _Enter(Effect):
    """Wait for a permit for a kickoff. It is kept here: a cancellation may come before this effect's answer."""

    __slots__ = ("keys", "permit", "permits")

    def __init__(self, permits: Permits, keys: list[str]) -> None:
        self.permits = permits
        self.keys = keys
        self.permit: Permit | None = None

    def perform(self) -> Permit:
        self.permit = _acquire_in_place(self.permits, self.keys)
        return self.permit

    async def aperform(self) -> Permit:
        self.permit = await self.permits.acquire(self.keys, 0, rank.get() or new_rank())
        return self.permit


async def kickoff(run: Callable[[], Work[T]]) -> T:
    """``await run()``, a run, when the limits allow it; a run inside another one is part of that."""
    permits = limits.active
    if permits is None or "kickoffs" not in permits.kinds:
        return await run()
    tenant = limits.tenant.get()
    keys = needed(["kickoffs:"] if tenant is None else ["kickoffs:", f"kickoffs:{tenant}"])
    if not keys:
        return await run()
    entering = _Enter(permits, keys)
    try:
        permit: Permit = await entering
        around = held.set((*held.get(), permit))
        try:
            return await run()
        finally:
            held.reset(around)
    finally:
        if entering.permit is not None:
            entering.permit.end()


def _acquire_in_place(permits: Permits, keys: list[str], tokens: int = 0) -> Permit:
    return permits.acquire_in_place(keys, tokens, rank.get() or new_rank(), is_abandoned)
