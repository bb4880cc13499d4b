"""Timeouts, earlier results and counters of tools, in both forms and by both drivers."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from crewai.tools import BaseTool, tool
from crewai.tools.tool_failure import ToolFailure, ToolFailureReason
from pydantic import BaseModel, field_validator

from fastcrew_async import AsyncCrew, ToolPolicy, config, configure, install, tools, uninstall, workers
from fastcrew_async.engine import tool_cache
from fastcrew_async.engine.nesting import entered
from fastcrew_async.engine.tool_call import RunTool, invocation, native_call
from fastcrew_async.errors import ToolTimeoutError
from tests import crews

BOTH = pytest.mark.parametrize("form", ["text", "native"])


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "_settings", None)
    monkeypatch.setattr(tools, "_tallies", {})
    monkeypatch.setattr(tool_cache, "_current", None)


class Counted(BaseTool):
    """Counts its calls and answers by a function."""

    name: str = "counted"
    description: str = "Counts."
    answer: Any = str
    ran: Any = None

    def _run(self, x: Any) -> Any:
        self.ran.append(x)
        return self.answer(x)


def counted(answer: Callable[[Any], Any] = str, **fields: Any) -> Counted:
    cache_function = fields.pop("cache_function", None)
    made = Counted(answer=answer, ran=[], **fields)
    if cache_function is not None:
        made.cache_function = cache_function
    return made


def effect(form: str, of: BaseTool, **arguments: Any) -> RunTool:
    if form == "text":
        return invocation(of.to_structured_tool(), arguments, {})
    return native_call(of.run, arguments)


def awaiting(body: Callable[[Any], Any], **fields: Any) -> BaseTool:
    @tool("counted")
    async def found(x: Any) -> Any:
        """Counts."""
        return await body(x)

    return found


# Timeouts


@BOTH
async def test_a_sync_tool_that_takes_too_long_is_left_behind(form: str, until: Any) -> None:
    configure(tools={"counted": ToolPolicy(timeout=0.05)})
    release = threading.Event()
    with pytest.raises(ToolTimeoutError, match=r"the tool 'counted' did not answer within 0\.05 seconds"):
        await effect(form, counted(lambda x: release.wait(20)), x=1).aperform()
    counts = tools.stats()["counted"]
    assert (counts["calls"], counts["timeouts"], counts["abandoned"], counts["errors"]) == (1, 1, 1, 0)
    release.set()
    await until(lambda: workers.pool().stats()["running"] == 0)


@BOTH
def test_in_place_too(form: str) -> None:
    configure(tool_timeout=0.05)
    release = threading.Event()
    with pytest.raises(ToolTimeoutError, match="did not answer"):
        effect(form, counted(lambda x: release.wait(20)), x=1).perform()
    assert tools.stats()["counted"]["abandoned"] == 1
    release.set()
    assert effect(form, counted(), x=1).perform() == "1"
    with pytest.raises(LookupError):
        effect(form, counted(lambda x: {}[x]), x=1).perform()


@BOTH
async def test_an_async_tool_is_cancelled(form: str) -> None:
    configure(tool_timeout=0.02)
    ended: list[str] = []

    async def body(x: Any) -> None:
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    with pytest.raises(ToolTimeoutError):
        await effect(form, awaiting(body), x=1).aperform()
    await asyncio.sleep(0)
    assert ended == ["cancelled"]
    assert tools.stats()["counted"]["abandoned"] == 0


@BOTH
def test_an_async_tool_is_cancelled_in_place(form: str) -> None:
    configure(tool_timeout=0.02)
    ended = threading.Event()

    async def body(x: Any) -> None:
        try:
            await asyncio.sleep(20)
        finally:
            ended.set()

    with pytest.raises(ToolTimeoutError):
        effect(form, awaiting(body), x=1).perform()
    assert ended.wait(10)


async def test_one_that_will_not_be_cancelled_is_not_waited_for() -> None:
    configure(tool_timeout=0.02)
    release = asyncio.Event()

    async def body(x: Any) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    with pytest.raises(ToolTimeoutError):
        await asyncio.wait_for(effect("text", awaiting(body), x=1).aperform(), 10)
    release.set()
    await asyncio.sleep(0.01)


async def test_a_cancellation_reaches_the_tool(until: Any) -> None:
    configure(tool_timeout=20)
    begun, ended = asyncio.Event(), []

    async def body(x: Any) -> None:
        begun.set()
        try:
            await asyncio.sleep(20)
        finally:
            ended.append(x)

    task = asyncio.create_task(effect("text", awaiting(body), x=1).aperform())
    await asyncio.wait_for(begun.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [1]


@pytest.mark.parametrize("limits", [{"tool_timeout": 20}, {}])
async def test_what_the_end_of_a_cancelled_tool_raises_is_no_complaint_of_the_loop(limits: dict[str, Any]) -> None:
    configure(**limits)
    begun, said = asyncio.Event(), []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))

    async def body(x: Any) -> None:
        begun.set()
        try:
            await asyncio.sleep(20)
        finally:
            raise ValueError("in its cleanup")

    async def cancelled() -> None:
        with entered("crew", "one"), entered("tool", "two"):  # deep enough for a task of its own
            task = asyncio.create_task(effect("text", awaiting(body), x=1).aperform())
            await asyncio.wait_for(begun.wait(), 10)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        assert task.cancelled()

    await cancelled()
    for _ in range(2):  # the loop lets go of timers at its next turn
        await asyncio.sleep(0)
        gc.collect()
    assert said == []


async def test_the_policy_of_a_tool_goes_before_that_of_all() -> None:
    configure(tool_timeout=0.01, tools={"Counted!": ToolPolicy(timeout=0), "other": ToolPolicy(cache_ttl=5)})
    slow = counted(lambda x: time.sleep(0.05) or "slow", name="Counted!")
    assert await effect("text", slow, x=1).aperform() == "slow"
    with pytest.raises(ToolTimeoutError):
        await effect("text", counted(lambda x: time.sleep(0.05), name="other"), x=1).aperform()
    delegation = counted(lambda x: time.sleep(0.05) or "done", name="Delegate work to coworker")
    assert await effect("text", delegation, x=1).aperform() == "done"


def slow_crew(form: str, ran: list[int]) -> Any:
    @tool("ping")
    def slow(text: str) -> str:
        """Answers with the text."""
        ran.append(1)
        time.sleep(0.3)
        return f"pong {text}"

    def script(request: Any) -> Any:
        return "done" if "did not answer within 0.05 seconds" in request.text else crews.use_ping(request)

    return crews.crew(script, native=form == "native", tools=[slow])


@BOTH
async def test_the_model_is_told_of_it_as_of_an_error_once(form: str) -> None:
    configure(tool_timeout=0.05)
    ran: list[int] = []
    made = slow_crew(form, ran)
    assert (await AsyncCrew(made).kickoff({"topic": "tea"})).raw == "done"
    assert ran == [1]
    assert made.tasks[0].tools_errors == 1
    wanted = "tool 'ping' did not answer within 0.05 seconds"
    shown = [str(message["content"]) for message in made.tasks[0].output.messages if wanted in str(message["content"])]
    assert shown
    assert ("Error executing tool:" if form == "native" else "I encountered an error while trying to use the") in shown[
        0
    ]


@BOTH
def test_in_kickoff_too(form: str) -> None:
    configure(tool_timeout=0.05)
    ran: list[int] = []
    install()
    try:
        assert slow_crew(form, ran).kickoff({"topic": "tea"}).raw == "done"
    finally:
        uninstall()
    assert ran == [1]


# Earlier results


@BOTH
async def test_a_result_serves_later_calls_with_the_same_arguments(form: str) -> None:
    configure(tools={"counted": ToolPolicy(cache_ttl=60)})
    of = counted(lambda x: [x])
    first, second = [await effect(form, of, x={"b": 1, "a": 2}).aperform() for _ in range(2)]
    assert first == second == [{"b": 1, "a": 2}]
    assert first is not second
    assert effect(form, of, x={"a": 2, "b": 1}).perform() == first
    assert of.ran == [{"b": 1, "a": 2}]
    await effect(form, of, x="1").aperform()
    await effect(form, of, x=1).aperform()
    assert of.ran[1:] == ["1", 1]
    assert tools.stats()["counted"]["cache_hits"] == 2


@BOTH
async def test_two_tools_of_one_name_do_not_share_and_one_function_does(form: str) -> None:
    configure(tools={"counted": ToolPolicy(cache_ttl=60)})
    one, other = counted(lambda x: "one"), counted(lambda x: "other")
    assert [await effect(form, of, x=1).aperform() for of in (one, other)] == ["one", "other"]

    ran: list[Any] = []

    def counted_function(x: Any) -> str:
        """Counts."""
        ran.append(x)
        return "shared"

    made = [tool("counted")(counted_function) for _ in range(2)]
    assert [await effect(form, of, x=1).aperform() for of in made] == ["shared"] * 2
    assert ran == [1]


@BOTH
async def test_it_ends_after_its_time(form: str) -> None:
    configure(tools={"counted": ToolPolicy(cache_ttl=0.02)})
    of = counted()
    await effect(form, of, x=1).aperform()
    await asyncio.sleep(0.03)
    await effect(form, of, x=1).aperform()
    assert of.ran == [1, 1]


@BOTH
async def test_uses_count_and_arguments_are_checked_all_the_same(form: str) -> None:
    configure(tools={"limited": ToolPolicy(cache_ttl=60)})
    ran: list[int] = []

    def body(x: int) -> str:
        """Counts."""
        ran.append(x)
        return "tea"

    limited = tool("limited", max_usage_count=2)(body)
    structured = limited.to_structured_tool()

    async def call(**arguments: Any) -> Any:
        made = invocation(structured, arguments, {}) if form == "text" else native_call(limited.run, arguments)
        try:
            return await made.aperform()
        except Exception as error:
            return error

    assert [await call(x=1), await call(x=1)] == ["tea", "tea"]
    assert ran == [1]
    assert limited.current_usage_count == 2
    assert "usage limit" in str(await call(x=1))
    assert "validation" in str(await call(x="many"))


class Odd:
    pass


class NotMadeAgain(Exception):
    """Can be pickled, and not be made of that again."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(one)


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (lambda x: None, True),
        (lambda x: b"\xff", True),
        (lambda x: lambda: 1, False),
        (lambda x: ToolFailure(message="no", reason=ToolFailureReason.INVALID_INPUT), False),
        (lambda x: threading.Lock(), False),
        (lambda x: Odd(), True),
        (lambda x: NotMadeAgain("one", "other"), False),
        (lambda x: "x" * 2000, False),
        (lambda x: ["x" * 2000], False),
    ],
)
@pytest.mark.parametrize("in_place", [False, True])
async def test_what_is_kept(answer: Callable[[Any], Any], kept: bool, in_place: bool) -> None:
    configure(tools={"counted": ToolPolicy(cache_ttl=60)}, tool_cache_bytes=1000)
    of = counted(answer)
    for _ in range(2):
        made = effect("text", of, x=1)
        if in_place:
            await asyncio.to_thread(made.perform)
        else:
            await made.aperform()
    assert len(of.ran) == (1 if kept else 2)


@BOTH
async def test_the_tools_cache_function_decides(form: str) -> None:
    configure(tools={"counted": ToolPolicy(cache_ttl=60)})
    asked: list[Any] = []

    def first_only(arguments: Any, result: Any) -> bool:
        asked.append((arguments, result))
        return bool(result == "1")

    of = counted(cache_function=first_only)
    for x in (1, 1, 2, 2):
        await effect(form, of, x=x).aperform()
    assert of.ran == [1, 2, 2]
    assert asked[0] == ({"x": 1}, "1")

    def broken(arguments: Any, result: Any) -> bool:
        raise ValueError("broken")

    of = counted(cache_function=broken)
    assert effect(form, of, x=1).perform() == effect(form, of, x=1).perform() == "1"
    assert of.ran == [1, 1]


async def test_calls_at_the_same_time_are_one_on_loops_and_threads(until: Any) -> None:
    configure(tools={"counted": ToolPolicy(cache_ttl=60)})
    release = threading.Event()
    of = counted(lambda x: release.wait(20) and "tea")
    tasks = [asyncio.create_task(effect("text", of, x=1).aperform()) for _ in range(5)]
    tasks += [asyncio.create_task(asyncio.to_thread(effect("native", of, x=1).perform)) for _ in range(2)]
    await until(lambda: of.ran == [1])
    await asyncio.sleep(0.02)
    release.set()
    assert await asyncio.wait_for(asyncio.gather(*tasks), 20) == ["tea"] * 7
    assert of.ran == [1]
    assert tools.stats()["counted"]["cache_hits"] == 6


async def test_an_error_is_not_kept_and_those_who_waited_go_alone(until: Any) -> None:
    configure(tools={"counted": ToolPolicy(cache_ttl=60)})
    release = threading.Event()
    of = counted()

    def answer(x: Any) -> str:
        if len(of.ran) == 1:
            release.wait(20)
            raise ValueError("the first")
        return "well"

    of.answer = answer
    tasks = [asyncio.create_task(effect("text", of, x=1).aperform()) for _ in range(4)]
    await until(lambda: of.ran == [1])
    await asyncio.sleep(0.01)
    release.set()
    found = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
    assert (str(found[0]), found[1:]) == ("the first", ["well"] * 3)
    assert len(of.ran) == 4


async def test_a_cancelled_leader_hands_over_and_a_cancelled_waiter_does_not_matter(until: Any) -> None:
    configure(tools={"counted": ToolPolicy(cache_ttl=60)})
    ran, release = [], asyncio.Event()

    async def body(x: Any) -> str:
        ran.append(x)
        await release.wait()
        return "tea"

    of = awaiting(body)
    tasks = [asyncio.create_task(effect("text", of, x=1).aperform()) for _ in range(4)]
    await until(lambda: ran == [1])
    await asyncio.sleep(0.01)
    tasks[1].cancel()
    tasks[0].cancel()
    await until(lambda: ran == [1, 1])
    release.set()
    assert await asyncio.wait_for(asyncio.gather(*tasks[2:]), 20) == ["tea", "tea"]
    assert ran == [1, 1]
    shared = tool_cache._current
    assert shared is not None
    assert shared._answers == {}


@BOTH
async def test_the_same_call_inside_of_the_call_does_not_wait_for_it(form: str) -> None:
    configure(tools={"counted": ToolPolicy(cache_ttl=60)})
    of = counted()

    def answer(x: Any) -> str:
        return "inner" if len(of.ran) > 1 else f"around {asyncio.run(effect(form, of, x=x).aperform())}"

    of.answer = answer
    assert await asyncio.wait_for(effect(form, of, x=1).aperform(), 20) == "around inner"


async def test_one_that_waits_too_long_makes_the_call_itself(monkeypatch: pytest.MonkeyPatch, until: Any) -> None:
    configure(tools={"counted": ToolPolicy(cache_ttl=60)})
    monkeypatch.setattr(tool_cache, "_PATIENCE_S", 0.02)
    release = threading.Event()
    of = counted()
    of.answer = lambda x: "second" if len(of.ran) > 1 else release.wait(20) and "first"
    first = asyncio.create_task(effect("text", of, x=1).aperform())
    await until(lambda: of.ran == [1])
    assert await asyncio.wait_for(effect("text", of, x=1).aperform(), 20) == "second"
    assert await asyncio.wait_for(asyncio.to_thread(effect("text", of, x=1).perform), 20) == "second"
    release.set()
    assert await asyncio.wait_for(first, 20) == "first"


async def test_a_crew_with_earlier_results_is_the_same_crew() -> None:
    configure(tools={"ping": ToolPolicy(cache_ttl=60)})
    found = []
    for _ in range(2):
        made = crews.crew(crews.use_ping, tools=[crews.ping])
        output = await AsyncCrew(made).kickoff({"topic": "tea"})
        found.append(
            (output.raw, made.tasks[0].used_tools, made.tasks[0].tools_errors, output.tasks_output[0].messages)
        )
    assert found[0] == found[1]
    assert tools.stats()["ping"]["cache_hits"] == 1


# Arguments


class Threads(BaseModel):
    x: int

    @field_validator("x")
    @classmethod
    def note(cls, value: int) -> int:
        validated_on.append(threading.current_thread() is threading.main_thread())
        return value


validated_on: list[bool] = []


@BOTH
async def test_wrong_arguments_take_no_thread_and_validators_of_the_user_do(form: str) -> None:
    class Typed(Counted):
        def _run(self, x: int) -> Any:
            return "tea"

    before = workers.pool().stats()["done"]
    with pytest.raises(ValueError, match=r"[aA]rguments validation failed") as raised:
        await effect(form, Typed(ran=[]), x="many").aperform()
    with pytest.raises(ValueError) as stock:  # noqa: PT011
        effect(form, Typed(ran=[]), x="many").whole()
    assert str(raised.value) == str(stock.value)
    assert workers.pool().stats()["done"] == before
    validated_on.clear()
    assert await effect(form, counted(args_schema=Threads), x=1).aperform() == "1"
    assert validated_on == [False]


@BOTH
async def test_errors_are_counted(form: str) -> None:
    with pytest.raises(LookupError):
        await effect(form, counted(lambda x: {}[x]), x=1).aperform()
    await effect(form, counted(), x=1).aperform()
    counts = tools.stats()["counted"]
    assert (counts["calls"], counts["errors"], counts["timeouts"]) == (2, 1, 0)
    assert counts["seconds"] > 0
