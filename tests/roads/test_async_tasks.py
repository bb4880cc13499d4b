"""Tasks beside each other, with ``async_execution``."""

from __future__ import annotations

from crewai import Crew

from tests.roads.at_once import RUNS, answers, at_once, of
from tests.roads.crews import Ping, agent, ping_once, task


async def test_three_tasks_beside_each_other_and_one_after_them() -> None:
    worker = agent(ping_once, tools=[Ping()])
    beside = [task(worker, number, async_execution=True) for number in range(3)]
    last = task(worker, 3, context=beside)
    seen = await at_once(of(Crew(agents=[worker], tasks=[*beside, last])))
    assert seen.texts == answers()
    assert [len(result.tasks_output) for result in seen.results] == [4] * RUNS
    assert seen.threads == []
