"""A model that asks its server how many tokens a text has, by a sync request as CrewAI's providers do."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
from pydantic import PrivateAttr

from fastcrew_async import AsyncCrew

from .cases.building import solo
from .models import ScriptedModel, action, call, final
from .recorder import Recorder
from .recording import storage
from .tools import ping


class CountingModel(ScriptedModel):
    _threads: list[int] = PrivateAttr(default_factory=list)

    def get_input_tokens_count(self, messages: Any, tools: Any = None, response_model: Any = None) -> int:
        self._threads.append(threading.get_ident())
        return super().get_input_tokens_count(messages, tools, response_model)


@pytest.fixture(autouse=True)
def _stored_aside() -> Iterator[None]:
    with mock.patch.dict(os.environ, {"CREWAI_STORAGE_DIR": storage()}):
        yield


@pytest.mark.parametrize("native", [False, True], ids=["react", "native"])
async def test_tokens_are_counted_off_the_loop(native: bool) -> None:
    recorder = Recorder()
    script = [[call("ping", x=1)], "done"] if native else [action("ping", x=1), final("done")]
    model = CountingModel.of(recorder, script, native=native)
    crew = solo(recorder, [], llm=model, tools=[ping(recorder)])
    assert (await AsyncCrew(crew).kickoff(inputs={"topic": "tea"})).raw == "done"
    assert len(model._threads) >= 2
    assert threading.get_ident() not in model._threads
