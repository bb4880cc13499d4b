from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from crewai.agents.parser import AgentAction
from crewai.security.fingerprint import Fingerprint

from fastcrew_async.engine.react import _new_fingerprint, run_text_tool
from fastcrew_async.engine.tool_call import RunTool
from tests import crews
from tests.engine.test_loop import executor


def acting(tool: str, tool_input: str, **fields: Any) -> Any:
    made = executor(tools=[crews.ping], **fields)
    made.state.current_answer = AgentAction(
        thought="x", tool=tool, tool_input=tool_input, text=f"Action: {tool}\nAction Input: {tool_input}"
    )
    return made


def ended(running: Any, answer: Any = None) -> bool:
    try:
        running.send(answer)
    except StopIteration as stop:
        return bool(stop.value)
    raise AssertionError("one more effect was asked for")


def test_the_observation_and_the_prompt_to_go_on_follow_the_action() -> None:
    made = acting("ping", '{"text": "tea"}')
    running = run_text_tool(made)
    assert type(running.send(None)) is RunTool
    assert ended(running, "pong tea") is False
    observed, go_on = made.state.messages[-2:]
    assert observed["content"].endswith("Observation: pong tea")
    assert go_on["role"] == "user"
    assert made.state.current_answer.result == "pong tea"


def test_a_tool_that_is_not_there_asks_for_no_effect() -> None:
    made = acting("gone", "{}")
    assert ended(run_text_tool(made)) is False
    assert "gone" in made.state.messages[-2]["content"]


def test_the_same_call_again_is_answered_without_running_it() -> None:
    made = acting("ping", '{"text": "tea"}')
    running = run_text_tool(made)
    running.send(None)
    ended(running, "pong tea")
    action = made.state.current_answer
    made.state.current_answer = AgentAction(thought="x", tool="ping", tool_input='{"text": "tea"}', text=action.text)
    assert ended(run_text_tool(made)) is False
    assert "reusing the same input" in made.state.messages[-2]["content"]


def test_a_failing_tool_is_tried_six_times_as_in_crewai() -> None:
    made = acting("ping", '{"text": "tea"}')
    running = run_text_tool(made)
    running.send(None)
    tries = 0
    answered = None
    while answered is None:
        tries += 1
        try:
            running.throw(ValueError("broken"))
        except StopIteration as stop:
            answered = stop.value
    assert answered is False
    assert tries == 6
    assert "broken" in made.state.messages[-2]["content"]
    assert made.task.tools_errors == 3


def test_a_tool_use_gives_the_agent_a_fingerprint_as_crewai_makes_one() -> None:
    before = datetime.now()
    ours, theirs = _new_fingerprint(), Fingerprint.from_dict({"agent_fingerprint": "a"})
    assert type(ours) is Fingerprint
    assert ours.metadata == theirs.metadata == {}
    assert ours.model_dump() == theirs.model_dump()
    assert ours.model_fields_set == theirs.model_fields_set
    assert UUID(ours.uuid_str).version == UUID(theirs.uuid_str).version == 4
    assert before <= ours.created_at <= datetime.now()
    assert ours != _new_fingerprint()
    ours.metadata["a"] = 1
    assert _new_fingerprint().metadata == {}
