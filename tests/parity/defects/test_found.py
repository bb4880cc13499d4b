"""Defects found while comparing."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from ..cases.building import agent, solo
from ..cases.failures import TOO_LONG
from ..models import action, final
from ..recorder import Recorder, fresh_context
from ..tools import ping
from ..ways import Way
from .roads import once, ours, stock


# A text-form agent whose context overflows is ended, or repeats its last action, by CrewAI.
def _too_long_once(recorder: Recorder) -> Any:
    return solo(recorder, [TOO_LONG, "the summary", final("done")])


@stock()
def test_stock_ends_a_text_agent_whose_context_overflows(way: Way) -> None:
    raw = once(way, _too_long_once(Recorder())).raw
    assert raw == "Agent completed execution but produced no final output."


@ours()
def test_a_text_agent_goes_on_with_a_summary(way: Way) -> None:
    assert once(way, _too_long_once(Recorder())).raw == "done"


@ours()
def test_a_text_agent_goes_on_with_a_summary_after_a_tool(way: Way) -> None:
    recorder = Recorder()
    script = [action("ping", x=1), TOO_LONG, "<summary>so far</summary>", final("done")]
    assert once(way, solo(recorder, script, tools=[ping(recorder)])).raw == "done"
    last = [entry.body["messages"] for entry in recorder.entries if entry.kind == "model"][-1]
    assert "so far" in str(last)


# max_iter=0: CrewAI's flow engine allows each of its steps max_iter * 10 times.
@stock()
def test_stock_takes_max_iter_0_for_an_endless_loop(way: Way) -> None:
    with pytest.raises(RecursionError, match="infinite loop"):
        once(way, solo(Recorder(), [final("done")], max_iter=0))


@ours()
def test_max_iter_0_asks_for_the_final_answer_at_once(way: Way) -> None:
    recorder = Recorder()
    assert once(way, solo(recorder, [final("done")], tools=[ping(recorder)], max_iter=0)).raw == "done"
    assert [entry.kind for entry in recorder.entries] == ["model"]


# A StopIteration of a model or a callback cannot pass a future, and CrewAI waits for it for ever.
@ours()
def test_a_stop_iteration_of_a_model_ends_the_run(way: Way) -> None:
    with pytest.raises(RuntimeError, match="StopIteration"):
        once(way, solo(Recorder(), [StopIteration("s")], max_retry_limit=0))


@ours()
def test_a_stop_iteration_of_a_callback_ends_the_run(way: Way) -> None:
    with pytest.raises(RuntimeError, match="StopIteration"):
        once(way, solo(Recorder(), [final("done")], task_options={"callback": lambda output: next(iter(()))}))


# An agent's guardrail cannot ask for another answer on a loop in CrewAI.
def test_stock_cannot_retry_an_agents_guardrail_on_a_loop() -> None:
    left = [(False, "no"), (True, "better")]
    guarded = agent(Recorder(), [final("one"), final("two")], guardrail=lambda output: left.pop(0))
    with pytest.warns(RuntimeWarning, match="never awaited"):
        _fails(guarded)


def _fails(guarded: Any) -> None:
    with pytest.raises(AttributeError, match="coroutine"):
        fresh_context().run(asyncio.run, guarded.kickoff_async("hi"))
    gc.collect()  # what was never awaited says so now
