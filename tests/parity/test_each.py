"""`AsyncCrew.kickoff_for_each` gives what `akickoff_for_each` gives, on the crew and copies of it."""

from __future__ import annotations

import asyncio
import os
from typing import Any
from unittest import mock

from crewai import Crew

from fastcrew_async import AsyncCrew

from .cases.agents import EACH, for_each
from .plain import plain
from .recorder import Recorder, fresh_context
from .recording import storage


def outputs(kickoff: Any, crew: Crew) -> list[Any]:
    with mock.patch.dict(os.environ, {"CREWAI_STORAGE_DIR": storage()}):
        results = fresh_context().run(asyncio.run, kickoff(crew, inputs=EACH[0]))
    return [plain(result) for result in results]


def asked(recorder: Recorder) -> list[str]:
    return sorted(str(entry.body["messages"]) for entry in recorder.entries if entry.kind == "model")


def test_for_each_equals_stock() -> None:
    theirs, own = Recorder(), Recorder()
    expected = outputs(Crew.akickoff_for_each, for_each(theirs))
    found = outputs(lambda crew, inputs: AsyncCrew(crew).kickoff_for_each(inputs), for_each(own))
    assert [output["raw"] for output in expected] == ["about tea", "about coffee", "about juice"]
    assert found == expected
    assert asked(own) == asked(theirs)
