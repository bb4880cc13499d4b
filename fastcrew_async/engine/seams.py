"""Where a user has put their own code in place of CrewAI's, theirs is called.

A subclass that overrides ``execute_task``, an adapter that wraps a method on one object, a test that patches a class:
the engine stands in for CrewAI's own methods only.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import crewai

from fastcrew_async.engine.effects import Blocking, Effect

OURS = object()
"""What :func:`theirs` gives when CrewAI's own method is in place."""


def replaced(owner: Any, name: str, stock: Callable[..., Any]) -> bool:
    """Whether `owner` has something else than CrewAI's `stock` under `name`."""
    return name in getattr(owner, "__dict__", ()) or getattr(type(owner), name, None) is not stock


def async_form_stands(owner: Any, sync_name: str, async_name: str) -> bool:
    """Whether the async one of two forms is as much the user's as the sync one.

    It is not where only the sync form was written, on the object or in a subclass: the async one that is inherited
    then knows nothing of it. `owner` may be an object or a class.
    """
    own = () if isinstance(owner, type) else getattr(owner, "__dict__", ())
    if async_name in own or sync_name in own:
        return async_name in own
    for cls in (owner if isinstance(owner, type) else type(owner)).__mro__:
        if async_name in cls.__dict__ or sync_name in cls.__dict__:
            return async_name in cls.__dict__
    return False


@dataclass(frozen=True)
class Stock:
    """Methods of a class of CrewAI, as they were before anything was patched."""

    methods: dict[str, Any]

    def has(self, owner: Any, name: str) -> bool:
        """Whether `owner` has CrewAI's own method of that name still."""
        return not replaced(owner, name, self.methods[name])

    def in_place(self, owner: Any) -> bool:
        """Whether `owner` has all of them still."""
        return all(self.has(owner, name) for name in self.methods)


_NOT_THERE = object()
_CREWAI = os.path.dirname(crewai.__file__) + os.sep


def stock_methods(cls: type, *names: str) -> Stock:
    """Those methods of `cls`. One that was patched before it could be taken is never in place."""
    methods = {name: getattr(cls, name) for name in names}
    return Stock({name: method if is_crewais(method) else _NOT_THERE for name, method in methods.items()})


def is_crewais(method: Any) -> bool:
    """Whether a function, or a method of a flow, was written in CrewAI; one that wraps it elsewhere was not."""
    function = method if isinstance(method, FunctionType) else getattr(method, "_meth", None)
    return isinstance(function, FunctionType) and function.__code__.co_filename.startswith(_CREWAI)


@dataclass(frozen=True)
class Pair:
    """A method of CrewAI in its sync and its async form."""

    sync_name: str
    async_name: str
    sync: Callable[..., Any]
    asynchronous: Callable[..., Any]

    @staticmethod
    def of(cls: type, sync_name: str, async_name: str) -> Pair:
        """The pair as CrewAI ships it; to be taken before anything is patched."""
        return Pair(sync_name, async_name, getattr(cls, sync_name), getattr(cls, async_name))


async def theirs(owner: Any, pair: Pair, *args: Any, **kwargs: Any) -> Any:
    """What the user's version of a method gives; ``OURS`` when CrewAI's own is in place."""
    kind = type(owner)
    own = getattr(owner, "__dict__", ())
    if (  # replaced() of both, in place: this runs six times in a kickoff
        pair.sync_name in own
        or pair.async_name in own
        or getattr(kind, pair.sync_name, None) is not pair.sync
        or getattr(kind, pair.async_name, None) is not pair.asynchronous
    ):
        return await Theirs(owner, pair, *args, **kwargs)
    return OURS


class Theirs(Effect):
    """Call the user's version of a method, or give ``OURS``. On a loop, one that exists only as sync is called on a
    worker thread, as ``kickoff_async`` of CrewAI would."""

    __slots__ = ("args", "kwargs", "owner", "pair")

    def __init__(self, owner: Any, pair: Pair, *args: Any, **kwargs: Any) -> None:
        self.owner = owner
        self.pair = pair
        self.args = args
        self.kwargs = kwargs

    def perform(self) -> Any:
        if replaced(self.owner, self.pair.sync_name, self.pair.sync):
            return getattr(self.owner, self.pair.sync_name)(*self.args, **self.kwargs)
        return OURS

    async def aperform(self) -> Any:
        if replaced(self.owner, self.pair.async_name, self.pair.asynchronous):
            return await getattr(self.owner, self.pair.async_name)(*self.args, **self.kwargs)
        if replaced(self.owner, self.pair.sync_name, self.pair.sync):
            return await Blocking(getattr(self.owner, self.pair.sync_name), *self.args, **self.kwargs).aperform()
        return OURS
