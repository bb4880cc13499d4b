"""Human feedback through a provider: asked once with a wish, then content."""

from __future__ import annotations

import asyncio
import io
import os
import sys
from typing import Any

import pytest
from crewai import Crew
from crewai.core.providers.human_input import SyncHumanInputProvider, reset_provider, set_provider

from fastcrew_async import AsyncCrew
from fastcrew_async.testing import Request
from tests.roads.at_once import answers, at_once, of
from tests.roads.crews import LATENCY, agent, task, topic_of


def wished(request: Request) -> str:
    topic = topic_of(request.text)
    return f"done <{topic}>" if f"better <{topic}>" in request.text else f"first <{topic}>"


class Person(SyncHumanInputProvider):
    """Asks for something better once, on the loop."""

    async def handle_feedback_async(self, formatted_answer: Any, context: Any) -> Any:
        while context.ask_for_human_input:
            await asyncio.sleep(LATENCY)
            text = self._get_output_string(formatted_answer)
            if text.startswith("done"):
                context.ask_for_human_input = False
            else:
                context.messages.append(context._format_feedback_message(f"better <{topic_of(text)}>"))
                formatted_answer = await context._ainvoke_loop()
        return formatted_answer


def asking() -> Crew:
    worker = agent(wished)
    return Crew(agents=[worker], tasks=[task(worker, human_input=True)])


async def test_a_provider_asks_on_the_loop() -> None:
    token = set_provider(Person())
    try:
        seen = await at_once(of(asking()))
    finally:
        reset_provider(token)
    assert seen.texts == answers()
    assert seen.threads == []


async def test_each_run_has_the_provider_of_its_own_context() -> None:
    class Content(Person):
        async def handle_feedback_async(self, formatted_answer: Any, context: Any) -> Any:
            context.ask_for_human_input = False
            return formatted_answer

    kickoff = of(asking())

    async def start(topic: str) -> Any:
        set_provider(Content() if int(topic[-1]) % 2 else Person())
        return await kickoff(topic)

    seen = await at_once(start)
    assert seen.texts == [answer.replace("done", "first") if int(answer[-2]) % 2 else answer for answer in answers()]


async def test_a_line_from_the_terminal_leaves_the_loop_free(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    read, write = os.pipe()
    ticks = 0
    with os.fdopen(read) as terminal, io.FileIO(write, "w") as person:
        monkeypatch.setattr(sys, "stdin", terminal)
        run = asyncio.create_task(AsyncCrew(asking()).kickoff(inputs={"topic": "tea"}))
        while "Human Feedback Required" not in capsys.readouterr().out:
            await asyncio.sleep(0.01)
            ticks += 1
            assert ticks < 1000, "the person was never asked"
        person.write(b"\n")
        assert (await asyncio.wait_for(run, 10)).raw == "first <tea>"
