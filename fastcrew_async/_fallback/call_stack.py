"""Who called whom: a frame on the heap for each crew, agent and tool call that is under way."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from fastcrew_async.errors import ToolRecursionError

_SHOWN = 5
"""How many frames of either end a message shows."""


class CallFrame:
    """A call made from inside ``parent``, or from inside the innermost of its callers that is still under way. With
    ``arguments``, the same call must not be under way further up.

    Raises:
        ToolRecursionError: it is deeper than ``limit``, or repeats a call further up.
    """

    __slots__ = ("_arguments", "_ended", "_name", "_parent", "depth", "kind")

    _ended: bool
    _parent: CallFrame | None

    def __init__(self, parent: CallFrame | None, kind: str, name: str, arguments: str | None, limit: int) -> None:
        while parent is not None and parent._ended:
            parent = parent._parent
        self._parent = parent
        self.kind = kind
        self._name = name
        self._arguments = None if arguments is None else hash(arguments)
        self._ended = False
        self.depth: int = 1 if parent is None else parent.depth + 1
        """1 for an outermost call."""
        if self.depth > limit:
            raise ToolRecursionError(
                f"{self.depth} nested calls are more than max_depth={limit} allows: {self._shown()}"
            )
        if self._arguments is not None:
            for frame in self._outwards():
                same = frame._arguments == self._arguments and frame._name == name
                if same and frame is not self and not frame._ended:
                    raise ToolRecursionError(
                        f"{name} is called with the same arguments as further up the chain: {self._shown()}"
                    )

    def __del__(self) -> None:
        # Frames that only this one has held go one after another: Python 3.13 takes 10,000 of them inside each other
        # apart before it looks at the native stack, which may be a small one.
        parent: CallFrame | None = getattr(self, "_parent", None)
        while parent is not None:
            self._parent = None
            if sys.getrefcount(parent) > 2:  # held by others than this variable and the call's argument
                return
            parent._parent, parent = None, parent._parent

    def end(self) -> None:
        """The call is over: what it has left running (a task of its own) is not nested in it any more."""
        self._ended = True

    def chain(self) -> list[tuple[str, str]]:
        """Kinds and names of the calls under way, the outermost first."""
        return [(frame.kind, frame._name) for frame in self._outwards() if not frame._ended][::-1]

    def _outwards(self) -> Iterator[CallFrame]:
        frame: CallFrame | None = self
        while frame is not None:
            yield frame
            frame = frame._parent

    def _shown(self) -> str:
        names = [name for _, name in self.chain()]
        if len(names) > 2 * _SHOWN:
            names[_SHOWN:-_SHOWN] = [f"({len(names) - 2 * _SHOWN} more)"]
        return " > ".join(names)
