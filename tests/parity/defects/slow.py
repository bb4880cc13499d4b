"""A model that takes its time, so that something may happen meanwhile."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from crewai import Crew
from pydantic import PrivateAttr

from ..cases.building import solo
from ..models import ScriptedModel, final
from ..recorder import Recorder


class SlowModel(ScriptedModel):
    """Waits in the middle of a call, for `release` or for `patience` seconds, and notes when it went on."""

    patience: float = 0.3
    _entered: threading.Event = PrivateAttr(default_factory=threading.Event)
    _release: threading.Event = PrivateAttr(default_factory=threading.Event)
    _went_on: threading.Event = PrivateAttr(default_factory=threading.Event)

    def call(self, *args: Any, **kwargs: Any) -> Any:
        self._entered.set()
        self._release.wait(self.patience)
        self._went_on.set()
        return super().call(*args, **kwargs)

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        self._entered.set()
        await asyncio.sleep(self.patience)
        self._went_on.set()
        return await super().acall(*args, **kwargs)

    async def entered(self) -> None:
        """Wait until it is asked."""
        while not self._entered.is_set():
            await asyncio.sleep(0.001)


def slow_model(patience: float, name: str = "slow") -> SlowModel:
    return SlowModel.of(Recorder(), lambda messages: final("late"), name, patience=patience)


def slow_crew(patience: float, **fields: Any) -> tuple[SlowModel, Crew]:
    """A crew of one agent on such a model."""
    model = slow_model(patience)
    return model, solo(Recorder(), [], llm=model, **fields)
