"""A case of the parity table."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .recorder import Recorder

Build = Callable[[Recorder], Any]


@dataclass(frozen=True, eq=False)
class Case:
    """What to run. Every way gets a subject of its own from `build`, so nothing leaks from one to another."""

    name: str
    build: Build
    kind: str = "crew"
    # One argument for each successive run of the same subject.
    rounds: tuple[Any, ...] = ({"topic": "tea"},)
    # Note all interception points.
    hooks: bool = False
    # Types of events whose scopes run beside each other: their order among each other is not compared.
    concurrent: tuple[str, ...] = ()
    # Anything that must hold while the case runs, such as a provider for human input.
    around: Callable[[Recorder], contextlib.AbstractContextManager[Any]] | None = None
    # What is set up in the context that starts the run, such as a provider for human input.
    inside: Callable[[Recorder], Any] | None = None
    # Ways this case says nothing about, with the reason.
    not_for: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return self.name
