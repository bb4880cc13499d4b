"""A function of CrewAI that has a stand-in while somebody needs it, and not a moment longer."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from fastcrew_async.engine.seams import is_crewais


class Loan:
    """`stand_in` for `function` in `modules`, from the first :meth:`take` to the last :meth:`give_back`.

    A module that nobody has imported is left alone, and so is a name for which others have put something else.
    """

    def __init__(self, function: str, *modules: str, stand_in: Callable[..., Any], reason: str) -> None:
        self.names = tuple(f"{module}.{function}" for module in modules)
        self.reason = reason
        self.stock: Any = None
        """CrewAI's own function; to be called by the stand-in."""
        self._function = function
        self._modules = modules
        self._stand_in = stand_in
        self._users = 0
        self._lent = False
        self._renew_lock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew_lock)

    def take(self) -> None:
        """Lend it, unless it is lent."""
        with self._lock:
            self._users += 1
            if not self._lent and self._modules[0] in sys.modules:
                modules = [sys.modules.get(module) for module in self._modules]
                stock = getattr(modules[0], self._function, None)
                if is_crewais(stock) and all(getattr(module, self._function, None) is stock for module in modules):
                    self.stock, self._lent = stock, True
                    for module in modules:
                        setattr(module, self._function, self._stand_in)

    def give_back(self) -> None:
        """Say that it is not needed here any more."""
        with self._lock:
            self._users -= 1
            if self._lent and not self._users:
                self._lent = False
                for module in map(sys.modules.get, self._modules):
                    if getattr(module, self._function, None) is self._stand_in:  # else it is of somebody else
                        setattr(module, self._function, self.stock)

    def __enter__(self) -> None:
        self.take()

    def __exit__(self, *_: object) -> None:
        self.give_back()

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()
