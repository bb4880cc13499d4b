"""The hierarchical process: a manager hands the work to a coworker."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from crewai import Crew, Process

from fastcrew_async import workers
from tests.roads.at_once import answers, at_once, each, of
from tests.roads.crews import agent, calling, model, task, topic_of

DELEGATE = ("delegate_work_to_coworker", "task")
ASK = ("ask_question_to_coworker", "question")


def delegating(name: str, work: str) -> Any:
    return calling(
        name,
        lambda topic: {work: f"Find <{topic}>", "context": f"about <{topic}>", "coworker": "Helper"},
        after="found <",
    )


def found(request: Any) -> str:
    assert threading.current_thread() is threading.main_thread(), "the coworker holds a thread"
    return f"found <{topic_of(request.text[request.text.index('Find <') :])}>"


def managed(by: str, native: bool, tool: tuple[str, str] = DELEGATE) -> Crew:
    script = delegating(*tool)
    manager: dict[str, Any]
    if by == "agent":
        manager = {"manager_agent": agent(script, role="Manager", native=native)}
    else:
        manager = {"manager_llm": model(script, native=native)}
    worker = agent(found, role="Helper", native=native)
    return Crew(agents=[worker], tasks=[task(None)], process=Process.hierarchical, **manager)


@pytest.mark.parametrize("native", [False, True], ids=["react", "native"])
@pytest.mark.parametrize("by", ["agent", "model"])
async def test_the_manager_delegates(by: str, native: bool) -> None:
    seen = await at_once(of(managed(by, native)))
    assert seen.texts == answers()
    assert len(seen.threads) <= workers.pool().max_workers


async def test_the_manager_asks() -> None:
    seen = await at_once(of(managed("agent", native=False, tool=ASK)))
    assert seen.texts == answers()


async def test_each_crew_counts_the_calls_of_its_manager_and_its_worker() -> None:
    seen = await at_once(each(lambda: managed("model", native=True)), runs=10)
    assert [result.token_usage.successful_requests for result in seen.results] == [3] * 10
