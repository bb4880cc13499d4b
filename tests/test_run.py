from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from crewai import Agent, Crew, Task
from crewai.events import CrewKickoffFailedEvent, crewai_event_bus
from crewai.tools import tool

from fastcrew_async import AsyncCrew, RunState, workers
from fastcrew_async.engine.kickoff import kickoff_in_place
from fastcrew_async.errors import FastcrewError, RunTimeoutError
from fastcrew_async.testing import Reply, ScriptedLLM, ToolCall
from tests import crews
from tests.crews import storage
from tests.test_crew import TOPICS, Held, failing_on, held

__all__ = ["storage"]


async def until(true: Any) -> None:
    async def poll() -> None:
        while not true():
            await asyncio.sleep(0.001)

    await asyncio.wait_for(poll(), 10)


async def test_a_run_is_awaited_for_its_output() -> None:
    run = AsyncCrew(crews.crew(crews.echo)).start(TOPICS[0])
    assert run.status == "running"
    output = await asyncio.wait_for(run, 10)
    assert TOPICS[0]["topic"] in output.raw
    assert run.status == "done"
    taken = run.seconds
    assert taken > 0
    await asyncio.sleep(0.01)
    assert run.seconds == taken
    assert run.id in repr(run)


async def test_a_run_that_nobody_holds_goes_on() -> None:
    llm, crew = held()
    ended = asyncio.Event()
    crew.start(TOPICS[0]).task.add_done_callback(lambda _: ended.set())
    await until(lambda: llm.__dict__["inside"])
    llm.__dict__["open"].set()
    await asyncio.wait_for(ended.wait(), 10)


async def test_a_run_can_be_cancelled_and_the_crew_used_again() -> None:
    llm, crew = held()
    run = crew.start(TOPICS[0])
    await until(lambda: llm.__dict__["inside"])
    assert run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(run, 10)
    assert (run.status, llm.__dict__["cancelled"]) == ("cancelled", 1)
    assert not run.cancel()
    llm.__dict__["open"].set()
    assert (await asyncio.wait_for(crew.kickoff(TOPICS[1]), 10)).raw  # type: ignore[union-attr]


async def test_a_run_can_be_cancelled_from_any_thread() -> None:
    asyncio.get_running_loop().set_debug(True)  # it raises where a thread does what only its own may
    llm, crew = held()
    run = crew.start(TOPICS[0])
    await until(lambda: llm.__dict__["inside"])
    assert await asyncio.to_thread(run.cancel)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(run, 10)
    assert not await asyncio.to_thread(run.cancel)


async def test_a_run_is_not_awaited_on_another_loop_and_not_harmed_by_the_try() -> None:
    llm, crew = held()
    run = crew.start(TOPICS[0])
    await until(lambda: llm.__dict__["inside"])

    async def elsewhere() -> None:
        await run

    with pytest.raises(RuntimeError, match="runs on another event loop; await it there"):
        await asyncio.to_thread(asyncio.run, elsewhere())
    llm.__dict__["open"].set()
    await run
    assert run.status == "done"


async def test_a_run_that_fails() -> None:
    run = AsyncCrew(crews.crew(failing_on("topic 0"))).start(TOPICS[0])
    with pytest.raises(Exception, match="no"):
        await asyncio.wait_for(run, 10)
    assert run.status == "failed"


async def test_a_run_past_its_timeout_is_cancelled() -> None:
    failures: list[Any] = []
    llm, crew = held()
    with crewai_event_bus.scoped_handlers():

        @crewai_event_bus.on(CrewKickoffFailedEvent)
        def failed(source: Any, event: Any) -> None:
            failures.append(event.error)

        with pytest.raises(RunTimeoutError, match=r"did not end within 0\.05 seconds") as raised:
            await asyncio.wait_for(crew.kickoff(TOPICS[0], timeout=0.05), 10)
        await until(lambda: failures)
    assert isinstance(raised.value, FastcrewError)
    assert isinstance(raised.value, TimeoutError)
    assert failures == ["cancelled"]
    assert (llm.__dict__["inside"], llm.__dict__["cancelled"]) == (0, 1)
    run = crew.start(TOPICS[0], timeout=0.05)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(run, 10)
    assert run.status == "timed out"
    llm.__dict__["open"].set()
    assert (await asyncio.wait_for(crew.kickoff(TOPICS[1], timeout=60), 10)).raw  # type: ignore[union-attr]


async def test_a_cancel_comes_through_a_timeout() -> None:
    llm, crew = held()
    task = asyncio.create_task(crew.kickoff(TOPICS[0], timeout=60))
    await until(lambda: llm.__dict__["inside"])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 10)
    assert llm.__dict__["cancelled"] == 1


async def test_in_a_batch_each_run_has_its_own_timeout() -> None:
    crew = AsyncCrew(crews.crew(llm=Held(at="topic 1")))
    results = await asyncio.wait_for(
        crew.kickoff_for_each(TOPICS[:3], timeout=2.0, return_exceptions=True, priority=-1), 20
    )
    assert [isinstance(result, RunTimeoutError) for result in results] == [False, True, False]


@pytest.mark.parametrize("wrong", [0, -1, "5", True, float("nan"), float("inf"), 10**400])
async def test_a_timeout_that_is_none_is_refused_before_anything_starts(wrong: Any) -> None:
    llm, crew = held()
    with pytest.raises(ValueError, match="must be a number of seconds above 0"):
        await crew.kickoff(TOPICS[0], timeout=wrong)
    with pytest.raises(ValueError, match="must be a number of seconds above 0"):
        crew.start(TOPICS[0], timeout=wrong)
    assert not llm.__dict__["asked"]


async def test_a_priority_that_is_none_is_refused() -> None:
    with pytest.raises(TypeError, match="priority='high' must be a whole number"):
        AsyncCrew(crews.crew()).start(TOPICS[0], priority="high")  # type: ignore[arg-type]


def test_without_a_loop_there_is_no_run() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        AsyncCrew(crews.crew()).start(TOPICS[0])


@pytest.mark.parametrize(
    ("reply", "fields"),
    [
        ("Thought: done\nFinal Answer: inner", {}),
        ("Thought: I need it\nAction: look\nAction Input: {}", {}),
        ([ToolCall("look", {})], {"native": True}),
        ("Thought: done\nFinal Answer: inner", {"planning": True}),
    ],
    ids=["before the next task", "before a tool", "before a function", "while it plans"],
)
async def test_a_crew_that_a_tool_has_kicked_off_does_nothing_after_the_cancel(reply: Any, fields: Any) -> None:
    """The tool is sync, so its thread cannot be stopped: it is left, and what it runs starts nothing further, whatever
    an agent makes of the refusal."""
    asked: list[str] = []
    used: list[str] = []
    inside, go, ended = threading.Event(), threading.Event(), threading.Event()
    raised: list[BaseException] = []

    def answer(request: Any) -> Any:
        asked.append(request.text)
        inside.set()
        go.wait(10)
        return Reply(tool_calls=reply) if isinstance(reply, list) else reply

    @tool("look")
    def look() -> str:
        """Is not to run."""
        used.append("look")
        return "seen"

    worker = crews.agent(answer, tools=[look], **fields)
    inner = Crew(
        agents=[worker],
        tasks=[Task(description=f"part {n}", expected_output="e", agent=worker) for n in range(2)],
    )

    @tool("research")
    def research(topic: str) -> str:
        """Kicks a crew of two tasks off."""
        try:
            return str(kickoff_in_place(inner, {}))
        except BaseException as error:
            raised.append(error)
            raise
        finally:
            ended.set()

    llm = ScriptedLLM([ToolCall("research", {"topic": "x"}), "never asked"])
    boss = Agent(role="boss", goal="g", backstory="b", llm=llm, tools=[research])
    crew = Crew(agents=[boss], tasks=[Task(description="find", expected_output="e", agent=boss)])
    abandoned = workers.pool().stats()["abandoned"]
    run = AsyncCrew(crew).start()
    await until(inside.is_set)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(run, 10)
    assert workers.pool().stats()["abandoned"] == abandoned + 1
    go.set()
    await until(ended.is_set)
    assert (len(asked), used) == (1, [])
    assert "abandoned" in str(raised[0])


async def test_its_state_is_a_document() -> None:
    run = AsyncCrew(crews.crew(crews.echo, tasks=2)).start(TOPICS[0])
    begun = run.state()
    assert (begun.status, begun.outputs, begun.inputs) == ("running", [], TOPICS[0])
    output = await asyncio.wait_for(run, 10)
    state = run.state()
    assert (state.id, state.status, state.seconds) == (run.id, "done", run.seconds)
    assert [task.raw for task in state.task_outputs()] == [task.raw for task in output.tasks_output]
    assert state.messages == [message for task in output.tasks_output for message in task.messages] != []
    assert state.usage == output.token_usage.model_dump()
    assert RunState.from_msgpack(state.to_msgpack()) == state


async def test_the_state_of_a_run_that_failed_says_why() -> None:
    run = AsyncCrew(crews.crew(crews.refusing(1000))).start(TOPICS[0])
    with pytest.raises(Exception, match=r".") as caught:
        await asyncio.wait_for(run, 10)
    assert (run.state().status, run.state().error) == ("failed", str(caught.value))


async def test_the_state_of_a_run_on_its_way_has_what_is_done_and_what_is_being_said() -> None:
    llm = Held(at="Step 1")
    run = AsyncCrew(crews.crew(llm=llm, tasks=2)).start(TOPICS[0])
    await until(lambda: llm.__dict__["inside"])
    state = run.state()
    assert (state.status, len(state.outputs)) == ("running", 1)
    done = state.task_outputs()[0].messages
    assert state.messages[: len(done)] == done
    assert [said["role"] for said in state.messages[len(done) :]] == ["system", "user"]
    assert RunState.from_json(state.to_json()) == state
    llm.__dict__["open"].set()
    output = await asyncio.wait_for(run, 10)
    assert len(run.state().outputs) == len(output.tasks_output) == 2


async def test_the_state_of_a_run_that_ended_early_has_what_was_said_until_then() -> None:
    llm, crew = held()
    run = crew.start(TOPICS[0])
    await until(lambda: llm.__dict__["inside"])
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(run, 10)
    state = run.state()
    assert (state.status, state.outputs) == ("cancelled", [])
    assert [said["role"] for said in state.messages] == ["system", "user"]
    llm.__dict__["open"].set()
    assert await asyncio.wait_for(crew.kickoff(TOPICS[1]), 10)
    assert run.state().messages == state.messages


async def test_the_crew_inside_a_run_is_not_the_run() -> None:
    inner = AsyncCrew(crews.crew(crews.echo))

    @tool("inner")
    async def inside() -> str:
        """Kicks a crew off."""
        return (await inner.kickoff(TOPICS[1])).raw  # type: ignore[union-attr]

    llm = ScriptedLLM([Reply(tool_calls=[ToolCall("inner", {})]), Reply("done")], native=True)
    run = AsyncCrew(crews.crew(llm=llm, tools=[inside])).start(TOPICS[0])
    await asyncio.wait_for(run, 10)
    assert [output.raw for output in run._progress.outputs] == ["done"]
    assert run.state().messages == run.state().task_outputs()[0].messages
    assert [call["name"] for call in run.state().tool_calls] == ["inner"]


@pytest.mark.parametrize(("order", "side_by_side", "first"), [("graph", (), ["1", "2"]), ("listed", (0, 1), ["1"])])
async def test_the_outputs_so_far_are_in_the_order_of_the_list(order: Any, side_by_side: Any, first: Any) -> None:
    llm = Held(at="Job about 0")
    worker = crews.agent(llm=llm)
    tasks = [
        crews.task(worker, description=f"Job about {n}.", context=[], async_execution=n in side_by_side)
        for n in range(3)
    ]
    run = AsyncCrew(Crew(agents=[worker], tasks=tasks), order=order).start()
    await until(lambda: len(run.state().outputs) == len(first))
    assert [output.raw for output in run.state().task_outputs()] == first
    llm.__dict__["open"].set()
    await until(lambda: run.status == "done")
    assert [output.raw for output in run.state().task_outputs()] == ["0", "1", "2"]


async def test_the_messages_are_those_of_each_try_and_of_coworkers() -> None:
    tries: list[Any] = []

    def refuse_once(output):  # type: ignore[no-untyped-def]  # CrewAI reads annotations
        tries.append(output)
        return len(tries) > 1, output.raw

    def lead(request: Any) -> Any:
        coworker = {"task": "look", "context": "here", "coworker": "Helper"}
        if request.tool_results:
            return "done"
        return Reply(tool_calls=[ToolCall("delegate_work_to_coworker", coworker)])

    leader = crews.agent(lead, role="Leader", native=True, allow_delegation=True)
    helper = crews.agent("looked", role="Helper", native=True)
    task = crews.task(leader, guardrail=refuse_once)
    for _ in range(2):  # the second crew has agents whose executors were made for the first one
        tries.clear()
        run = AsyncCrew(Crew(agents=[leader, helper], tasks=[task])).start(TOPICS[0])
        await asyncio.wait_for(run, 10)
        state = run.state()
        assert [said["role"] for said in state.messages].count("system") == 4  # two tries, a coworker in each
        assert [(call["name"], call["result"]) for call in state.tool_calls] == [
            ("delegate_work_to_coworker", "looked")
        ] * 2
        assert RunState.from_protobuf(state.to_protobuf()) == state
