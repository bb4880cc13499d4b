from __future__ import annotations

import asyncio
import copy
from pathlib import Path

import pytest
from crewai import Agent, Crew, Task
from crewai.tools import tool

from fastcrew_async.testing import Reply, Request, ScriptedLLM, ToolCall


@tool("ping")
def ping(x: int) -> str:
    """Answers pong with the number."""
    return f"pong {x}"


def use_the_tool_once(request: Request) -> Reply | str:
    return "done" if "pong 3" in request.text else Reply(tool_calls=[ToolCall("ping", {"x": 3})])


@pytest.mark.parametrize("native", [True, False])
def test_runs_a_crew_with_a_tool(native: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREWAI_STORAGE_DIR", str(tmp_path))
    llm = ScriptedLLM(use_the_tool_once, native=native)
    agent = Agent(role="Researcher", goal="Find out", backstory="Curious", llm=llm, tools=[ping])
    task = Task(description="Ping", expected_output="A word", agent=agent)
    result = Crew(agents=[agent], tasks=[task]).kickoff()
    assert result.raw == "done"
    assert len(llm.requests) == 2
    assert (llm.requests[0].tools == ["ping"]) is native
    assert result.token_usage.total_tokens == 30


def test_call_and_acall_follow_one_script() -> None:
    llm = ScriptedLLM(["one", "two"], native=True)
    assert llm.call("first?") == "one"
    assert asyncio.run(llm.acall([{"role": "user", "content": "second?"}])) == "two"
    assert [request.text for request in llm.requests] == ["first?", "second?"]


def test_copies_share_script_and_log() -> None:
    llm = ScriptedLLM(["one", "two"], native=True)
    assert [copy.copy(llm).call("a"), llm.call("b")] == ["one", "two"]
    assert len(llm.requests) == 2


def test_a_refusal_raises() -> None:
    with pytest.raises(RuntimeError, match="status 503: overloaded"):
        ScriptedLLM(Reply("overloaded", status=503)).call("?")


def test_negative_latency_is_refused() -> None:
    with pytest.raises(ValueError, match=r"not -0\.5"):
        ScriptedLLM("ok", latency=-0.5)


def test_tokens_are_estimated() -> None:
    llm = ScriptedLLM("ok")
    assert llm.get_input_tokens_count("12345") == 2
    assert llm.get_input_tokens_count([{"role": "user", "content": "1234"}, {"role": "assistant"}]) == 1


def test_a_tool_call_alone_is_a_reply_and_anything_else_is_refused() -> None:
    llm = ScriptedLLM([ToolCall("search", {"q": 1}), 5])  # type: ignore[list-item]
    assert "Action: search" in llm.call("x")
    with pytest.raises(TypeError, match="must be a str, a Reply or a ToolCall, got 5"):
        llm.call("x")
