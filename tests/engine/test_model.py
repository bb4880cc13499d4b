from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from crewai import LLM
from crewai.events.event_context import _event_id_stack
from crewai.hooks import clear_before_llm_call_hooks, register_before_llm_call_hook
from crewai.hooks.llm_hooks import model_call_hooks_already_dispatched
from crewai.llms.base_llm import BaseLLM

from fastcrew_async.engine.drivers import drive, drive_in_place
from fastcrew_async.engine.kickoff import kickoff_in_place
from fastcrew_async.engine.model import CallModel, counts_here, has_async_side
from fastcrew_async.testing import ScriptedLLM
from tests import crews


class Sync(BaseLLM):
    """What a user writes who knows only ``call``."""

    def call(self, messages: Any, **kwargs: Any) -> Any:
        return threading.current_thread() is threading.main_thread()


class Async(Sync):
    async def acall(self, messages: Any, **kwargs: Any) -> Any:
        return f"on the loop with {kwargs}"


class SyncOverAsync(Async):
    def call(self, messages: Any, **kwargs: Any) -> Any:
        return "the subclass's"


class Plain:
    """Not a model of CrewAI at all."""

    def call(self, messages: Any, **kwargs: Any) -> Any:
        return "plain"


def _with(name: str) -> Any:
    llm = Async(model="m")
    llm.__dict__[name] = lambda *args, **kwargs: None
    return llm


@pytest.mark.parametrize(
    ("make", "has"),
    [
        (lambda: Sync(model="m"), False),
        (lambda: Async(model="m"), True),
        (lambda: SyncOverAsync(model="m"), False),
        (lambda: type("Empty", (Async,), {})(model="m"), True),
        (lambda: type("Empty", (Sync,), {})(model="m"), False),
        (lambda: ScriptedLLM("x"), True),
        (lambda: _with("call"), False),
        (lambda: _with("acall"), True),
        (Plain, False),
    ],
    ids=[
        "call only",
        "both",
        "subclass with call only",
        "subclass of both",
        "subclass of call only",
        "scripted",
        "call replaced on the object",
        "acall replaced on the object",
        "no model of CrewAI",
    ],
)
def test_has_async_side(make: Any, has: bool) -> None:
    assert has_async_side(make()) is has


def test_a_model_of_crewai_has_one() -> None:
    assert has_async_side(LLM(model="gpt-4o-mini", api_key="none"))


def test_a_patched_call_takes_it_away(monkeypatch: pytest.MonkeyPatch) -> None:
    llm = Async(model="m")
    monkeypatch.setattr(Async, "call", mock.Mock(return_value="patched"), raising=False)
    assert not has_async_side(llm)


async def _ask(llm: Any, **kwargs: Any) -> Any:
    async def work() -> Any:
        return await CallModel(llm, [], **kwargs)

    return await drive(work())


async def test_a_sync_model_is_called_off_the_loop() -> None:
    assert await _ask(Sync(model="m")) is False


async def test_an_async_model_is_called_on_the_loop_with_its_arguments() -> None:
    assert await _ask(Async(model="m"), tools=None) == "on the loop with {'tools': None}"


def test_in_place_the_model_is_called_here() -> None:
    async def work() -> Any:
        return await CallModel(Sync(model="m"), [])

    assert drive_in_place(work()) is True


@pytest.mark.parametrize("on_loop", [False, True])
async def test_a_failing_call_leaves_no_scope_open(on_loop: bool) -> None:
    class Failing(BaseLLM):
        def call(self, messages: Any, **kwargs: Any) -> Any:
            _event_id_stack.set((*_event_id_stack.get(), ("id", "llm_call_started")))
            raise RuntimeError("down")

        async def acall(self, messages: Any, **kwargs: Any) -> Any:
            return self.call(messages)

    scope = _event_id_stack.get()
    effect = CallModel(Failing(model="m"), [])
    with pytest.raises(RuntimeError, match="down"):
        await effect.aperform() if on_loop else effect.perform()
    assert _event_id_stack.get() is scope


class CountsElsewhere(Async):
    def get_input_tokens_count(self, *args: Any, **kwargs: Any) -> int:
        return 1


@pytest.mark.parametrize(
    ("make", "here"),
    [
        (lambda: Async(model="m"), True),
        (lambda: CountsElsewhere(model="m"), False),
        (lambda: ScriptedLLM(["x"]), True),
        (lambda: LLM(model="gpt-4o-mini", api_key="k", base_url="http://127.0.0.1:1/v1"), True),
        (lambda: LLM(model="gpt-4o-mini", api_key="k"), False),  # it asks OpenAI's server
    ],
)
def test_tokens_are_counted_here_only_where_no_server_is_asked(
    make: Any, here: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE"):
        monkeypatch.delenv(name, raising=False)
    assert counts_here(make()) is here


def test_the_openai_package_is_imported_off_the_loop(tmp_path: Path) -> None:
    program = """
import asyncio, sys, threading
import fastcrew_async
from crewai import Agent, Crew, LLM, Task
from fastcrew_async.testing import ModelServer

PACKAGE = "openai.resources"
by = []

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == PACKAGE:
            by.append(threading.current_thread() is threading.main_thread())

sys.meta_path.insert(0, Watch())
fastcrew_async.install()
with ModelServer("It is green.") as server:
    llm = LLM(model="openai/gpt-4o-mini", base_url=server.base_url, api_key="sk-1")
    agent = Agent(role="Taster", goal="Taste", backstory="Old.", llm=llm)
    crew = Crew(agents=[agent], tasks=[Task(description="Taste.", expected_output="A word.", agent=agent)])
    assert PACKAGE not in sys.modules
    print(asyncio.run(crew.akickoff()).raw, by)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env=os.environ | {"CREWAI_STORAGE_DIR": str(tmp_path), "CREWAI_DISABLE_TELEMETRY": "true"},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert (done.returncode, done.stdout) == (0, "It is green. [False]\n"), done.stderr


@pytest.mark.parametrize("hooked", [False, True])
def test_a_models_own_code_finds_the_hooks_run(hooked: bool) -> None:
    seen: list[Any] = []

    class Looking(ScriptedLLM):
        def call(self, *args: Any, **kwargs: Any) -> Any:
            seen.append(model_call_hooks_already_dispatched())
            return super().call(*args, **kwargs)

    if hooked:
        register_before_llm_call_hook(lambda context: seen.append(len(context.messages)))
    try:
        crews.crew(llm=Looking("done")).kickoff()
        assert kickoff_in_place(crews.crew(llm=Looking("done")), None)
    finally:
        clear_before_llm_call_hooks()
    assert seen == ([2, True, 2, True] if hooked else [True, True])
    assert not model_call_hooks_already_dispatched()
