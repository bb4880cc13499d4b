"""Crews with ``stream=True``: any number of streams of one crew at once."""

from __future__ import annotations

from contextlib import suppress
from contextvars import ContextVar

from crewai.crew import Crew
from crewai.crews.utils import enable_agent_streaming

_off: set[int] = set()
_inside: ContextVar[frozenset[int]] = ContextVar("fastcrew_async_streaming", default=frozenset())


def streams(crew: Crew) -> bool:
    """Whether a kickoff of `crew` gives a stream: also while another one has its ``stream`` off, unless it is inside of
    that one, where CrewAI gives the output."""
    return (crew.stream or id(crew) in _off) and id(crew) not in _inside.get()


class not_streaming:
    """The crew's own ``stream`` is off while it runs, as in CrewAI; its models stream. `taken` is `crew` or a copy."""

    def __init__(self, crew: Crew, taken: Crew) -> None:
        self._crew = crew
        self._taken = taken

    def __enter__(self) -> None:
        enable_agent_streaming(self._taken.agents)
        self._around = _inside.set(_inside.get() | {id(self._crew)})
        _off.add(id(self._taken))
        self._taken.stream = False

    def __exit__(self, *_: object) -> None:
        self._taken.stream = True
        _off.discard(id(self._taken))
        with suppress(ValueError):  # where the collector closes a forgotten coroutine, in any context
            _inside.reset(self._around)
