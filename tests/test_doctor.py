from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from crewai import LLM, Agent, Crew
from crewai.agents.agent_builder.base_agent import BaseAgent
from crewai.agents.agent_executor import AgentExecutor as StockAgentExecutor
from crewai.crew import Crew as StockCrew
from crewai.llms.base_llm import BaseLLM

import fastcrew_async
from fastcrew_async import AsyncCrew, config
from fastcrew_async.doctor import Fallback, Setting, crew_at, examine
from fastcrew_async.install import apply, targets, versions
from tests import crews
from tests.crews import storage
from tests.test_cli import run

__all__ = ["storage"]


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Settings as a new process has them."""
    for name in list(os.environ):
        if name.startswith("FASTCREW_ASYNC_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(config, "_settings", None)
    yield
    fastcrew_async.uninstall()
    apply._refused = None


def fallbacks(crew: Crew) -> dict[str, Fallback]:
    return {fallback.what: fallback for fallback in examine(crew).fallbacks}


@pytest.mark.usefixtures("plain")
def test_an_ordinary_process_has_nothing_to_say() -> None:
    report = examine(crews.crew())
    assert report.crewai == metadata.version("crewai")
    assert report.refusal is None
    assert (report.installed, {target.active for target in report.names}) == (False, {False})
    assert report.settings == []
    assert report.storage_path is not None
    assert report.storage_path.endswith("fastcrew_async.db")
    assert report.storage_writable
    assert [entry for entry in report.fallbacks if entry.what != "the compiled core"] == []


@pytest.mark.usefixtures("plain")
def test_looking_changes_nothing_and_an_installed_engine_is_told() -> None:
    before = dict(vars(StockCrew))
    examine(crews.crew())
    assert dict(vars(StockCrew)) == before
    fastcrew_async.install()
    report = examine(crews.crew())
    assert (report.installed, {target.active for target in report.names}) == (True, {True})


@pytest.mark.usefixtures("plain")
def test_settings_that_differ_are_told_with_their_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTCREW_ASYNC_REPLAY_RUNS", "7")
    monkeypatch.setenv("FASTCREW_ASYNC_MAX_WORKERS", "3")
    fastcrew_async.configure(slice_seconds=0.01)
    assert examine().settings == [
        Setting("FASTCREW_ASYNC_MAX_WORKERS", "3", "64", "environment"),
        Setting("slice_seconds", "0.01", "0.002", "configure()"),
        Setting("replay_runs", "7", "1000", "FASTCREW_ASYNC_REPLAY_RUNS"),
    ]


@pytest.mark.usefixtures("plain")
def test_a_variable_that_nothing_reads_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTCREW_ASYNC_PORT", "80")
    told = {entry.name: entry for entry in examine().settings}["FASTCREW_ASYNC_PORT"]
    assert (told.value, told.source) == ("80", "environment; nothing reads it")


@pytest.mark.usefixtures("plain")
def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fastcrew_async.configure(storage_path=tmp_path / "deeper" / "file.db")
    assert examine().storage_writable
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)
    assert not examine().storage_writable


@pytest.mark.usefixtures("plain")
def test_a_setting_that_cannot_be_read_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTCREW_ASYNC_REPLAY_RUNS", "many")
    report = examine()
    assert report.refusal is not None
    assert "FASTCREW_ASYNC_REPLAY_RUNS='many'" in report.refusal
    assert [entry.instead for entry in report.fallbacks if entry.what == "every crew"] == ["stock CrewAI"]


@pytest.mark.usefixtures("plain")
def test_a_name_that_others_replaced_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    fastcrew_async.install()
    with monkeypatch.context() as patch:
        patch.setattr(StockCrew, "kickoff", lambda self: None)
        told = fallbacks(crews.crew())["crewai.crew.Crew.kickoff"]
    assert told.why == "replaced by other code after install()"


class OwnExecutor(StockAgentExecutor):
    pass


class OwnAgent(Agent):
    def execute_task(self, task: Any, context: Any = None, tools: Any = None) -> Any:
        return super().execute_task(task, context, tools)


class SyncOnly(BaseLLM):
    def call(self, *args: Any, **kwargs: Any) -> str:
        return "Final Answer: done"


@pytest.mark.parametrize("installed", [False, True])
@pytest.mark.usefixtures("plain")
def test_what_a_crew_keeps_from_the_engine(installed: bool) -> None:
    if installed:
        fastcrew_async.install()
    agents = {
        "engine": crews.agent(role="Plain"),
        "executor": crews.agent(role="Own executor", executor_class=OwnExecutor),
        "planning": crews.agent(role="Planner", planning=True),
        "override": OwnAgent(role="Own code", goal="Do", backstory="", llm=crews.agent().llm),
        "sync": crews.agent(role="Sync", llm=SyncOnly(model="sync")),
        "responses": crews.agent(role="Responses", llm=LLM(model="gpt-4o", api_key="sk-1", api="responses")),
    }
    crew = Crew(agents=list(agents.values()), tasks=[crews.task(agents["engine"])])
    told = fallbacks(crew)
    told.pop("the compiled core", None)
    assert told == {
        entry.what: entry
        for entry in [
            Fallback("agent 'Own executor'", "its own executor", "executor_class=OwnExecutor"),
            Fallback("agent 'Own code': execute_task", "the user's own code", "overridden"),
            Fallback(
                "agent 'Sync': its model", "a worker thread for each call", "SyncOnly has call() and no acall() of it"
            ),
            Fallback("agent 'Responses': its llm", "its provider's own client", "it asks the Responses API"),
        ]
    }


class Adapter(BaseAgent):
    """An agent of another framework."""

    def execute_task(self, task: Any, context: Any = None, tools: Any = None) -> str:
        return "done"

    async def aexecute_task(self, task: Any, context: Any = None, tools: Any = None) -> str:
        return "done"

    def create_agent_executor(self, tools: Any = None) -> None:
        pass

    def get_delegation_tools(self, agents: Any) -> Any:
        return []

    def get_platform_tools(self, apps: Any) -> Any:
        return []

    def get_mcp_tools(self, mcps: Any) -> Any:
        return []


@pytest.mark.usefixtures("plain")
def test_an_agent_of_another_framework_is_told() -> None:
    adapter = Adapter(role="Adapter", goal="Do", backstory="")
    told = fallbacks(Crew(agents=[adapter], tasks=[crews.task(adapter)]))
    assert told["agent 'Adapter'"].why == "it is a Adapter, no Agent"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    text = """
        from crewai import Crew
        from fastcrew_async import AsyncCrew
        from tests import crews

        one = crews.crew()
        wrapped = AsyncCrew(one)
        def build(): return one
        def broken(): raise RuntimeError("no such model")
        class Base:
            def crew(self): return one
        number = 3
        async def later(): return one
        def ends(): raise SystemExit(3)
    """
    (tmp_path / "doctored_crews.py").write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "doctored_crews", raising=False)
    return "doctored_crews"


@pytest.mark.parametrize("attribute", ["one", "wrapped", "build", "Base"])
def test_a_crew_is_found(attribute: str, module: str) -> None:
    assert crew_at(f"{module}:{attribute}") is sys.modules[module].one
    assert isinstance(sys.modules[module].wrapped, AsyncCrew)


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("gone", "AttributeError"),
        ("number", "is no crew"),
        ("broken", "RuntimeError: no such model"),
        ("Base.crew", "missing 1 required positional argument"),
        ("", "not of the form module:attribute"),
        ("later", "it is, or gives, a coroutine"),
        ("ends", "SystemExit: 3"),
    ],
)
def test_what_gives_no_crew_is_named(attribute: str, message: str, module: str) -> None:
    with pytest.raises(ValueError, match=message):
        crew_at(f"{module}:{attribute}")


def test_a_file_in_the_place_of_its_module_is_named() -> None:
    with pytest.raises(ValueError, match=r"'src/main\.py:crew' names a file; .* as main:crew"):
        crew_at("src/main.py:crew")


def test_a_crewai_that_cannot_be_imported_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise FileNotFoundError("no such folder: 'storage'")

    monkeypatch.setattr(versions, "check", fail)
    report = examine()
    assert report.refusal == "CrewAI cannot be imported: FileNotFoundError: no such folder: 'storage'"


@pytest.mark.timeout(120)
def test_the_command_fits_a_screen() -> None:
    done = run("doctor")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) <= 24
    names = len(targets.patches()) + len(targets.LENT)
    assert f"would replace {names} names:\n  crewai.agent.core, " in done.stdout
    shown = {
        f"{owner}.{name}"
        for line in done.stdout.splitlines()
        if line.startswith("  ")
        for owner in line.split(": ")[0].strip().split(", ")
        for name in line.split(": ")[1].split(", ")
    }
    assert shown == {*(patch.name for patch in targets.patches()), *targets.LENT}
    assert f"crewai          {metadata.version('crewai')} (supported: " in done.stdout


@pytest.mark.timeout(120)
def test_the_command_in_json_tells_a_refusal(tmp_path: Path) -> None:
    pretend = """
        from importlib import metadata
        real = metadata.version
        metadata.version = lambda name: "1.14.6" if name == "crewai" else real(name)
    """
    (tmp_path / "sitecustomize.py").write_text(textwrap.dedent(pretend))
    done = run("doctor", "--json", PYTHONPATH=str(tmp_path), FASTCREW_ASYNC_BACKEND="python")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert report["crewai"] == "1.14.6"
    assert "CrewAI 1.14.6 is not supported" in report["refusal"]
    assert (report["backend"], report["core"], report["names"]) == ("python", None, [])


@pytest.mark.timeout(120)
def test_the_report_alone_is_on_stdout(tmp_path: Path) -> None:
    (tmp_path / "noisy.py").write_text("print('noise')\nfrom tests.crews import crew\n")
    done = run("doctor", "--json", "--crew", "noisy:crew", PYTHONPATH=os.pathsep.join([str(tmp_path), os.getcwd()]))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["refusal"] is None
    assert "noise" in done.stderr


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("place", "message"), [("nowhere:crew", "No module named 'nowhere'"), ("", "'' is not of the")]
)
def test_the_command_names_a_crew_that_is_not_there(place: str, message: str) -> None:
    done = run("doctor", "--crew", place)
    assert done.returncode == 2
    assert message in done.stderr
