"""`replay` starts in the middle of a finished run, as in CrewAI."""

from __future__ import annotations

import os
from typing import Any
from unittest import mock

import pytest
from crewai import Crew

import fastcrew_async

from .cases.tasks import ANSWERS, chain
from .models import final
from .plain import plain
from .recorder import Recorder, fresh_context
from .recording import storage


def three_tasks(recorder: Recorder) -> Crew:
    return chain(recorder, {}, {}, {}, script=[*ANSWERS, final("two again"), final("three again")])


def replayed(inputs: dict[str, Any] | None) -> dict[str, Any]:
    """What a user can see of a kickoff and a replay from its second task."""
    recorder = Recorder()
    crew = three_tasks(recorder)

    def kickoff_and_replay() -> Any:
        crew.kickoff(inputs={"topic": "tea"})
        return crew.replay(str(crew.tasks[1].id), inputs)

    with mock.patch.dict(os.environ, {"CREWAI_STORAGE_DIR": storage()}), recorder.observing():
        result = fresh_context().run(kickoff_and_replay)
        rows = [
            {key: plain(value) for key, value in row.items() if key not in ("timestamp", "task_id")}
            for row in crew._task_output_handler.load()
        ]
    return {
        "raw": result.raw,
        "outputs": [output.raw for output in result.tasks_output],
        "events": sorted(recorder.handled.values()),
        "asked": [entry.body["messages"] for entry in recorder.entries if entry.kind == "model"],
        "rows": rows,
    }


@pytest.mark.parametrize("inputs", [None, {"topic": "coffee"}], ids=["the run's inputs", "other inputs"])
def test_replay_equals_stock(inputs: dict[str, Any] | None) -> None:
    expected = replayed(inputs)
    fastcrew_async.install()
    try:
        found = replayed(inputs)
    finally:
        fastcrew_async.uninstall()
    assert expected["outputs"] == ["one", "two again", "three again"]
    assert len(expected["asked"]) == 5
    assert found == expected


def test_a_task_of_no_run_is_refused_as_by_stock() -> None:
    crew = three_tasks(Recorder())
    with mock.patch.dict(os.environ, {"CREWAI_STORAGE_DIR": storage()}):
        with pytest.raises(ValueError, match="not found"):
            crew.replay("nothing")
        fastcrew_async.install()
        try:
            with pytest.raises(ValueError, match="not found"):
                crew.replay("nothing")
        finally:
            fastcrew_async.uninstall()
