"""Tools of the cases. Each notes its call in the recorder of the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from crewai.tools import BaseTool
from pydantic import BaseModel

from .recorder import Recorder


class Number(BaseModel):
    x: int


class Noted(BaseTool):
    """A sync tool that notes its argument and answers by a function of it."""

    name: str = "ping"
    description: str = "Answers pong with the number."
    args_schema: type[BaseModel] = Number
    answer: Callable[[int], Any]
    recorder: Any = None

    def _run(self, x: int) -> Any:
        self.recorder.note("tool", self.name, x=x)
        return self.answer(x)


def pong(x: int) -> str:
    return f"pong {x}"


def ping(recorder: Recorder, answer: Callable[[int], Any] = pong, **fields: Any) -> BaseTool:
    """The tool `ping`, which answers `pong x` unless told otherwise."""
    return Noted(recorder=recorder, answer=answer, **fields)
