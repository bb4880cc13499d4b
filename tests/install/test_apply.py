from __future__ import annotations

import asyncio
import functools
import gc
import sys
import warnings
from collections.abc import Iterator
from importlib import metadata
from types import FunctionType, ModuleType
from typing import Any
from unittest.mock import MagicMock

import crewai.agent.core
import crewai.agents
import crewai.agents.agent_executor
import crewai.flow.runtime
import crewai.knowledge.storage.factory
import crewai.memory.storage.factory
import pytest
from crewai import Agent, Crew
from crewai.agents.agent_executor import AgentExecutor as StockAgentExecutor
from crewai.flow.runtime import Flow
from crewai.llms.base_llm import BaseLLM
from crewai.llms.providers.openai.completion import OpenAICompletion
from crewai.memory.unified_memory import Memory
from crewai.state.checkpoint_config import CheckpointConfig
from crewai.tasks.llm_guardrail import LLMGuardrail
from crewai.utilities.task_output_storage_handler import TaskOutputStorageHandler

import fastcrew_async
from fastcrew_async import config, install, status, uninstall
from fastcrew_async.engine.copies import copy_of
from fastcrew_async.engine.executor import AgentExecutor
from fastcrew_async.errors import BackendUnavailableError, UnsupportedCrewAIError
from fastcrew_async.install import apply, targets
from fastcrew_async.install.patch import Patch
from fastcrew_async.testing import ScriptedLLM
from tests import crews

OWNERS = {
    "Crew": Crew,
    "Agent": Agent,
    "Flow": Flow,
    "Memory": Memory,
    "OpenAICompletion": OpenAICompletion,
    "BaseLLM": BaseLLM,
    "TaskOutputStorageHandler": TaskOutputStorageHandler,
    "crewai.agent.core": crewai.agent.core,
    "crewai.agents": crewai.agents,
    "crewai.agents.agent_executor": crewai.agents.agent_executor,
    "crewai.flow.runtime": crewai.flow.runtime,
    "crewai.knowledge.storage.factory": crewai.knowledge.storage.factory,
    "crewai.memory.storage.factory": crewai.memory.storage.factory,
}
INPUTS = {"topic": "tea"}


def names() -> dict[tuple[str, str], object]:
    return {
        (where, name): value
        for where, owner in OWNERS.items()
        for name, value in vars(owner).items()
        if name != "__warningregistry__"
    }


def changed(before: dict[tuple[str, str], object]) -> set[str]:
    after = names()
    assert after.keys() == before.keys()
    return {f"{owner}.{name}" for (owner, name), value in after.items() if value is not before[owner, name]}


@pytest.fixture(autouse=True)
def stock() -> Iterator[dict[tuple[str, str], object]]:
    """Every name as CrewAI ships it, before and after each test."""
    targets.patches()  # a lazy export becomes an attribute when it is first looked at
    before = names()
    yield before
    uninstall()
    apply._refused = None
    assert changed(before) == set()


def active() -> set[str]:
    """But what the engine lends while it is needed."""
    return {target.name for target in status() if target.active} - targets.LENT.keys()


def test_install_replaces_the_table_and_nothing_else(stock: Any) -> None:
    assert changed(stock) == set()
    install()
    assert len(changed(stock)) == len(targets.patches()) == len(active())


def everything() -> list[tuple[str, Any, str, object]]:
    """Every function, module and class that a module of CrewAI, or a class in one, has: where, its name, and itself."""
    found: list[tuple[str, Any, str, object]] = []
    for name, module in list(sys.modules.items()):
        if module is not None and name.split(".")[0] in ("crewai", "crewai_core"):
            classes = [value for value in vars(module).values() if isinstance(value, type) and value.__module__ == name]
            owners = [(name, module), *((f"{name}.{cls.__name__}", cls) for cls in classes)]
            found += [(where, owner, key, value) for where, owner in owners for key, value in vars(owner).items()]
    code = (FunctionType, ModuleType, staticmethod, classmethod, property, type)
    return [entry for entry in found if isinstance(entry[3], code)]


def test_nothing_else_in_crewai_is_replaced_by_installing_and_running() -> None:
    crews.crew("done").kickoff(INPUTS)
    before = everything()
    install()
    assert crews.crew("done", tasks=2).kickoff(INPUTS).raw == "done"
    replaced = {(where, key) for where, owner, key, value in before if vars(owner).get(key) is not value}
    # The factory of memory stores, which was None, is no code of CrewAI's.
    assert replaced == {(patch.where, patch.attribute) for patch in targets.patches() if patch.attribute != "_factory"}
    uninstall()
    assert all(vars(owner)[key] is value for _, owner, key, value in before)


def test_uninstall_leaves_every_attribute_identical(stock: Any) -> None:
    install()
    uninstall()
    assert changed(stock) == set()


def test_install_again_and_uninstall_again_do_nothing() -> None:
    install()
    once = names()
    install()
    assert changed(once) == set()
    uninstall()
    uninstall()


def test_status_before_after_and_between() -> None:
    assert {target.reason for target in status()} == {"install() has not been called"}
    assert not active()
    install()
    assert [target for target in status() if not target.active] == []
    assert all(target.reason for target in status())
    assert "crewai.crew.Crew.kickoff" in active()
    lent = {target.name for target in status() if target.reason.startswith("lent while")}
    assert lent == targets.LENT.keys()
    uninstall()
    assert not any(target.active for target in status())


def test_what_others_replace_afterwards_is_theirs() -> None:
    install()
    ours = Crew.kickoff

    def theirs(self: Any, *args: Any, **kwargs: Any) -> Any:
        return ours(self, *args, **kwargs)

    original = apply._applied[[entry.patch.attribute for entry in apply._applied].index("kickoff")].stock
    Crew.kickoff = theirs  # type: ignore[method-assign]
    try:
        replaced = next(target for target in status() if target.name == "crewai.crew.Crew.kickoff")
        assert (replaced.active, replaced.reason) == (False, "replaced by other code after install()")
        uninstall()
        assert Crew.kickoff is theirs
    finally:
        Crew.kickoff = original  # type: ignore[method-assign]


@pytest.mark.parametrize("failing", [0, 5, 11])
@pytest.mark.parametrize("how", ["make", "setattr", "missing"])
def test_a_patch_that_fails_leaves_nothing_changed(
    how: str, failing: int, stock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Sealed(type):
        def __setattr__(cls, name: str, value: Any) -> None:
            raise TypeError(f"cannot set {name}")

    def make(stock: Any) -> Any:
        raise TypeError("cannot make it")

    table = targets.patches()
    good = table[failing]
    bad = {
        "make": Patch(good.where, good.owner, good.attribute, make, "fails"),
        "setattr": Patch("sealed", Sealed("sealed", (), {"name": 1}), "name", lambda stock: 2, "fails"),
        "missing": Patch(good.where, good.owner, "gone", lambda stock: 2, "fails"),
    }
    table[failing] = bad[how]
    monkeypatch.setattr(targets, "patches", lambda: table)
    with pytest.raises(UnsupportedCrewAIError if how == "missing" else TypeError):
        install()
    assert changed(stock) == set()
    monkeypatch.undo()
    install()
    assert len(active()) == len(targets.patches())


def test_an_unsupported_version_is_refused_and_told(stock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: "1.16.0")
    with pytest.raises(UnsupportedCrewAIError, match=r"CrewAI 1\.16\.0 is not supported"):
        install()
    assert changed(stock) == set()
    (refused,) = status()
    assert not refused.active
    assert "1.16.0" in refused.reason
    monkeypatch.undo()
    install()
    assert "crewai.crew.Crew.kickoff" in active()


def test_status_tells_an_unsupported_version_before_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: "2.0")
    (refused,) = status()
    assert (refused.name, refused.active) == ("crewai", False)
    assert "2.0" in refused.reason


def test_a_renamed_attribute_is_refused_by_name(stock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.delattr(Crew, "_get_execution_start_index")
        with pytest.raises(UnsupportedCrewAIError, match=r"Crew\._get_execution_start_index"):
            install()
    assert changed(stock) == set()


def test_not_strict_warns_and_leaves_crewai_as_it_was(stock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: "1.16.0")
    with pytest.warns(RuntimeWarning, match=r"left CrewAI as it was: CrewAI 1\.16\.0") as caught:
        install(strict=False)
    assert caught[0].filename == __file__
    assert changed(stock) == set()
    assert "1.16.0" in status()[0].reason
    monkeypatch.undo()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        install(strict=False)
    assert active()


def test_a_setting_that_cannot_be_read_is_refused_before_anything_changes(
    stock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "_settings", None)
    monkeypatch.setenv("FASTCREW_ASYNC_SLICE_SECONDS", "soon")
    with pytest.raises(ValueError, match="FASTCREW_ASYNC_SLICE_SECONDS='soon' is not a number"):
        install()
    assert changed(stock) == set()
    assert apply.refusal() is not None
    monkeypatch.setenv("FASTCREW_ASYNC_SLICE_SECONDS", "0.001")
    assert apply.refusal() is None


def test_a_demanded_core_that_is_missing_keeps_its_own_error(stock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def patches() -> Any:
        raise BackendUnavailableError("no core")

    with monkeypatch.context() as patch:
        patch.setattr(targets, "patches", patches)
        with pytest.raises(BackendUnavailableError, match="no core"):
            install()
    assert changed(stock) == set()


def executors(crew: Crew) -> set[type]:
    return {type(agent.agent_executor) for agent in crew.agents}


def test_crews_made_before_and_after_are_served_and_given_back() -> None:
    early = crews.crew("done")
    assert early.kickoff(INPUTS).raw == "done"
    assert executors(early) == {StockAgentExecutor}
    install()
    late = crews.crew("done")
    for crew in (early, late):
        assert crew.kickoff(INPUTS).raw == "done"
        assert executors(crew) == {AgentExecutor}
    uninstall()
    for crew in (early, late):
        assert crew.kickoff(INPUTS).raw == "done"
        assert executors(crew) == {StockAgentExecutor}


def test_an_executor_class_of_the_users_own_is_kept() -> None:
    class Own(StockAgentExecutor):
        def invoke(self, inputs: Any) -> Any:
            return {"output": "by their own"}

    install()
    crew = crews.crew("done", executor_class=Own)
    assert crew.kickoff(INPUTS).raw == "by their own"
    assert executors(crew) == {Own}


def _by(name: str, crew: Crew) -> Any:
    given: Any = [INPUTS] if "for_each" in name else INPUTS
    result = getattr(crew, name)(given)
    if asyncio.iscoroutine(result):
        result = asyncio.run(result)
    return result[0] if "for_each" in name else result


@pytest.mark.parametrize(
    "name",
    ["kickoff", "akickoff", "kickoff_async", "kickoff_for_each", "kickoff_for_each_async", "akickoff_for_each"],
)
def test_every_way_to_start_a_crew_is_on_the_engine(name: str, executions: list[AgentExecutor]) -> None:
    install()
    assert _by(name, crews.crew("done")).raw == "done"
    assert len(executions) == 1


@pytest.mark.parametrize("name", ["kickoff", "akickoff", "kickoff_async"])
def test_a_restored_crew_is_started_by_its_own_method(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    restored = MagicMock(spec=Crew)
    getattr(restored, name).return_value = "restored"
    monkeypatch.setattr(Crew, "from_checkpoint", lambda config: restored)
    install()
    started = getattr(crews.crew("done"), name)(INPUTS, from_checkpoint=CheckpointConfig(restore_from="saved.json"))
    assert (asyncio.run(started) if asyncio.iscoroutine(started) else started) == "restored"
    getattr(restored, name).assert_called_once_with(inputs=INPUTS, input_files=None)


@pytest.mark.parametrize("name", ["kickoff", "akickoff", "kickoff_async"])
def test_a_stream_runs_the_users_own_kickoff(
    name: str, executions: list[AgentExecutor], monkeypatch: pytest.MonkeyPatch
) -> None:
    install()
    wrapped = "kickoff" if name == "kickoff_async" else name
    engines = getattr(Crew, wrapped)
    streaming: list[bool] = []

    @functools.wraps(engines)
    def own(self: Crew, *args: Any, **kwargs: Any) -> Any:
        streaming.append(self.stream)
        return engines(self, *args, **kwargs)

    monkeypatch.setattr(Crew, wrapped, own)
    crew = crews.crew("done", crew_options={"stream": True})

    async def read() -> None:
        async for _ in await getattr(crew, name)(INPUTS):
            pass

    if name == "kickoff":
        list(crew.kickoff(INPUTS))
    else:
        asyncio.run(read())
    assert streaming[-1] is False
    assert len(executions) == 1


@pytest.fixture
def installed() -> None:
    """Before any loop runs: install() reads which CrewAI there is from the disk."""
    install()


@pytest.fixture
def executions(monkeypatch: pytest.MonkeyPatch) -> list[AgentExecutor]:
    """The agent loops that ran on the engine."""
    loops: list[AgentExecutor] = []
    execute = AgentExecutor.execute

    def noted(self: AgentExecutor) -> Any:
        loops.append(self)
        return execute(self)

    monkeypatch.setattr(AgentExecutor, "execute", noted)
    return loops


@pytest.mark.parametrize("name", ["kickoff", "kickoff_async", "akickoff"])
@pytest.mark.usefixtures("installed")
async def test_an_agent_alone_is_on_the_engine(name: str, executions: list[AgentExecutor]) -> None:
    agent = crews.agent("Final Answer: done")
    result = getattr(agent, name)
    output = await (asyncio.to_thread(result, "Job") if name == "kickoff" else result("Job"))
    assert output.raw == "done"
    assert len(executions) == 1
    uninstall()
    assert (await asyncio.to_thread(agent.kickoff, "Job")).raw == "done"
    assert len(executions) == 1


def test_a_guardrail_agent_is_on_the_engine(executions: list[AgentExecutor]) -> None:
    crew = crews.crew("done")
    crew.tasks[0]._guardrail = LLMGuardrail(
        description="It is short", llm=ScriptedLLM('{"valid": true, "feedback": null}')
    )
    install()
    assert crew.kickoff(INPUTS).raw == "done"
    assert len(executions) == 2  # the agent's own, and the guardrail's


def test_a_crew_in_flight_ends_as_it_began() -> None:
    async def whole() -> Any:
        running = asyncio.create_task(crews.crew(llm=ScriptedLLM("done", latency=0.05)).akickoff(INPUTS))
        await asyncio.sleep(0)
        uninstall()
        return await running

    install()
    assert asyncio.run(whole()).raw == "done"


def test_uninstall_unfreezes() -> None:
    install()
    assert gc.get_freeze_count() > 0
    uninstall()
    assert gc.get_freeze_count() == 0


def test_copies_of_an_installed_crew_are_given_back_too() -> None:
    install()
    crew = crews.crew("done")
    crew.kickoff(INPUTS)
    copied = copy_of(crew)
    copied.kickoff(INPUTS)
    uninstall()
    assert copied.agents[0].agent_executor is None
    assert fastcrew_async.AsyncCrew(crew)
