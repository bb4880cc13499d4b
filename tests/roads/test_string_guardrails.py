"""Guardrails in words, which a model judges."""

from __future__ import annotations

import json

from crewai import Crew

from fastcrew_async.testing import Request
from tests.roads.at_once import at_once, of, topics
from tests.roads.crews import agent, task, topic_of


def judged(request: Request) -> str:
    """The judge's verdict, or the worker's answer: the first answer of every run is refused."""
    text = request.text
    if "Ensure the following task result complies" in text:
        result = text[text.index("Task result:") : text.index("Confirm if")]
        good = "good <" in result
        return json.dumps({"valid": good, "feedback": None if good else f"refused <{topic_of(result)}>"})
    topic = topic_of(text)
    return f"good <{topic}>" if f"refused <{topic}>" in text else f"bad <{topic}>"


async def test_the_judge_refuses_once() -> None:
    worker = agent(judged)
    seen = await at_once(of(Crew(agents=[worker], tasks=[task(worker, guardrail="It must be good")])))
    assert seen.texts == [f"good <{topic}>" for topic in topics()]


async def test_the_judge_holds_no_thread() -> None:
    worker = agent(judged)
    seen = await at_once(of(Crew(agents=[worker], tasks=[task(worker, guardrail="It must be good")])), runs=10)
    assert seen.threads == []
