"""The agent loop without any I/O: each effect it asks for is answered by hand."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from crewai.agents.parser import AgentFinish
from crewai.utilities.exceptions.context_window_exceeding_exception import LLMContextLengthExceededError
from pydantic import BaseModel

from fastcrew_async.engine.branches import Together
from fastcrew_async.engine.drivers import drive, drive_in_place
from fastcrew_async.engine.effects import Blocking, CallUser, Effect
from fastcrew_async.engine.equip import ready_executor, set_up_executor
from fastcrew_async.engine.executor import AgentExecutor
from fastcrew_async.engine.loop import agent_loop
from fastcrew_async.engine.model import CallModel
from fastcrew_async.engine.rate import WithinRate
from fastcrew_async.engine.tool_call import RunTool
from fastcrew_async.testing import Reply, ScriptedLLM, ToolCall
from tests import crews

ACTION = 'Thought: x\nAction: ping\nAction Input: {"text": "tea"}'
FINAL = "Thought: x\nFinal Answer: done"


def native_call(index: int = 0) -> dict[str, Any]:
    return {"id": f"c{index}", "type": "function", "function": {"name": "ping", "arguments": f'{{"text": "{index}"}}'}}


def executor(script: Any = "unused", **fields: Any) -> AgentExecutor:
    """An executor at the point where the agent loop begins."""
    worker = crews.agent(script, **fields)
    job = crews.task(worker)
    made: AgentExecutor = ready_executor(worker)
    set_up_executor(worker, worker.tools, job)
    made._reset()
    made._setup_messages({"input": "Job", "tool_names": made.tools_names, "tools": made.tools_description})
    return made


class Stepped:
    """A loop that is stepped by hand: ``expect`` names the effect that it asks for now, and answers it."""

    def __init__(self, made: AgentExecutor) -> None:
        self.executor = made
        self.loop = agent_loop(made)
        self.effect: Effect | None = self._step(lambda: self.loop.send(None))

    def _step(self, step: Any) -> Effect | None:
        try:
            effect: Effect = step()
        except StopIteration:
            return None
        return effect

    def expect(self, kind: type[Effect], answer: Any = None) -> Any:
        effect = self.effect
        assert type(effect) is kind
        if isinstance(effect, CallModel):
            effect.messages = list(effect.messages)  # as they are when the model is asked
        if isinstance(answer, Exception):
            self.effect = self._step(lambda: self.loop.throw(answer))
        else:
            self.effect = self._step(lambda: self.loop.send(answer))
        return effect

    def finished(self) -> Any:
        assert self.effect is None
        answer = self.executor.state.current_answer
        assert isinstance(answer, AgentFinish)
        assert self.executor.state.is_finished
        return answer.output


def test_a_text_answer_takes_one_call_of_the_model() -> None:
    loop = Stepped(executor())
    call = loop.expect(CallModel, FINAL)
    assert [message["role"] for message in call.messages] == ["system", "user"]
    assert loop.finished() == "done"


def test_the_rate_is_asked_before_the_model() -> None:
    made = executor(max_rpm=10)
    made.__dict__["request_within_rpm_limit"] = lambda: True
    loop = Stepped(made)
    loop.expect(WithinRate)
    loop.expect(CallModel, FINAL)
    assert loop.finished() == "done"


def test_a_tool_in_the_text_form() -> None:
    loop = Stepped(executor(tools=[crews.ping]))
    loop.expect(CallModel, ACTION)
    loop.expect(RunTool, "pong tea")
    call = loop.expect(CallModel, FINAL)
    assert "Observation: pong tea" in str(call.messages)
    assert loop.finished() == "done"
    assert loop.executor.state.iterations == 1


def test_a_tool_by_function_call() -> None:
    loop = Stepped(executor(tools=[crews.ping], native=True))
    first = loop.expect(CallModel, [native_call()])
    assert [tool["function"]["name"] for tool in first.kwargs["tools"]] == ["ping"]
    loop.expect(RunTool, "pong 0")
    call = loop.expect(CallModel, "done")
    assert call.messages[-1] == {"role": "tool", "tool_call_id": "c0", "name": "ping", "content": "pong 0"}
    assert loop.finished() == "done"


def test_several_function_calls_run_together() -> None:
    loop = Stepped(executor(tools=[crews.ping], native=True))
    loop.expect(CallModel, [native_call(0), native_call(1)])
    assert type(loop.effect) is Together
    works = loop.effect.works
    assert type(works[0].send(None)) is RunTool
    results = []
    for work, answer in zip(works, ("pong 0", "pong 1"), strict=True):
        assert work is works[0] or type(work.send(None)) is RunTool
        with pytest.raises(StopIteration) as stopped:
            work.send(answer)
        results.append(stopped.value.value)
    loop.expect(Together, results)
    call = loop.expect(CallModel, "done")
    assert [message["content"] for message in call.messages if message["role"] == "tool"] == ["pong 0", "pong 1"]
    assert loop.finished() == "done"


def test_a_tool_whose_result_is_the_answer_ends_it() -> None:
    loop = Stepped(executor(tools=[crews.ping.model_copy(update={"result_as_answer": True})]))
    loop.expect(CallModel, ACTION)
    loop.expect(RunTool, "pong tea")
    assert loop.finished() == "pong tea"


def test_an_error_of_a_tool_is_told_to_the_model() -> None:
    loop = Stepped(executor(tools=[crews.ping], native=True))
    loop.expect(CallModel, [native_call()])
    loop.expect(RunTool, ValueError("broken"))
    call = loop.expect(CallModel, "done")
    assert call.messages[-1]["content"] == "Error executing tool: broken"
    assert loop.finished() == "done"


def test_the_step_callback_is_told_of_each_step() -> None:
    loop = Stepped(executor(tools=[crews.ping], step_callback=repr))
    loop.expect(CallModel, ACTION)
    loop.expect(RunTool, "pong tea")
    told = [loop.expect(CallUser).args[0], loop.expect(CallUser).args[0]]
    assert told[0].result == "pong tea"
    assert told[1].tool == "ping"
    loop.expect(CallModel, FINAL)
    assert loop.finished() == "done"


def test_when_the_iterations_are_used_up_an_answer_is_forced() -> None:
    loop = Stepped(executor(tools=[crews.ping], max_iter=1))
    loop.expect(CallModel, ACTION)
    loop.expect(RunTool, "pong tea")
    forced = loop.expect(CallModel, FINAL)
    assert "tools" not in forced.kwargs
    assert len(forced.messages) == len(loop.executor.state.messages) + 1
    assert loop.finished() == "done"


def test_a_forced_answer_that_is_an_action_counts_as_the_answer() -> None:
    loop = Stepped(executor(max_iter=0))
    loop.expect(CallModel, ACTION)
    assert loop.finished() == ACTION


def test_no_forced_answer_is_an_error() -> None:
    loop = Stepped(executor(max_iter=0))
    with pytest.raises(ValueError, match="None or empty"):
        loop.expect(CallModel, "")


@pytest.mark.parametrize("native", [False, True])
def test_a_context_that_is_too_long_is_shortened_and_asked_again(native: bool) -> None:
    made = executor(tools=[crews.ping], native=native)
    loop = Stepped(made)
    loop.expect(CallModel, LLMContextLengthExceededError("context length exceeded"))
    shorten = loop.expect(Blocking)
    assert shorten.args[0] is made.state.messages
    loop.expect(CallModel, "done" if native else FINAL)
    assert loop.finished() == "done"
    assert made.state.iterations == 1


def test_a_context_that_is_too_long_is_an_error_where_it_is_not_respected() -> None:
    loop = Stepped(executor(respect_context_window=False))
    with pytest.raises(LLMContextLengthExceededError, match="opted not to summarize"):
        loop.expect(CallModel, LLMContextLengthExceededError("context length exceeded"))


def test_an_error_of_the_model_is_raised() -> None:
    loop = Stepped(executor())
    with pytest.raises(RuntimeError, match="down"):
        loop.expect(CallModel, RuntimeError("down"))


def test_a_model_without_functions_is_asked_in_text_from_then_on() -> None:
    loop = Stepped(executor(tools=[crews.ping], native=True))
    loop.expect(CallModel, RuntimeError("this model does not support tools"))
    again = loop.expect(CallModel, ACTION)
    assert again.kwargs["tools"] is None
    loop.expect(RunTool, "pong tea")
    loop.expect(CallModel, FINAL)
    assert loop.finished() == "done"


def test_a_model_object_is_the_answer() -> None:
    class Answer(BaseModel):
        text: str

    loop = Stepped(executor())
    answer = Answer(text="done")
    loop.expect(CallModel, answer)
    assert loop.finished() is answer


@pytest.mark.parametrize("native", [False, True])
def test_both_drivers_give_the_same(native: bool) -> None:
    def script() -> ScriptedLLM:
        calls = [ToolCall("ping", {"text": "tea"}), ToolCall("ping", {"text": "milk"})]
        return ScriptedLLM([Reply(tool_calls=calls), Reply(tool_calls=calls[1:]), "done"], native=native)

    in_place, on_loop = (executor(llm=script(), tools=[crews.ping]) for _ in range(2))
    drive_in_place(agent_loop(in_place))
    asyncio.run(drive(agent_loop(on_loop)))
    first, second = in_place.state, on_loop.state
    assert first.messages == second.messages
    assert first.current_answer == second.current_answer
    assert (first.iterations, first.is_finished) == (second.iterations, second.is_finished) == (2, True)
    asked = [[request.messages for request in made.llm.requests] for made in (in_place, on_loop)]
    assert asked[0] == asked[1]
