"""The sequential process, with tools in both forms."""

from __future__ import annotations

import pytest

from tests.roads.at_once import answers, at_once, each, of
from tests.roads.crews import Ping, crew, ping_once


@pytest.mark.parametrize("native", [False, True], ids=["react", "native"])
async def test_two_tasks_with_a_tool_on_one_crew(native: bool) -> None:
    seen = await at_once(of(crew(ping_once, tasks=2, native=native, tools=[Ping()])))
    assert seen.texts == answers()
    assert [[output.raw for output in result.tasks_output] for result in seen.results] == [[a, a] for a in answers()]
    assert seen.threads == []


async def test_two_tasks_with_a_tool_on_crews_of_their_own() -> None:
    seen = await at_once(each(lambda: crew(ping_once, tasks=2, tools=[Ping()])))
    assert seen.texts == answers()
    assert [result.token_usage.total_tokens for result in seen.results] == [60] * len(seen.results)
    assert seen.threads == []
