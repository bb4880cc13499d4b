"""The ways to run a crew, an agent or a list of inputs: CrewAI's own and ours."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Way:
    """One way of running. `start(subject, argument)` begins a run; `reference` names the stock way it must equal."""

    name: str
    start: Callable[[Any, Any], Any]
    awaited: bool
    installed: bool = False
    reference: str = ""


def _async_crew(crew: Any, inputs: Any) -> Any:
    from fastcrew_async import AsyncCrew

    return AsyncCrew(crew).kickoff(inputs=inputs)


def _method(name: str, *, each: bool = False, agent: bool = False) -> Callable[[Any, Any], Any]:
    def start(subject: Any, argument: Any) -> Any:
        if agent:
            return getattr(subject, name)(**argument)
        return getattr(subject, name)(inputs=argument)

    return start


STOCK = {
    "crew": [
        Way("akickoff", _method("akickoff"), awaited=True),
        Way("kickoff", _method("kickoff"), awaited=False),
        Way("kickoff_async", _method("kickoff_async"), awaited=True),
    ],
    "agent": [
        Way("kickoff", _method("kickoff", agent=True), awaited=False),
        Way("kickoff_async", _method("kickoff_async", agent=True), awaited=True),
    ],
    "each": [
        Way("akickoff_for_each", _method("akickoff_for_each"), awaited=True),
        Way("kickoff_for_each", _method("kickoff_for_each"), awaited=False),
        Way("kickoff_for_each_async", _method("kickoff_for_each_async"), awaited=True),
    ],
    "flow": [
        Way("kickoff", _method("kickoff"), awaited=False),
        Way("kickoff_async", _method("kickoff_async"), awaited=True),
    ],
}

OURS = {
    "crew": [
        Way("AsyncCrew.kickoff", _async_crew, awaited=True, reference="akickoff"),
        Way("installed akickoff", _method("akickoff"), awaited=True, installed=True, reference="akickoff"),
        Way("installed kickoff", _method("kickoff"), awaited=False, installed=True, reference="kickoff"),
        Way(
            "installed kickoff_async",
            _method("kickoff_async"),
            awaited=True,
            installed=True,
            reference="kickoff_async",
        ),
    ],
    "agent": [
        Way("installed kickoff", _method("kickoff", agent=True), awaited=False, installed=True, reference="kickoff"),
        Way(
            "installed kickoff_async",
            _method("kickoff_async", agent=True),
            awaited=True,
            installed=True,
            reference="kickoff_async",
        ),
    ],
    "each": [
        Way(
            "installed akickoff_for_each",
            _method("akickoff_for_each"),
            awaited=True,
            installed=True,
            reference="akickoff_for_each",
        ),
        Way(
            "installed kickoff_for_each",
            _method("kickoff_for_each"),
            awaited=False,
            installed=True,
            reference="kickoff_for_each",
        ),
        Way(
            "installed kickoff_for_each_async",
            _method("kickoff_for_each_async"),
            awaited=True,
            installed=True,
            reference="kickoff_for_each_async",
        ),
    ],
    "flow": [
        Way("installed kickoff", _method("kickoff"), awaited=False, installed=True, reference="kickoff"),
        Way(
            "installed kickoff_async", _method("kickoff_async"), awaited=True, installed=True, reference="kickoff_async"
        ),
    ],
}


def stock_way(kind: str, name: str) -> Way:
    """CrewAI's own way of that name."""
    return next(way for way in STOCK[kind] if way.name == name)


@contextlib.contextmanager
def installation(way: Way) -> Iterator[None]:
    """CrewAI as `way` needs it: patched for an installed way, untouched otherwise."""
    if not way.installed:
        yield
        return
    import fastcrew_async

    fastcrew_async.install()
    try:
        yield
    finally:
        fastcrew_async.uninstall()
