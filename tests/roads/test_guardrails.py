"""Function guardrails that refuse, and ask the agent again."""

from __future__ import annotations

from typing import Any

import pytest
from crewai import Crew

from fastcrew_async import workers
from fastcrew_async.testing import Request
from tests.roads.at_once import RUNS, at_once, of, topics
from tests.roads.crews import agent, task, topic_of


def better(request: Request) -> str:
    topic = topic_of(request.text)
    return f"good <{topic}>" if f"not good <{topic}>" in request.text else f"bad <{topic}>"


def good(output: Any):  # type: ignore[no-untyped-def]  # CrewAI reads the annotation
    return (True, output.raw) if "good" in output.raw else (False, f"not good <{topic_of(output.raw)}>")


def short(output: Any):  # type: ignore[no-untyped-def]  # CrewAI reads the annotation
    return (True, f"{output.raw}!")


def never(output: Any):  # type: ignore[no-untyped-def]  # CrewAI reads the annotation
    return (False, f"refused {output.raw}")


async def test_one_guardrail_refuses_once() -> None:
    worker = agent(better)
    seen = await at_once(of(Crew(agents=[worker], tasks=[task(worker, guardrail=good, guardrail_max_retries=2)])))
    assert seen.texts == [f"good <{topic}>" for topic in topics()]
    assert len(seen.threads) <= workers.pool().max_workers


async def test_several_guardrails_in_their_order() -> None:
    worker = agent(better)
    seen = await at_once(of(Crew(agents=[worker], tasks=[task(worker, guardrails=[good, short])])))
    assert seen.texts == [f"good <{topic}>!" for topic in topics()]
    assert len(seen.threads) <= workers.pool().max_workers


async def test_each_run_fails_by_its_own_refusal() -> None:
    worker = agent()
    start = of(Crew(agents=[worker], tasks=[task(worker, guardrail=never, guardrail_max_retries=1)]))

    async def refused(topic: str) -> str:
        with pytest.raises(Exception, match="after 1 retries") as error:
            await start(topic)
        return str(error.value)

    seen = await at_once(refused)
    assert len(seen.results) == RUNS
    assert [text.rpartition("Last error: ")[2] for text in seen.results] == [f"refused done <{t}>" for t in topics()]
