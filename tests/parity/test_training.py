"""`train` of a crew, whose kickoffs run on the engine once it is installed."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from crewai.core.providers.human_input import set_provider

import fastcrew_async

from .cases.building import solo
from .cases.tasks import Feedback
from .models import final
from .plain import plain
from .recorder import Recorder, fresh_context
from .recording import storage

EVALUATION = '{"suggestions": ["be brief"], "quality": 9.0, "final_summary": "brief"}'


def trained(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a training of one iteration writes, and what the model was asked."""
    folder.mkdir()
    monkeypatch.chdir(folder)
    recorder = Recorder()
    crew = solo(recorder, [final("first"), final("improved"), EVALUATION])

    def train() -> None:
        set_provider(Feedback(recorder))
        crew.train(n_iterations=1, filename="trained.pkl", inputs={"topic": "tea"})

    with mock.patch.dict(os.environ, {"CREWAI_STORAGE_DIR": storage()}), recorder.observing():
        fresh_context().run(train)
    iterations = pickle.loads((folder / "training_data.pkl").read_bytes())
    return {
        "trained": plain(pickle.loads((folder / "trained.pkl").read_bytes())),
        "iterations": [plain(iteration) for iteration in iterations.values()],  # by the id of the agent
        "asked": [entry.body["messages"] for entry in recorder.entries if entry.kind == "model"],
        "events": sorted(recorder.handled.values()),
    }


def test_training_equals_stock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = trained(tmp_path / "stock", monkeypatch)
    fastcrew_async.install()
    try:
        found = trained(tmp_path / "ours", monkeypatch)
    finally:
        fastcrew_async.uninstall()
    assert expected["trained"]["Researcher"]["suggestions"] == ["be brief"]
    assert len(expected["asked"]) == 3
    assert found == expected


def test_an_agent_follows_what_it_was_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trained.pkl").write_bytes(pickle.dumps({"Researcher": {"suggestions": ["be brief"]}}))
    asked = []
    for install in (False, True):
        recorder = Recorder()
        crew = solo(recorder, [final("done")], crew_options={"trained_agents_file": "trained.pkl"})
        with mock.patch.dict(os.environ, {"CREWAI_STORAGE_DIR": storage()}):
            if install:
                fastcrew_async.install()
            try:
                fresh_context().run(lambda crew=crew: crew.kickoff(inputs={"topic": "tea"}))  # type: ignore[misc]
            finally:
                if install:
                    fastcrew_async.uninstall()
        asked.append([entry.body["messages"] for entry in recorder.entries if entry.kind == "model"])
    assert "be brief" in str(asked[0])
    assert asked[0] == asked[1]
