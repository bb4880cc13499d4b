from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import pytest
from crewai.crews.crew_output import CrewOutput

from fastcrew_async.engine import collector
from fastcrew_async.engine.kickoff import kickoff, kickoff_in_place, kickoff_like_sync
from fastcrew_async.testing import Reply
from tests import crews

TEA = {"topic": "tea"}


async def test_the_three_ways_give_the_same() -> None:
    outputs: list[Any] = [
        await kickoff(crews.crew(crews.echo), TEA),
        await kickoff_like_sync(crews.crew(crews.echo), TEA),
        await asyncio.to_thread(kickoff_in_place, crews.crew(crews.echo), TEA),
    ]
    assert [output.raw for output in outputs] == ["tea"] * 3
    assert len({str(output.token_usage) for output in outputs}) == 1


async def test_kickoff_like_sync_leaves_no_context_variable_behind() -> None:
    crew = crews.crew()  # making one sets variables of CrewAI's
    before = dict(contextvars.copy_context())
    await kickoff_like_sync(crew, TEA)
    assert dict(contextvars.copy_context()) == before


def test_a_crew_that_runs_inside_itself_in_place() -> None:
    crew = crews.crew(crews.echo)
    crew.before_kickoff_callbacks.append(
        lambda inputs: inputs if inputs["topic"] == "milk" else {"topic": kickoff_in_place(crew, {"topic": "milk"}).raw}
    )
    assert kickoff_in_place(crew, TEA).raw == "milk"


def test_a_stream_in_place() -> None:
    crew = crews.crew(crews.echo, crew_options={"stream": True})
    stream: Any = kickoff_in_place(crew, TEA)
    list(stream)
    assert isinstance(stream.result, CrewOutput)
    assert stream.result.raw == "tea"
    assert crew.stream is True


async def test_an_error_of_a_stream_comes_out_of_it() -> None:
    crew = crews.crew(Reply("no", status=500), crew_options={"stream": True}, max_retry_limit=0)
    stream: Any = await kickoff(crew, TEA)
    with pytest.raises(RuntimeError, match="status 500"):
        [chunk async for chunk in stream]
    assert crew.stream is True
    assert collector._state.running == 0


async def test_a_run_counts_as_busy_until_its_end() -> None:
    seen: list[int] = []
    crew = crews.crew()
    crew.after_kickoff_callbacks.append(lambda output: (seen.append(collector._state.running), output)[1])
    await kickoff(crew, TEA)
    assert seen == [1]
    assert collector._state.running == 0
