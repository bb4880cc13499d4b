"""Skills from a folder: named in the prompt, loaded by the model when it wants them."""

from __future__ import annotations

from pathlib import Path

import pytest
from crewai import Crew

from fastcrew_async import workers
from fastcrew_async.testing import Request
from tests.roads.at_once import at_once, of, topics
from tests.roads.crews import agent, calling, task

TEXT = """---
name: tea-making
description: How tea is made.
---
Steep it for three minutes.
"""


@pytest.fixture
def skills(tmp_path: Path) -> Path:
    folder = tmp_path / "skills" / "tea-making"
    folder.mkdir(parents=True)
    (folder / "SKILL.md").write_text(TEXT)
    return folder.parent


def reading(request: Request) -> object:
    assert "How tea is made" in request.text
    return calling("load_skill", lambda topic: {"skill_name": "tea-making"}, after="three minutes")(request)


@pytest.mark.parametrize("native", [False, True], ids=["react", "native"])
@pytest.mark.parametrize("of_agent", [True, False], ids=["agent", "crew"])
async def test_every_run_loads_its_skill(skills: Path, of_agent: bool, native: bool) -> None:
    worker = agent(reading, native=native, **({"skills": [skills]} if of_agent else {}))
    made = Crew(agents=[worker], tasks=[task(worker)], **({} if of_agent else {"skills": [skills]}))
    seen = await at_once(of(made))
    assert seen.texts == [f"done <{topic}>" for topic in topics()]
    assert len(seen.threads) <= workers.pool().max_workers
