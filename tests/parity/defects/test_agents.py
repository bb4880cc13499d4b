"""Defects of CrewAI around an agent's run: guardrails, conversions, planning, human input, a crew for each input."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from crewai import Crew
from crewai.core.providers.human_input import set_provider
from crewai.events.event_bus import crewai_event_bus
from crewai.events.types.agent_events import LiteAgentExecutionStartedEvent
from crewai.state.checkpoint_config import CheckpointConfig

from ..cases.agents import refuse_once
from ..cases.building import agent, solo
from ..cases.tasks import REPORT, Report, planned
from ..models import CallOnlyModel, ScriptedModel, final
from ..recorder import Recorder, fresh_context
from ..ways import OURS, STOCK, Way, installation
from .roads import INPUTS, ON_THE_LOOP, handling, once, ours, run, stock


# That stock CrewAI raises AttributeError here is shown in test_found.
def test_an_agent_is_asked_again_on_a_loop() -> None:
    recorder = Recorder()
    with installation(OURS["agent"][0]):
        refused = agent(recorder, [final("one"), final("two")], guardrail=refuse_once(recorder))
        assert fresh_context().run(asyncio.run, refused.kickoff_async("hi")).raw == "better"


class Judge(ScriptedModel):
    """Notes whether the caller's loop goes round while it is asked."""

    def on(self, loop: asyncio.AbstractEventLoop) -> Judge:
        object.__setattr__(self, "callers", loop)
        return self

    def call(self, *args: Any, **kwargs: Any) -> Any:
        free = threading.Event()
        self.callers.call_soon_threadsafe(free.set)
        object.__setattr__(self, "loop_was_free", free.wait(0.3))
        return super().call(*args, **kwargs)

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        free = threading.Event()
        self.callers.call_soon_threadsafe(free.set)
        for _ in range(30):
            if not free.is_set():
                await asyncio.sleep(0.01)
        object.__setattr__(self, "loop_was_free", free.is_set())
        return await super().acall(*args, **kwargs)


async def _loop_during_a_guardrail(kickoff: Any) -> bool:
    judge = Judge.of(Recorder(), ['{"valid": true}']).on(asyncio.get_running_loop())
    crew = solo(Recorder(), [final("done")], task_options={"guardrail": "short"})
    crew.tasks[0]._guardrail.llm = judge
    assert (await kickoff(crew, INPUTS)).raw == "done"
    return bool(judge.loop_was_free)


@stock("akickoff")
def test_stock_stops_the_loop_while_a_guardrail_in_words_is_asked(way: Way) -> None:
    assert not run(way, _loop_during_a_guardrail)


@ours(*ON_THE_LOOP)
def test_the_loop_is_free_while_a_guardrail_in_words_is_asked(way: Way) -> None:
    assert run(way, _loop_during_a_guardrail)


def _of_a_model_with_only_call() -> Crew:
    model = CallOnlyModel.of(Recorder(), [final("three pages on tea"), REPORT])
    return solo(Recorder(), [], llm=model, task_options={"output_pydantic": Report})


@stock("akickoff")
def test_stock_cannot_convert_with_a_model_that_has_only_call(way: Way) -> None:
    with pytest.raises(Exception, match="Failed to convert text"):
        once(way, _of_a_model_with_only_call())


@ours()
def test_a_model_that_has_only_call_converts(way: Way) -> None:
    result = once(way, _of_a_model_with_only_call())
    assert result.pydantic == Report(title="Tea", pages=3)


@stock("akickoff")
def test_stock_cannot_plan_on_a_loop(way: Way) -> None:
    with pytest.raises(RuntimeError, match="running event loop"):
        once(way, planned(Recorder()))


@ours(*ON_THE_LOOP)
def test_a_crew_is_planned_on_a_loop(way: Way) -> None:
    crew = planned(Recorder())
    once(way, crew)
    assert crew.tasks[0].description == "Job 0 about tea By steps."


class Human:
    """Wants more, once, and knows nothing of loops."""

    def setup_messages(self, context: Any) -> bool:
        return False

    def post_setup_messages(self, context: Any) -> None:
        return None

    def handle_feedback(self, formatted_answer: Any, context: Any) -> Any:
        context.messages.append(context._format_feedback_message("more"))
        return context._invoke_loop()


async def _reviewed(kickoff: Any) -> str:
    set_provider(Human())  # type: ignore[arg-type]
    crew = solo(Recorder(), [final("one"), final("two"), *[final("again")] * 4], task_options={"human_input": True})
    return str((await kickoff(crew, INPUTS)).raw)


@stock("akickoff")
def test_stock_cannot_ask_a_sync_human_on_a_loop(way: Way) -> None:
    with pytest.raises(AttributeError, match="handle_feedback_async"):
        run(way, _reviewed)


@ours()
def test_a_sync_human_is_asked(way: Way) -> None:
    assert run(way, _reviewed) == "two"


def _started(folder: Path) -> int:
    """How many started events two kickoffs of an agent that writes checkpoints have."""
    seen: list[Any] = []

    def handler(source: Any, event: LiteAgentExecutionStartedEvent) -> None:
        seen.append(event)

    writer = agent(Recorder(), [final("one"), final("two")])
    config = CheckpointConfig(location=str(folder), on_events=["lite_agent_execution_completed"])
    with handling(handler, LiteAgentExecutionStartedEvent):
        for _ in range(2):
            fresh_context().run(writer.kickoff, "hi", from_checkpoint=config)
            crewai_event_bus.flush()
    return len(seen)


def test_stock_takes_an_agent_that_writes_checkpoints_for_a_restored_one(tmp_path: Path) -> None:
    assert _started(tmp_path) == 1


def test_each_kickoff_of_an_agent_that_writes_checkpoints_is_started(tmp_path: Path) -> None:
    with installation(OURS["agent"][0]):
        assert _started(tmp_path) == 2


class Parting(ScriptedModel):
    """Fails for one input and keeps the others waiting."""

    def hold(self) -> Parting:
        object.__setattr__(self, "release", threading.Event())
        return self

    def __copy__(self) -> Parting:
        return self

    def call(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
        if "coffee" not in str(messages):
            self.release.wait(30)
        raise RuntimeError("no coffee")

    async def acall(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
        if "coffee" not in str(messages):
            await asyncio.sleep(30)
        raise RuntimeError("no coffee")


async def _left_behind_an_error(kickoff: Any) -> bool:
    model = Parting.of(Recorder(), []).hold()
    crew = solo(Recorder(), [], llm=model, max_retry_limit=0)
    with pytest.raises(RuntimeError, match="no coffee"):
        await kickoff(crew, [INPUTS, {"topic": "coffee"}])
    left = asyncio.all_tasks() - {asyncio.current_task()}
    model.release.set()
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    return bool(left)


@pytest.mark.parametrize("way", [way for way in STOCK["each"] if way.awaited], ids=lambda way: way.name)
def test_stock_leaves_the_other_inputs_running(way: Way) -> None:
    assert run(way, _left_behind_an_error)


@pytest.mark.parametrize("way", [way for way in OURS["each"] if way.awaited], ids=lambda way: way.name)
def test_the_other_inputs_are_cancelled(way: Way) -> None:
    assert not run(way, _left_behind_an_error)
