"""How far a write to a context variable of the user's own travels.

What the variables of CrewAI look like inside a run is part of every comparison. Here ours differs on purpose: CrewAI
copies the context for each step of an agent, so that what a step callback sets is gone with its step.
"""

from __future__ import annotations

from typing import Any

import pytest
from crewai import Crew

from .case import Case
from .cases.building import solo
from .cases.react import ONE
from .recorder import Recorder
from .recording import Recording, record, stock_recording
from .seen import user_trail
from .tools import ping
from .ways import OURS, Way


def leave(name: str) -> Any:
    """A function that adds `name` to the trail."""

    def extend(value: Any) -> Any:
        user_trail.set(f"{user_trail.get()} {name}")
        return value

    return extend


def trailing(recorder: Recorder) -> Crew:
    """A tool and every callback leave a trail."""

    def answer(x: int) -> str:
        return f"pong {leave('tool')(x)}"

    return solo(
        recorder,
        ONE,
        tools=[ping(recorder, answer)],
        task_options={"callback": recorder.callback("task", leave("task"))},
        crew_options={
            "before_kickoff_callbacks": [recorder.callback("before", leave("before"))],
            "after_kickoff_callbacks": [recorder.callback("after", leave("after"))],
            "step_callback": recorder.callback("step", leave("step")),
        },
    )


CASE = Case("a trail", trailing, hooks=True)


def trails(recording: Recording) -> list[tuple[str, list[str]]]:
    """What each hook, model, tool and callback saw of the trail."""
    return [(name, context["user trail"].split()) for _, name, context in recording.contexts]


@pytest.mark.parametrize("way", OURS["crew"], ids=lambda value: value.name)
def test_what_a_callback_sets_is_seen_by_what_follows(way: Way) -> None:
    recording = record(CASE, way)
    seen = dict(trails(recording))
    assert seen["ping"] == ["before"]
    assert seen["post_model_call"] == ["before", "step", "step"]
    assert seen["after"] == ["before", "step", "step", "task"]


@pytest.mark.parametrize("way", OURS["crew"], ids=lambda value: value.name)
def test_what_a_tool_sets_stays_in_the_tool(way: Way) -> None:
    assert not any("tool" in trail for _, trail in trails(record(CASE, way)))


def test_stock_forgets_what_a_step_set() -> None:
    seen = trails(stock_recording(CASE, "akickoff"))
    assert ("post_tool_call", ["before", "tool"]) in seen
    assert dict(seen)["post_model_call"] == ["before"]
    assert dict(seen)["after"] == ["before", "task"]
