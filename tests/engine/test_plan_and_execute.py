from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any

import pytest
from crewai import Crew
from crewai.agent.planning_config import PlanningConfig
from crewai.agents import planner_observer, step_executor
from crewai.agents.planner_observer import PlannerObserver
from crewai.agents.step_executor import StepExecutor
from crewai.tools import tool
from crewai.utilities import reasoning_handler
from crewai.utilities.planning_types import PlanStep, StepObservation
from crewai.utilities.reasoning_handler import AgentReasoning, AgentReasoningOutput, ReasoningPlan
from crewai.utilities.step_execution_context import StepResult

import fastcrew_async
from fastcrew_async import AsyncCrew, workers
from fastcrew_async.engine import plan_and_execute
from fastcrew_async.engine.executor import AgentExecutor
from fastcrew_async.testing import Reply, Request, ScriptedLLM, ToolCall
from tests import crews
from tests.chaos.witness import current_run, witnessed

ORDERED = [(1, "first", []), (2, "second", [1])]
BESIDE = [(1, "first", []), (2, "second", [])]
SEEN = json.dumps({"step_completed_successfully": True})


def plan(steps: list[Any]) -> str:
    told = [{"step_number": number, "description": text, "depends_on": after} for number, text, after in steps]
    return json.dumps({"plan": "the plan", "steps": told, "ready": True})


def script(steps: Any = ORDERED, *, use: str = "", observed: str = SEEN) -> Any:
    """A plan, a word for each step (after a call of the tool `use`), an observation of each, and a last word."""

    def answer(request: Request) -> Reply | str:
        text = request.text
        if "## Planning Principles" in text:
            return plan(steps)
        if "observing execution progress" in text:
            return observed
        if "Current Step" not in text:
            return "the end"
        if use and not request.tool_results:
            return Reply(tool_calls=[ToolCall(use)])
        return "did " + text.partition("Current Step\n")[2].partition("\n")[0]

    return answer


def replanned(steps: Any) -> Any:
    """The same with the tool ``look``; the last of `steps` fails, and one more step takes its place."""
    first = script(steps, use="look")
    planned: set[str] = set()  # runs that have had their first plan

    def answer(request: Request) -> Reply | str:
        text = request.text
        if "## Planning Principles" in text and current_run.get() in planned:
            return plan([(3, "third", [])])
        planned.add(current_run.get())
        failed = "observing execution progress" in text and "did second" in text and "third" not in text
        return json.dumps({"step_completed_successfully": False}) if failed else first(request)

    return answer


def crew(answer: Any = None, effort: str = "low", *, llm: Any = None, task: Any = None, **fields: Any) -> Crew:
    config = PlanningConfig(reasoning_effort=effort, max_attempts=1, **fields.pop("config", {}))  # type: ignore[arg-type]
    llm = llm or ScriptedLLM(answer or script(), native=True)
    worker = crews.agent(llm=llm, planning_config=config, **fields)
    return Crew(agents=[worker], tasks=[crews.task(worker, description="Job about {topic}.", **(task or {}))])


def state_of(of: Crew) -> Any:
    return of.agents[0].agent_executor.state  # type: ignore[union-attr]


@pytest.fixture
def installed() -> Any:
    fastcrew_async.install()
    yield
    fastcrew_async.uninstall()


def asked(of: Crew) -> list[str]:
    """The last line of each request to the model."""
    llm: Any = of.agents[0].llm
    return [request.text for request in llm.requests]


async def test_the_steps_of_a_plan_are_done_in_their_order() -> None:
    own = crew()
    assert (await AsyncCrew(own).kickoff(inputs={"topic": "tea"})).raw == "the end"
    state = state_of(own)
    assert (state.plan, state.plan_ready, state.replan_count) == ("the plan", True, 0)
    assert [(todo.status, todo.result) for todo in state.todos.items] == [
        ("completed", "did first"),
        ("completed", "did second"),
    ]
    assert [entry["type"] for entry in state.execution_log] == ["step_execution", "observation"] * 2
    assert list(state.observations) == [1, 2]
    assert "did first" in asked(own)[2]  # what the second step depends on


@pytest.mark.usefixtures("installed")
def test_in_place_it_is_the_same_and_needs_no_thread() -> None:
    own = crew(effort="high")
    before = threading.active_count()
    names: set[str] = set()
    tell = own.agents[0].llm.call  # type: ignore[union-attr]

    def call(*args: Any, **kwargs: Any) -> Any:
        names.add(threading.current_thread().name)
        return tell(*args, **kwargs)

    object.__setattr__(own.agents[0].llm, "call", call)
    assert own.kickoff(inputs={"topic": "tea"}).raw == "the end"
    assert names == {threading.main_thread().name}
    assert threading.active_count() <= before + 10  # those of CrewAI's event bus


async def test_steps_beside_each_other_run_at_the_same_time() -> None:
    inside: list[int] = []
    both = asyncio.Event()

    @tool("meet")
    async def meet() -> str:
        """Waits for the other."""
        inside.append(1)
        if len(inside) == 2:
            both.set()
        await asyncio.wait_for(both.wait(), 10)
        return "met"

    own = crew(script(BESIDE, use="meet"), tools=[meet])
    assert (await AsyncCrew(own).kickoff(inputs={"topic": "tea"})).raw == "the end"
    assert [todo.result for todo in state_of(own).todos.items] == ["did first", "did second"]


@pytest.mark.usefixtures("installed")
def test_steps_beside_each_other_run_at_the_same_time_in_place() -> None:
    both = threading.Barrier(2, timeout=10)

    @tool("meet")
    def meet() -> str:
        """Waits for the other."""
        both.wait()
        return "met"

    own = crew(script(BESIDE, use="meet"), tools=[meet])
    assert own.kickoff(inputs={"topic": "tea"}).raw == "the end"


async def test_fifty_at_once_need_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """The detector of blocking calls is on; and nothing of a run is done on a thread."""
    used: list[Any] = []

    @tool("look")
    async def look() -> str:
        """Looks."""
        await asyncio.sleep(0.001)
        return "seen"

    pool = workers.pool()
    monkeypatch.setattr(type(pool), "run", lambda self, *call: used.append(call))
    llm = ScriptedLLM(script(BESIDE, use="look"), native=True, latency=0.001)
    own = AsyncCrew(crew(llm=llm, effort="high", tools=[look]))
    results = await asyncio.gather(*(own.kickoff(inputs={"topic": f"tea {n}"}) for n in range(50)))
    assert {result.raw for result in results} == {"the end"}
    assert len(llm.requests) == 50 * 8  # a plan, two steps of two calls, two observations, a last word
    assert used == []


async def test_fifty_at_once_with_sync_tools_and_models() -> None:
    class SyncOnly(ScriptedLLM):
        def call(self, *args: Any, **kwargs: Any) -> Any:
            time.sleep(0.001)
            return super().call(*args, **kwargs)

    @tool("look")
    def look() -> str:
        """Looks."""
        time.sleep(0.001)
        return "seen"

    own = AsyncCrew(crew(llm=SyncOnly(script(BESIDE, use="look"), native=True), effort="high", tools=[look]))
    results = await asyncio.gather(*(own.kickoff(inputs={"topic": f"tea {n}"}) for n in range(50)))
    assert {result.raw for result in results} == {"the end"}


@pytest.mark.parametrize("late", [False, True], ids=["in a call", "after a call"])
@pytest.mark.parametrize("steps", [ORDERED, BESIDE], ids=["in order", "beside"])
async def test_a_cancel_at_each_call_ends_it(steps: Any, late: bool) -> None:
    """Each call of the run, by the model or by a tool, cancels it once; then it ends by itself."""
    async with witnessed() as witness:
        tasks: list[asyncio.Task[Any]] = []
        number, begun = 0, 0

        def cancel(run: str) -> None:
            nonlocal begun
            begun = witness.starts[run]
            tasks[-1].cancel()

        async def reached(run: str, answer: Any) -> Any:
            witness.call()
            mine = witness.starts[run] == number
            if mine and not late:
                cancel(run)
            found = await answer
            if mine and late:
                asyncio.get_running_loop().call_soon(cancel, run)
            return found

        class Reached(ScriptedLLM):
            async def acall(self, *args: Any, **kwargs: Any) -> Any:
                return await reached(current_run.get(), super().acall(*args, **kwargs))

        @tool("look")
        async def look() -> str:
            """Looks."""
            return str(await reached(current_run.get(), asyncio.sleep(0, "seen")))

        llm = Reached(replanned(steps), native=True)
        own = AsyncCrew(crew(llm=llm, effort="high", tools=[look], max_retry_limit=0))
        ended = False
        while not ended:
            number += 1
            run = f"run {number}"
            tasks.append(asyncio.create_task(witness.watch(run, own.kickoff)))
            await asyncio.wait(tasks[-1:], timeout=10)
            ended = not tasks[-1].cancelled()
            assert ended or witness.starts[run] == begun
            assert witness.scopes[run] == ()
        assert tasks[-1].result().raw == "the end"
        assert asyncio.all_tasks() == {asyncio.current_task()}
    assert number >= 10  # a plan, two steps of two calls and a tool each, two observations, a last word
    for run in list(witness.events):
        assert witness.unclosed(run) == [], run


async def test_max_execution_time_ends_it() -> None:
    own = crew(llm=ScriptedLLM(script(), native=True, latency=1), max_execution_time=1, max_retry_limit=0)
    with pytest.raises(TimeoutError, match="timed out after 1 seconds"):
        await AsyncCrew(own).kickoff(inputs={"topic": "tea"})
    before = len(asked(own))
    await asyncio.sleep(0.05)
    assert len(asked(own)) == before


@pytest.mark.usefixtures("installed")
def test_max_execution_time_ends_steps_beside_each_other_in_place() -> None:
    over = threading.Event()

    @tool("look")
    def look() -> str:
        """Looks."""
        assert over.wait(10)
        return "seen"

    own = crew(script(BESIDE, use="look"), tools=[look], max_execution_time=1)
    with pytest.raises(TimeoutError):
        own.kickoff(inputs={"topic": "tea"})
    before = len(asked(own))
    over.set()
    for thread in threading.enumerate():
        if thread.name == "fastcrew-deadline":
            thread.join(10)
    assert len(asked(own)) == before


async def test_steps_that_go_round_in_circles_are_ended() -> None:
    again = script([(1, "first", []), (1, "second", [])])
    with pytest.raises(RecursionError, match="has been called 10 times"):
        await AsyncCrew(crew(again, max_iter=1, max_retry_limit=0)).kickoff(inputs={"topic": "tea"})


@pytest.mark.parametrize("kind", ["agent", "crew"])
@pytest.mark.usefixtures("installed")
async def test_a_model_by_name_is_made_off_the_loop(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def create(name: str) -> ScriptedLLM:
        time.sleep(0.001)  # the detector would see it on the loop
        made.append(name)
        return ScriptedLLM(script(), native=True)

    monkeypatch.setattr(reasoning_handler, "create_llm", create)
    monkeypatch.setattr(planner_observer, "create_llm", create)
    own = crew(effort="medium", config={"llm": "a/model"})
    if kind == "crew":
        assert (await own.akickoff(inputs={"topic": "tea"})).raw == "the end"
    else:
        assert (await own.agents[0].kickoff_async("Job")).raw == "the end"  # type: ignore[attr-defined]
    assert made == ["a/model", "a/model"]


async def test_what_the_user_has_replaced_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def reasoning(self: AgentReasoning) -> AgentReasoningOutput:
        calls.append("plan")
        time.sleep(0.001)
        return AgentReasoningOutput(
            plan=ReasoningPlan(plan="mine", steps=[PlanStep(step_number=1, description="mine")], ready=True)
        )

    def execute(self: StepExecutor, todo: Any, context: Any, **limits: Any) -> StepResult:
        calls.append(f"step {todo.description} {limits}")
        time.sleep(0.001)
        return StepResult(success=True, result="stepped")

    def observe(self: PlannerObserver, **about: Any) -> StepObservation:
        calls.append(f"observation of {about['result']}")
        time.sleep(0.001)
        return StepObservation(step_completed_successfully=True)

    monkeypatch.setattr(AgentReasoning, "handle_agent_reasoning", reasoning)
    monkeypatch.setattr(StepExecutor, "execute", execute)
    monkeypatch.setattr(PlannerObserver, "observe", observe)
    own = crew(effort="medium")
    assert (await AsyncCrew(own).kickoff(inputs={"topic": "tea"})).raw == "the end"
    assert calls == [
        "plan",
        "step mine {'max_step_iterations': 15, 'step_timeout': None}",
        "observation of stepped",
    ]


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("generate_plan", None),
        ("get_ready_todos_method", "all_todos_complete"),
        ("execute_todo_sequential", "no_todos"),
        ("finalize", "completed"),
    ],
)
async def test_a_node_that_was_replaced_is_called(name: str, answer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    async def node(self: Any) -> Any:
        calls.append(name)
        if name == "finalize":
            plan_and_execute._answer(self, "mine", "mine")
        return answer

    monkeypatch.setattr(AgentExecutor, name, node)
    assert (await AsyncCrew(crew()).kickoff(inputs={"topic": "tea"})).raw
    assert calls == [name]


async def test_a_tool_function_that_was_replaced_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    stock = step_executor.execute_single_native_tool_call

    def single(*args: Any, **kwargs: Any) -> Any:
        calls.append(kwargs["plan_step_number"])
        return stock(*args, **kwargs)

    monkeypatch.setattr(step_executor, "execute_single_native_tool_call", single)

    @tool("look")
    def look() -> str:
        """Looks."""
        return "seen"

    own = crew(script(use="look"), tools=[look])
    assert (await AsyncCrew(own).kickoff(inputs={"topic": "tea"})).raw == "the end"
    assert calls == [1, 2]


async def test_a_late_step_ends_with_what_it_has() -> None:
    @tool("look")
    async def look() -> str:
        """Looks."""
        await asyncio.sleep(1.05)
        return "seen"

    own = crew(script([(1, "first", [])], use="look"), tools=[look], config={"step_timeout": 1})
    assert (await AsyncCrew(own).kickoff(inputs={"topic": "tea"})).raw == "the end"
    assert state_of(own).todos.items[0].result == "seen"


@pytest.mark.usefixtures("installed")
async def test_feedback_of_a_human_goes_past_the_plan() -> None:
    own = crew()
    agent = own.agents[0]
    await own.akickoff(inputs={"topic": "tea"})
    executor: Any = agent.agent_executor
    executor._prepare_feedback_iteration()
    before = len(asked(own))
    await executor.kickoff_async()
    assert executor.state.current_answer.output == "the end"
    assert len(asked(own)) == before + 1
