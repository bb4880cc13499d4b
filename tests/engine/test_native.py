from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from crewai.hooks.dispatch import HookAborted
from crewai.tools.tool_failure import ToolExecutionFailedError
from crewai.utilities.agent_utils import extract_tool_call_info

from fastcrew_async.engine.branches import Together
from fastcrew_async.engine.native import PARALLEL_CALLS, _info, run_native_tools
from fastcrew_async.engine.tool_call import RunTool
from tests import crews
from tests.engine.test_loop import executor, native_call


def pending(*calls: Any, **fields: Any) -> Any:
    made = executor(native=True, tools=[crews.ping], **fields)
    made._setup_native_tools()
    made.state.pending_tool_calls = list(calls)
    return made


def test_one_assistant_message_reports_all_calls_that_can_be_read() -> None:
    made = pending(native_call(0), object(), native_call(1))
    running = run_native_tools(made)
    effect = running.send(None)
    assert type(effect) is Together
    assert (len(effect.works), effect.limit) == (2, PARALLEL_CALLS)
    assert [call["id"] for call in made.state.messages[-1]["tool_calls"]] == ["c0", "c1"]
    assert made.state.pending_tool_calls == []
    for work in effect.works:
        work.close()
    running.close()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"id": "x", "function": {"name": "gone", "arguments": "{}"}}, "not found"),
        ({"id": "x", "function": {"name": "ping", "arguments": "{not json"}}, "Error"),
    ],
)
def test_a_call_that_cannot_run_is_answered_without_any_effect(call: Any, said: str) -> None:
    made = pending(call)
    with pytest.raises(StopIteration) as stopped:
        run_native_tools(made).send(None)
    assert stopped.value.value is False
    assert said in made.state.messages[-1]["content"]
    assert made.state.messages[-1]["tool_call_id"] == "x"


def test_an_error_of_one_parallel_call_is_its_text_and_deliberate_stops_end_them_all() -> None:
    running = run_native_tools(pending(native_call(0), native_call(1)))
    effect: Any = running.send(None)
    assert effect.stops == (HookAborted, ToolExecutionFailedError)
    work = effect.works[0]
    assert type(work.send(None)) is RunTool
    with pytest.raises(StopIteration) as ended:
        work.throw(ValueError("broken"))
    assert ended.value.value["result"] == "Error executing tool: broken"
    effect.works[1].close()
    running.close()


_FUNCTION = SimpleNamespace(name="Search The Web", arguments='{"query": "a"}')


@pytest.mark.parametrize(
    "call",
    [
        {"id": "a", "function": {"name": "SearchWeb", "arguments": '{"query": "a"}'}},
        {"id": "fc_1", "call_id": "call_1", "name": "search", "arguments": "{}"},
        {"toolUseId": "b", "name": "search", "input": {"query": "a"}},
        {"name": "search"},
        {},
        SimpleNamespace(id="c", function=_FUNCTION),
        SimpleNamespace(id=None, function=_FUNCTION),
        SimpleNamespace(function=_FUNCTION),
        SimpleNamespace(function_call=SimpleNamespace(name="search", args={"query": "a"})),
        SimpleNamespace(id="d", name="search", input={"query": "a"}),
        "no call",
    ],
)
def test_calls_are_read_as_crewai_reads_them(call: Any) -> None:
    assert _info(call) == extract_tool_call_info(call)
