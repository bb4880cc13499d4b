"""`AsyncCrew.kickoff_for_each` gives what `akickoff_for_each` gives, on the crew and copies of it."""

from __future__ import annotations

import asyncio
import os
from typing import Any
from unittest import mock

import pytest
from crewai import Crew

import fastcrew_async
from fastcrew_async import AsyncCrew

from .cases.agents import EACH, for_each
from .cases.building import solo
from .models import final
from .plain import plain
from .recorder import Recorder, fresh_context
from .recording import storage


def outputs(kickoff: Any, crew: Crew) -> list[Any]:
    with mock.patch.dict(os.environ, {"CREWAI_STORAGE_DIR": storage()}):
        results = fresh_context().run(asyncio.run, kickoff(crew, inputs=EACH[0]))
    return [plain(result) for result in results]


def asked(recorder: Recorder) -> list[str]:
    return sorted(str(entry.body["messages"]) for entry in recorder.entries if entry.kind == "model")


def test_for_each_equals_stock() -> None:
    theirs, own = Recorder(), Recorder()
    expected = outputs(Crew.akickoff_for_each, for_each(theirs))
    found = outputs(lambda crew, inputs: AsyncCrew(crew).kickoff_for_each(inputs), for_each(own))
    assert [output["raw"] for output in expected] == ["about tea", "about coffee", "about juice"]
    assert found == expected
    assert asked(own) == asked(theirs)


async def _streamed(crew: Crew, method: str) -> tuple[list[str], list[Any]]:
    output = await getattr(crew, method)(inputs=EACH[0][:2])
    chunks = [chunk.content async for chunk in output]
    return sorted(chunks), [plain(result) for result in output.results]


async def _twice(crew: Crew, method: str) -> list[Any]:
    """After a kickoff, whose inputs then stand in the texts that are copied; one input, so that nothing is a race."""
    first = await crew.akickoff(inputs={"topic": "milk"})
    results = await getattr(crew, method)(inputs=EACH[0][:1])
    used = [plain(crew.usage_metrics), plain(crew.agents[0].llm.get_token_usage_summary())]
    return [plain(first), *map(plain, results), *used, plain(crew.tasks[0].output), crew.tasks[0].description]


def _both(work: Any, make: Any) -> tuple[Any, Any]:
    with mock.patch.dict(os.environ, {"CREWAI_STORAGE_DIR": storage()}):
        expected = fresh_context().run(asyncio.run, work(make()))
        fastcrew_async.install()
        try:
            return expected, fresh_context().run(asyncio.run, work(make()))
        finally:
            fastcrew_async.uninstall()


@pytest.mark.parametrize("method", ["akickoff_for_each", "kickoff_for_each_async"])
def test_streams_of_each_equal_stock(method: str) -> None:
    def make() -> Crew:
        crew = for_each(Recorder())
        crew.agents[0].llm.chunked = True
        crew.stream = True
        return crew

    expected, found = _both(lambda crew: _streamed(crew, method), make)
    assert [result["raw"] for result in expected[1]] == ["about tea", "about coffee"]
    assert "about" in expected[0]
    assert found == expected


@pytest.mark.parametrize("method", ["akickoff_for_each", "kickoff_for_each_async"])
def test_counters_and_texts_after_a_kickoff_equal_stock(method: str) -> None:
    def make() -> Crew:
        return solo(Recorder(), lambda messages: final("milk" if "milk" in str(messages) else "other"))

    expected, found = _both(lambda crew: _twice(crew, method), make)
    assert expected[1]["raw"] == "milk"
    assert found == expected
