from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from fastcrew_async.engine.effects import Blocking, CallUser, Effect, Either, Handled

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def on_this_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def set_variable(value: str, error: Exception | None = None) -> bool:
    variable.set(value)
    if error:
        raise error
    return on_this_thread()


def test_awaiting_an_effect_yields_it_and_gives_what_is_sent_back() -> None:
    effect = Effect()

    async def work() -> Any:
        return await effect

    running = work()
    assert running.send(None) is effect
    with pytest.raises(StopIteration) as stopped:
        running.send("answer")
    assert stopped.value.value == "answer"


async def test_either_takes_the_way_of_its_driver() -> None:
    async def asynchronous() -> str:
        return "async"

    effect = Either(lambda: "sync", asynchronous)
    assert (effect.perform(), await effect.aperform()) == ("sync", "async")


async def test_blocking_leaves_the_loop_and_what_it_sets_in_the_context_is_seen() -> None:
    assert await Blocking(set_variable, "by a worker").aperform() is False
    assert variable.get() == "by a worker"


async def test_what_a_failing_call_sets_is_seen_too() -> None:
    with pytest.raises(KeyError):
        await Blocking(set_variable, "before it failed", error=KeyError()).aperform()
    assert variable.get() == "before it failed"


def test_blocking_in_place() -> None:
    token = variable.set("before")
    try:
        assert Blocking(set_variable, "here").perform() is True
        assert variable.get() == "here"
    finally:
        variable.reset(token)


async def test_an_async_callback_is_awaited_on_the_callers_loop() -> None:
    async def callback(value: str) -> tuple[str, Any]:
        return value, asyncio.get_running_loop()

    assert await CallUser(callback, "x").aperform() == ("x", asyncio.get_running_loop())


async def test_a_sync_callback_that_gives_an_awaitable_runs_in_both_places() -> None:
    async def rest() -> Any:
        return asyncio.get_running_loop()

    def callback() -> Any:
        assert not on_this_thread()
        return rest()

    assert await CallUser(callback).aperform() is asyncio.get_running_loop()


def test_an_async_callback_in_place_runs_to_its_end() -> None:
    async def callback(value: str) -> str:
        await asyncio.sleep(0)
        return value

    assert CallUser(callback, "x").perform() == "x"
    assert CallUser(lambda: "y").perform() == "y"


async def test_handled_waits_for_every_handler_and_raises_nothing_of_theirs(until: Callable[..., Any]) -> None:
    first: Future[None] = Future()
    second: Future[None] = Future()
    done: Future[None] = Future()
    done.set_result(None)
    waiting = asyncio.create_task(Handled(first, None, second, done).aperform())
    first.set_exception(RuntimeError("of a handler"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not waiting.done()
    second.set_result(None)
    await asyncio.wait_for(waiting, 10)


def test_handled_in_place() -> None:
    failed: Future[None] = Future()
    effect = Handled(failed)
    threading.Timer(0.01, failed.set_exception, [RuntimeError("of a handler")]).start()
    effect.perform()
    assert failed.done()


async def test_handled_waits_no_longer_than_it_may() -> None:
    never: Future[None] = Future()
    effect = Handled(never, timeout=0.01)
    await asyncio.wait_for(effect.aperform(), 10)
    await asyncio.wait_for(asyncio.to_thread(effect.perform), 10)
    assert not never.done()
