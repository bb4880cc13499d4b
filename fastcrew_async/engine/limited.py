"""Tool calls and kickoffs within the limits of the process (:mod:`fastcrew_async.limits`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from fastcrew_async import limits
from fastcrew_async.engine.drivers import Work, is_abandoned
from fastcrew_async.engine.effects import Effect
from fastcrew_async.engine.turnstile import new_rank, rank
from fastcrew_async.permits import Permit, Permits, held, needed

T = TypeVar("T")


class Within(Effect):
    """Another effect, when the limits of `keys` allow it; all of them or none."""

    __slots__ = ("effect", "keys", "permits")

    def __init__(self, permits: Permits, keys: list[str], effect: Effect) -> None:
        self.permits = permits
        self.keys = keys
        self.effect = effect

    def perform(self) -> Any:
        keys = needed(self.keys)
        if not keys:
            return self.effect.perform()
        permit = _acquire_in_place(self.permits, keys)
        around = held.set((*held.get(), permit))
        try:
            return self.effect.perform()
        finally:
            held.reset(around)
            permit.end()

    async def aperform(self) -> Any:
        keys = needed(self.keys)
        if not keys:
            return await self.effect.aperform()
        permit = await self.permits.acquire(keys, 0, rank.get() or new_rank())
        around = held.set((*held.get(), permit))
        try:
            return await self.effect.aperform()
        finally:
            held.reset(around)
            permit.end()


def tool(name: str, effect: Effect) -> Effect:
    """A call of the tool `name`. One inside a call of the same tool is part of that."""
    permits = limits.active
    if permits is None or "tool" not in permits.kinds:
        return effect
    return Within(permits, [f"tool:{name}"], effect)


class _Enter(Effect):
    """Wait for a permit for a kickoff."""

    __slots__ = ("keys", "permits")

    def __init__(self, permits: Permits, keys: list[str]) -> None:
        self.permits = permits
        self.keys = keys

    def perform(self) -> Permit:
        return _acquire_in_place(self.permits, self.keys)

    async def aperform(self) -> Permit:
        return await self.permits.acquire(self.keys, 0, rank.get() or new_rank())


async def kickoff(run: Callable[[], Work[T]]) -> T:
    """``await run()``, a run, when the limits allow it; a run inside another one is part of that."""
    permits = limits.active
    if permits is None or "kickoffs" not in permits.kinds:
        return await run()
    tenant = limits.tenant.get()
    keys = needed(["kickoffs:"] if tenant is None else ["kickoffs:", f"kickoffs:{tenant}"])
    if not keys:
        return await run()
    permit: Permit = await _Enter(permits, keys)
    around = held.set((*held.get(), permit))
    try:
        return await run()
    finally:
        held.reset(around)
        permit.end()


def _acquire_in_place(permits: Permits, keys: list[str], tokens: int = 0) -> Permit:
    return permits.acquire_in_place(keys, tokens, rank.get() or new_rank(), is_abandoned)
