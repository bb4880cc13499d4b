from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import Any

import pytest
from crewai.tools import BaseTool, tool
from crewai.tools.structured_tool import ToolUsageLimitExceededError

from fastcrew_async.engine.drivers import drive
from fastcrew_async.engine.effects import Effect
from fastcrew_async.engine.tool_call import ask_whether_to_cache, invocation, native_call, tool_name

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@tool("where")
def where(text: str) -> str:
    """Says on which thread it runs."""
    seen, _ = variable.get(), variable.set("inside")
    return f"{text} {seen} {threading.current_thread() is threading.main_thread()}"


@tool("awhere")
async def awhere(text: str) -> str:
    """Says on which thread it runs."""
    await asyncio.sleep(0)
    return f"{text} async {threading.current_thread() is threading.main_thread()}"


class Counting(BaseTool):
    name: str = "counting"
    description: str = "Counts."

    async def _run(self, text: str) -> str:
        return f"counted {text}"


def effect_of(form: str, of: BaseTool) -> Effect:
    if form == "text":
        return invocation(of.to_structured_tool(), {"text": "x"}, {})
    return native_call(of.run, {"text": "x"})


@pytest.mark.parametrize("form", ["text", "native"])
async def test_a_sync_body_runs_on_a_worker_with_the_context(form: str) -> None:
    token = variable.set("outside")
    try:
        assert await effect_of(form, where).aperform() == "x outside False"
        assert effect_of(form, where).perform() == "x outside True"
        assert variable.get() == "outside"
    finally:
        variable.reset(token)


@pytest.mark.parametrize("form", ["text", "native"])
async def test_an_async_body_runs_on_the_callers_loop(form: str) -> None:
    assert await effect_of(form, awhere).aperform() == "x async True"
    assert await effect_of(form, Counting()).aperform() == "counted x"


async def test_the_usage_limit_of_an_async_body() -> None:
    structured = Counting(max_usage_count=1).to_structured_tool()
    effect = invocation(structured, {"text": "x"}, {})
    await effect.aperform()
    with pytest.raises(ToolUsageLimitExceededError, match="maximum usage limit of 1"):
        await effect.aperform()
    limited = Counting(max_usage_count=1)
    assert await native_call(limited.run, {"text": "x"}).aperform() == "counted x"
    assert "usage limit" in str(await native_call(limited.run, {"text": "x"}).aperform())


async def test_wrong_arguments_of_an_async_body_do_not_reach_it() -> None:
    with pytest.raises(ValueError, match="validation"):
        await native_call(awhere.run, {"wrong": 1}).aperform()


async def test_a_run_of_the_users_own_is_called_as_it_is() -> None:
    class Own(Counting):
        def run(self, *args: Any, **kwargs: Any) -> Any:
            return "their run"

    assert await native_call(Own().run, {"text": "x"}).aperform() == "their run"
    assert await native_call(lambda text: f"a function {text}", {"text": "x"}).aperform() == "a function x"


async def test_whether_to_cache() -> None:
    async def asked(function: Any) -> bool:
        return await drive(ask_whether_to_cache(function, {"a": 1}, "result"))

    assert await asked(None)
    assert await asked(where.cache_function)
    assert not await asked(lambda arguments, result: False)
    assert await asked(lambda arguments, result: (arguments, result) == ({"a": 1}, "result"))


def test_tool_names_are_crewais() -> None:
    assert tool_name("Ask question to coworker") == "ask_question_to_coworker"
