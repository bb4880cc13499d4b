from __future__ import annotations

import asyncio
import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fastcrew_async.engine.drivers import Deadline, Join, Spawn, Stop, drive, drive_in_place
from fastcrew_async.engine.effects import Blocking, Closing, Effect


class Note(Effect):
    """Notes how it was performed, and gives or raises its value."""

    def __init__(self, log: list[str], name: str, value: Any = None) -> None:
        self.log = log
        self.name = name
        self.value = value

    def perform(self) -> Any:
        self.log.append(self.name)
        if isinstance(self.value, BaseException):
            raise self.value
        return self.value

    async def aperform(self) -> Any:
        await asyncio.sleep(0)
        return self.perform()


class Fail(Effect):
    """Raises a new error, which nothing else keeps."""

    def __init__(self, kind: type[BaseException]) -> None:
        self.kind = kind

    def perform(self) -> None:
        raise self.kind

    async def aperform(self) -> None:
        await asyncio.sleep(0)
        raise self.kind


class Gate(Effect):
    """Waits to be opened, in place or on a loop; says that it was entered."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()

    def perform(self) -> None:
        self.entered.set()
        assert self.open.wait(10)

    async def aperform(self) -> None:
        self.entered.set()
        while not self.open.is_set():
            await asyncio.sleep(0.001)


def same(error: Exception) -> Exception:
    return error


async def both(work: Callable[[list[str]], Any]) -> list[str]:
    """The log of `work(log)` under both drivers, which must be the same."""
    logs: list[list[str]] = [[], []]
    outcomes: list[Any] = []
    for log, run in zip(logs, (drive_in_place, drive), strict=True):
        try:
            outcome = run(work(log))
            outcomes.append(await outcome if asyncio.iscoroutine(outcome) else outcome)
        except Exception as error:
            outcomes.append(repr(error))
    assert outcomes[0] == outcomes[1]
    assert logs[0] == logs[1]
    return [*logs[0], f"-> {outcomes[0]}"]


async def test_values_errors_and_results_are_the_same_in_place_and_on_the_loop() -> None:
    async def work(log: list[str]) -> str:
        first = await Note(log, "first", "a")
        try:
            await Note(log, "second", ValueError("b"))
        except ValueError as error:
            log.append(f"caught {error}")
        return f"{first} {await Note(log, 'third', 'c')}"

    assert await both(work) == ["first", "second", "caught b", "third", "-> a c"]


async def test_an_error_of_an_effect_comes_out_of_both() -> None:
    async def work(log: list[str]) -> None:
        try:
            await Note(log, "fails", ValueError("b"))
        finally:
            await Note(log, "cleanup")

    assert await both(work) == ["fails", "cleanup", "-> ValueError('b')"]


async def test_work_without_effects() -> None:
    async def work(log: list[str]) -> str:
        return "at once"

    assert await both(work) == ["-> at once"]


async def test_cancelling_reaches_the_work_at_its_effect_and_its_cleanup_runs(until: Any) -> None:
    log: list[str] = []
    gate = Gate()

    async def work() -> None:
        try:
            await gate
        except asyncio.CancelledError:
            log.append("cancelled")
            raise
        finally:
            await Note(log, "cleanup")
        log.append("went on")

    task = asyncio.create_task(drive(work()))
    await until(gate.entered.is_set)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 10)
    assert log == ["cancelled", "cleanup"]


class Failure(Exception):
    pass


@pytest.fixture
def collector_off() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def _failing() -> None:
    await Fail(Failure)


@pytest.mark.usefixtures("collector_off")
def test_an_error_in_place_goes_without_the_collector() -> None:
    try:
        drive_in_place(_failing())
    except Failure as error:
        seen = weakref.ref(error)
    assert seen() is None


@pytest.mark.usefixtures("collector_off")
async def test_an_error_on_the_loop_goes_without_the_collector() -> None:
    try:
        await drive(_failing())
    except Failure as error:
        seen = weakref.ref(error)
    assert seen() is None


@pytest.mark.parametrize("on_loop", [False, True])
async def test_a_deadline_ends_the_work_and_nothing_is_performed_after_it(on_loop: bool, until: Any) -> None:
    log: list[str] = []
    gate = Gate()
    ended = threading.Event()

    async def work() -> None:
        try:
            await gate
            await Note(log, "after the deadline")
        finally:
            ended.set()

    effect = Deadline(work(), 0.05, same)
    with pytest.raises(TimeoutError):
        await (effect.aperform() if on_loop else asyncio.to_thread(effect.perform))
    assert gate.entered.is_set()
    assert not gate.open.is_set()
    gate.open.set()  # the call that was under way comes to its end
    await until(ended.is_set)
    assert log == []


async def test_work_within_its_deadline() -> None:
    async def work(log: list[str]) -> str:
        async def inner() -> str:
            return await Note(log, "inner", "done")

        return await Deadline(inner(), 60, same)

    assert await both(work) == ["inner", "-> done"]


def test_an_error_within_the_deadline_is_wrapped_in_place_with_its_cause() -> None:
    async def work(error: Exception) -> None:
        await Note([], "fails", error)

    with pytest.raises(RuntimeError, match="wrapped") as raised:
        Deadline(work(KeyError("x")), 60, lambda error: RuntimeError("wrapped")).perform()
    assert isinstance(raised.value.__cause__, KeyError)
    with pytest.raises(KeyError) as passed:
        Deadline(work(KeyError("x")), 60, same).perform()
    assert passed.value.__cause__ is None
    with pytest.raises(TimeoutError, match="of the model"):
        Deadline(work(TimeoutError("of the model")), 60, lambda error: RuntimeError("wrapped")).perform()


async def test_an_error_within_the_deadline_on_the_loop_is_itself() -> None:
    async def work() -> None:
        await Note([], "fails", KeyError("x"))

    with pytest.raises(KeyError):
        await Deadline(work(), 60, lambda error: RuntimeError("wrapped")).aperform()


async def test_branches_run_beside_and_are_joined() -> None:
    async def work(log: list[str]) -> list[Any]:
        async def branch(value: int) -> int:
            return value

        async def failing() -> None:
            raise KeyError("x")

        handles: list[Any] = []
        given = [await Spawn(work, handles) for work in (branch(1), branch(2), failing())]
        assert given == handles
        try:
            await Join(handles[2])
        except KeyError:
            log.append("failed")
        await Stop(handles)
        return [await Join(handles[1]), await Join(handles[0])]

    assert await both(work) == ["failed", "-> [2, 1]"]


async def test_stop_cancels_branches_and_waits_for_their_cleanup(until: Any) -> None:
    log: list[str] = []
    gate = Gate()

    async def branch() -> None:
        try:
            await gate
        finally:
            await Note(log, "cleanup")

    handle = await Spawn(branch(), []).aperform()
    await until(gate.entered.is_set)
    await Stop([handle]).aperform()
    assert handle.cancelled()
    assert log == ["cleanup"]


async def _never_started() -> None:
    raise AssertionError("it must not start")


async def test_a_branch_that_is_stopped_before_its_first_step_never_starts() -> None:
    handle = await Spawn(_never_started(), []).aperform()
    await Stop([handle]).aperform()
    assert handle.cancelled()
    gc.collect()  # a coroutine that was forgotten would warn now


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="asyncio.wait_for makes no task of its own any more")
async def test_a_deadline_whose_task_is_cancelled_before_its_first_step_never_starts() -> None:
    before = asyncio.all_tasks()
    task = asyncio.create_task(Deadline(_never_started(), 60, same).aperform())
    await asyncio.sleep(0)
    for other in asyncio.all_tasks() - before:  # as `asyncio.run` does at its end
        other.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gc.collect()


def test_stop_in_place_leaves_threads_to_end() -> None:
    assert Stop([object()]).perform() is None


@pytest.mark.parametrize("inner", [drive_in_place, lambda work: asyncio.run(drive(work))])
def test_an_abandoned_run_starts_nothing_and_closes_what_is_open(inner: Callable[[Any], Any]) -> None:
    """Also where the work makes a result of its own of every refusal, and on a loop that a sync tool has made."""
    log: list[str] = []
    entered = Gate()
    outcome: list[BaseException] = []

    async def work() -> str:
        await entered
        for name in ("model", "tool", "model again"):
            try:
                await Note(log, name)
            except TimeoutError:
                log.append(f"no {name}")
        await Closing(log.append, "closed")
        return "a result"

    async def around() -> None:
        def inside() -> None:
            try:
                inner(work())
            except BaseException as error:
                outcome.append(error)
            finally:
                log.append("end")

        await Blocking(inside)

    async def main() -> None:
        run = asyncio.create_task(drive(around()))
        await asyncio.to_thread(entered.entered.wait, 10)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        entered.open.set()
        while "end" not in log:
            await asyncio.sleep(0.001)

    asyncio.run(asyncio.wait_for(main(), 10))
    assert log == ["no model", "no tool", "no model again", "closed", "end"]
    assert "abandoned" in str(outcome[0])


async def test_a_task_written_in_python_is_driven_like_any_other() -> None:
    """Backports of asyncio for Python 3.10 have one of their own."""
    kind: Any = asyncio.tasks._PyTask  # type: ignore[attr-defined]

    async def work() -> Any:
        return await Note([], "note", "done")

    assert await kind(drive(work()), loop=asyncio.get_running_loop()) == "done"
