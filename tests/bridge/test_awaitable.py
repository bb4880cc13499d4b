"""What an awaitable of the core promises to whoever awaits it."""

from __future__ import annotations

import asyncio
import inspect

import pytest

from fastcrew_async.errors import RuntimeClosedError

VALUES = [None, True, False, 0, -(2**63), 2**63 - 1, 1.5, "tè", "", b"\x00\xff"]


@pytest.mark.parametrize("value", VALUES, ids=repr)
async def test_a_value_comes_back_as_it_went(core, value):
    for awaitable in (core.ready(value), core.echo(value)):
        answer = await awaitable
        assert answer == value
        assert type(answer) is type(value)


@pytest.mark.parametrize("operation", ["ready", "echo"])
async def test_a_value_that_cannot_cross_is_refused_at_the_call(core, operation):
    with pytest.raises(OverflowError, match="9223372036854775808 does not fit 64 bits"):
        getattr(core, operation)(2**63)
    with pytest.raises(TypeError, match="expected None, bool, int, float, str or bytes, not list"):
        getattr(core, operation)([])


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
async def test_an_impossible_duration_is_refused_at_the_call(core, seconds):
    with pytest.raises(ValueError, match="seconds must be a number from 0 on"):
        core.sleep(seconds)


async def test_nothing_begins_before_the_first_step(core):
    awaitable = core.sleep(60)
    await asyncio.sleep(0)
    assert core.in_flight == 0
    awaitable.close()


async def test_a_never_awaited_one_does_nothing_and_says_nothing(core):
    core.sleep(60)
    core.echo(1)
    assert core.in_flight == 0


async def test_a_ready_answer_is_there_at_the_first_step(core):
    with pytest.raises(StopIteration) as stop:
        core.ready("tea").send(None)
    assert stop.value.value == "tea"
    assert core.in_flight == 0


async def test_it_is_a_coroutine_to_asyncio(core):
    awaitable = core.ready(1)
    assert asyncio.iscoroutine(awaitable)
    assert inspect.isawaitable(awaitable)
    task = asyncio.create_task(awaitable)
    assert "Awaitable" in repr(task)
    assert await task == 1


async def test_awaited_twice_is_a_clear_error(core):
    awaitable = core.echo(1)
    assert await awaitable == 1
    with pytest.raises(RuntimeError, match="was awaited before"):
        await awaitable


async def test_awaited_by_two_at_once_fails_the_second_only(core):
    awaitable = core.sleep(0.05)
    first = asyncio.create_task(awaitable)
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="is being awaited already"):
        await awaitable
    assert await asyncio.wait_for(first, 10) is None


async def test_it_needs_a_running_loop(core):
    def outside() -> None:
        with pytest.raises(RuntimeError, match="no running event loop"):
            core.sleep(1).send(None)

    await asyncio.to_thread(outside)
    assert core.in_flight == 0


async def test_gather_keeps_the_order(core):
    answers = await asyncio.wait_for(asyncio.gather(*(core.echo(i) for i in range(3000))), 20)
    assert answers == list(range(3000))


async def test_wait_for_ends_the_work(core, until):
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(core.sleep(60), 0.01)
    await until(lambda: core.in_flight == 0)


async def test_cancelling_the_task_ends_the_work(core, until):
    async def outer() -> None:
        await core.sleep(60)

    task = asyncio.create_task(outer())
    await asyncio.sleep(0)
    assert core.in_flight == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: core.in_flight == 0)


async def test_shield_lets_the_work_go_on(core):
    inner = asyncio.ensure_future(core.sleep(0.05))
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(asyncio.shield(inner), 0.001)
    assert not inner.cancelled()
    assert await asyncio.wait_for(inner, 10) is None


@pytest.mark.skipif(not hasattr(asyncio, "TaskGroup"), reason="task groups came with Python 3.11")
async def test_a_failing_task_group_ends_its_work(core, until):
    async def fail() -> None:
        await core.sleep(0.001)
        raise LookupError("tea")

    with pytest.raises(BaseExceptionGroup) as failure:  # noqa: F821, PT012
        async with asyncio.TaskGroup() as group:
            for _ in range(10):
                group.create_task(core.sleep(60))
            group.create_task(fail())
    assert failure.group_contains(LookupError, match="tea")
    await until(lambda: core.in_flight == 0)


@pytest.mark.parametrize("end", ["close", "throw", "drop"])
async def test_every_end_aborts_the_work(core, until, end):
    awaitable = core.sleep(60)
    future = awaitable.send(None)
    assert asyncio.isfuture(future)
    assert core.in_flight == 1
    if end == "close":
        awaitable.close()
    elif end == "throw":
        with pytest.raises(LookupError, match="tea"):
            awaitable.throw(LookupError("tea"))
    del awaitable
    await until(lambda: core.in_flight == 0)
    future.cancel()


async def test_throw_takes_the_forms_of_a_generator(core):
    with pytest.raises(LookupError):
        core.sleep(60).throw(LookupError)
    with pytest.raises(LookupError, match="tea"):
        core.sleep(60).throw(LookupError, "tea", None)
    with pytest.raises(LookupError, match="tea"):
        core.sleep(60).throw(LookupError, LookupError("tea"))
    with pytest.raises(TypeError, match="takes an exception"):
        core.sleep(60).throw("tea")


async def test_a_closed_one_cannot_be_awaited(core):
    awaitable = core.echo(1)
    awaitable.close()
    with pytest.raises(RuntimeError, match="was awaited before"):
        await awaitable


async def test_a_cancelled_future_does_not_disturb_the_others(core):
    cancelled = core.sleep(0.01)
    future = cancelled.send(None)
    future.cancel()
    others = asyncio.gather(*(core.sleep(0.01) for _ in range(20)))
    await asyncio.wait_for(others, 10)
    cancelled.close()


async def test_a_closed_runtime_refuses_at_the_first_step(core):
    early = core.echo(1)
    core.close(0)
    for awaitable in (early, core.echo(2)):
        with pytest.raises(RuntimeClosedError, match=r"runtime\.get\(\) makes a new one"):
            await awaitable
