"""Many runs of one kind at once on one loop: each is, event by event, what stock CrewAI makes of it alone."""

from __future__ import annotations

import asyncio
import os
from unittest import mock

import pytest

from tests.roads.at_once import started_threads

from . import cases
from .case import Case
from .compare import differences
from .recorder import Recorder, fresh_context
from .recording import Recording, _normalise, _run_awaited, _state, stock_recording, storage
from .ways import OURS

RUNS = 10
WAY = OURS["crew"][0]
CHOSEN = [
    "react 0 rounds",
    "react 2 rounds",
    "react, result as answer",
    "react, max_iter reached",
    "react, tool is blocking",
    "react, tool is own loop",
    "native 1 round",
    "native 2 parallel",
    "native, result as answer",
    "native, downgraded to text",
    "native, tool is async function",
    "context overflows, native",
    "provider fails once",
    "provider fails past the limit",
    "guardrail never passes",
    "conditional task skipped",
    "three tasks with context",
    "two tasks beside each other",
    "delegation, native",
    "planning, low",
    "planning, high",
    "planning beside, medium",
    "streaming, two tasks",
]
SAME = ("trace", "results", "state", "contexts", "open_scopes")


@pytest.fixture(params=CHOSEN)
def case(request: pytest.FixtureRequest) -> Case:
    return next(case for case in cases.ALL if case.name == request.param)


@pytest.fixture
def expected(case: Case) -> Recording:
    return only_same(stock_recording(case, WAY.reference))


async def test_each_is_as_alone(case: Case, expected: Recording) -> None:
    with mock.patch.dict(os.environ, {"CREWAI_STORAGE_DIR": storage()}):
        recorders = [Recorder() for _ in range(RUNS)]
        subjects = [case.build(recorder) for recorder in recorders]
        recordings = [Recording() for _ in range(RUNS)]
        with started_threads() as threads:
            create = asyncio.get_running_loop().create_task
            runs = [
                fresh_context().run(create, _run_awaited(case, WAY, *one))
                for one in zip(subjects, recorders, recordings, strict=True)
            ]
            await asyncio.gather(*runs)
    assert [name for name in threads if not name.startswith("fastcrew")] == []
    for subject, recorder, recording in zip(subjects, recorders, recordings, strict=True):
        recorder.names.give_path(storage(), "<storage>")
        recording.state = _state(subject)
        _normalise(case, subject, recorder, recording)
        assert differences(expected, only_same(recording)) == ""


def only_same(recording: Recording) -> Recording:
    """Without what is of the process: who else has heard the events, and which rows are the last ones."""
    return Recording(**{part: getattr(recording, part) for part in SAME})
