"""``replay`` from the middle of a finished run, on threads beside a free loop: CrewAI has a sync form only."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.roads.at_once import answers, at_once
from tests.roads.crews import crew


async def test_every_run_is_replayed_from_its_second_task(installed: None) -> None:
    async def replayed(topic: str) -> Any:
        made = crew(tasks=2)
        await made.akickoff(inputs={"topic": topic})
        llm: Any = made.agents[0].llm
        assert len(llm.requests) == 2
        result = await asyncio.to_thread(made.replay, str(made.tasks[1].id))
        assert len(llm.requests) == 3
        return result

    seen = await at_once(replayed)
    assert seen.texts == answers()
    assert [[output.raw for output in result.tasks_output] for result in seen.results] == [[a, a] for a in answers()]
