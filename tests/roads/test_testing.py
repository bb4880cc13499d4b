"""``test`` of a crew, whose evaluator is an agent of its own; CrewAI has a sync form only."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from crewai.utilities.evaluators.crew_evaluator_handler import CrewEvaluator

from fastcrew_async.testing import Request
from tests.roads.at_once import at_once, topics
from tests.roads.crews import crew, model, topic_of


def scored(request: Request) -> str:
    return json.dumps({"quality": float(topic_of(request.text)[-1])})


async def test_every_crew_gets_its_own_score(installed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    scores: dict[str, Any] = {}

    def keep(self: CrewEvaluator, token_usage: Any = None) -> None:
        scores[topic_of(self.crew.tasks[0].description)] = dict(self.tasks_scores)

    monkeypatch.setattr(CrewEvaluator, "print_crew_evaluation_result", keep)
    await at_once(lambda topic: asyncio.to_thread(crew().test, 2, model(scored), {"topic": topic}))
    assert {topic: scores[topic] for topic in topics()} == {
        topic: {1: [float(topic[-1])], 2: [float(topic[-1])]} for topic in topics()
    }
