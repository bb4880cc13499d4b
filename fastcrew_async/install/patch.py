"""One name of CrewAI that ``install()`` replaces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Patch:
    """One name: where it is, what takes its place (made from what was there), and why; ``llm``: for models only."""

    where: str
    owner: Any
    attribute: str
    make: Callable[[Any], Any]
    reason: str
    llm: bool = False

    @property
    def name(self) -> str:
        """The dotted name, as ``status()`` shows it."""
        return f"{self.where}.{self.attribute}"
