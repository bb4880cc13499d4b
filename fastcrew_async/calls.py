"""The chain of crews, agents and tool calls that code runs in."""

from __future__ import annotations

import contextvars
from dataclasses import dataclass

from fastcrew_async._native import CallFrame

innermost: contextvars.ContextVar[CallFrame | None] = contextvars.ContextVar("fastcrew_async_call", default=None)
"""The frame of the innermost call."""


@dataclass(frozen=True)
class Call:
    """A call that is under way."""

    kind: str
    """``crew``, ``tool``, or ``agent``: one that works without a crew, or for a coworker who has delegated to it."""
    name: str
    """The crew's or the tool's name, or the agent's role."""


def call_stack() -> list[Call]:
    """The crews, agents and tool calls that this code runs in, the outermost first; empty outside of a kickoff.

    It goes with the context variables: into async tools, and into the threads of sync ones. A call that has ended is
    not in it, though a task that it has started may still run.
    """
    frame = innermost.get()
    return [] if frame is None else [Call(kind, name) for kind, name in frame.chain()]
