"""A training, beside fifty kickoffs: CrewAI has a sync form only, which writes into the current folder."""

from __future__ import annotations

import asyncio
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from crewai.core.providers.human_input import SyncHumanInputProvider, set_provider

from fastcrew_async.testing import Request
from tests.roads.at_once import answers, at_once, of
from tests.roads.crews import crew, done


def taught(request: Request) -> str:
    if "suggestions" in request.text and "final_summary" in request.text:
        return json.dumps({"suggestions": ["be brief"], "quality": 9.0, "final_summary": "brief"})
    return done(request)


class Teacher(SyncHumanInputProvider):
    @staticmethod
    def _prompt_input(crew: Any) -> str:
        return "be brief"


async def test_a_training_beside_fifty_kickoffs(
    installed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def train() -> None:
        set_provider(Teacher())
        crew(taught).train(n_iterations=1, filename="trained.pkl", inputs={"topic": "tea"})

    training = asyncio.create_task(asyncio.to_thread(train))
    seen = await at_once(of(crew(role="Clerk")), beside={training})
    await asyncio.wait_for(training, 20)
    assert seen.texts == answers()
    trained = pickle.loads((tmp_path / "trained.pkl").read_bytes())
    assert trained["Researcher"]["suggestions"] == ["be brief"]


async def test_what_was_taught_is_in_every_prompt(tmp_path: Path) -> None:
    (tmp_path / "trained.pkl").write_bytes(pickle.dumps({"Researcher": {"suggestions": ["be brief"]}}))
    made = crew(options={"trained_agents_file": str(tmp_path / "trained.pkl")})
    seen = await at_once(of(made))
    assert seen.texts == answers()
    llm: Any = made.agents[0].llm
    assert {"be brief" in request.text for request in llm.requests} == {True}
