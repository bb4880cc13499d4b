"""Tasks that run or not by the output before them."""

from __future__ import annotations

from typing import Any

from crewai import Crew
from crewai.tasks.conditional_task import ConditionalTask

from fastcrew_async import workers
from tests.roads.at_once import answers, at_once, of, topics
from tests.roads.crews import agent, task


def odd(output: Any) -> bool:
    return int(output.raw.rstrip(">")[-1]) % 2 == 1


async def test_the_second_task_runs_for_odd_topics() -> None:
    worker = agent()
    tasks = [task(worker), task(worker, 1, ConditionalTask, condition=odd), task(worker, 2)]
    seen = await at_once(of(Crew(agents=[worker], tasks=tasks)))
    assert seen.texts == answers()
    middle = [result.tasks_output[1].raw for result in seen.results]
    assert middle == [f"done <{topic}>" if int(topic[-1]) % 2 else "" for topic in topics()]
    assert len(seen.threads) <= workers.pool().max_workers
