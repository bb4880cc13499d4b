from __future__ import annotations

from pathlib import Path

import pytest
from crewai.utilities.training_handler import CrewTrainingHandler

from fastcrew_async import workers
from fastcrew_async.engine.drivers import drive, drive_in_place
from fastcrew_async.engine.training import follow_training
from tests import crews

SUGGESTED = "ask\n\nYou MUST follow these instructions: \n - be brief"


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    CrewTrainingHandler("trained_agents_data.pkl").save({"Researcher": {"suggestions": ["be brief"]}})


@pytest.fixture
def untrained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("trained")
async def test_the_file_is_read_off_the_loop() -> None:
    assert await drive(follow_training(crews.agent(), "ask")) == SUGGESTED


@pytest.mark.usefixtures("trained")
def test_the_file_is_read_in_place() -> None:
    assert drive_in_place(follow_training(crews.agent(), "ask")) == SUGGESTED


@pytest.mark.usefixtures("untrained")
async def test_without_a_file_no_thread_is_asked() -> None:
    before = workers.pool().stats()["done"]
    assert await drive(follow_training(crews.agent(), "ask")) == "ask"
    assert workers.pool().stats()["done"] == before


def test_the_file_of_the_crew(tmp_path: Path) -> None:
    file = tmp_path / "own.pkl"
    CrewTrainingHandler(str(file)).save({"Researcher": {"suggestions": ["be brief"]}})
    crew = crews.crew(crew_options={"trained_agents_file": str(file)})
    crew.agents[0].crew = crew
    assert drive_in_place(follow_training(crew.agents[0], "ask")) == SUGGESTED


def test_a_crew_in_training_is_told_what_was_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    crew = crews.crew()
    crew._train = True
    agent = crew.agents[0]
    agent.crew = crew
    CrewTrainingHandler("training_data.pkl").save({str(agent.id): {0: {"human_feedback": "shorter"}}})
    assert drive_in_place(follow_training(agent, "ask")).endswith("instructions: \n shorter")
