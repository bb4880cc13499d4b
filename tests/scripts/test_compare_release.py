from __future__ import annotations

import json
import shutil
import textwrap
from pathlib import Path

import pytest
from crewai import __version__

from scripts import compare_release
from scripts.compare_release import SNAPSHOT, Release, checked, compare, names_text, relied_on, snapshot_text, used_by

STOCK = compare_release.installed()
KNOWN = json.loads(SNAPSHOT.read_text(encoding="utf-8"))
AGAIN = "run `python scripts/compare_release.py --write` with CrewAI " + KNOWN["crewai"]


def test_the_snapshot_is_current() -> None:
    if __version__ == KNOWN["crewai"]:
        now = compare_release.snapshot(STOCK)
        assert now["names"].keys() == KNOWN["names"].keys(), AGAIN
        assert SNAPSHOT.read_text(encoding="utf-8") == snapshot_text(now), AGAIN
    else:  # another supported release: changed perhaps, but nothing is missing
        assert not [found for found in compare(KNOWN, STOCK, {}) if found.what == "gone"]


def test_what_install_checks_is_current() -> None:
    assert compare_release.NAMES.read_text(encoding="utf-8") == names_text(checked(STOCK)), AGAIN


def test_the_installed_release_does_not_differ_from_itself() -> None:
    assert compare(compare_release.snapshot(STOCK), STOCK, {}) == []


@pytest.fixture(scope="module")
def doctored(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """A copy of the installed CrewAI with a name that is renamed, one moved, one changed and one added."""
    folder = tmp_path_factory.mktemp("release")
    shutil.copytree(STOCK.folder / "crewai", folder / "crewai", ignore=_not_python)
    crew, agent = folder / "crewai/crew.py", folder / "crewai/agent/core.py"
    _edit(crew, "_get_execution_start_index", "_execution_start_index")
    _edit(crew, "    def _post_kickoff(", "    def _newly_made(self) -> None:\n        pass\n\n    def _post_kickoff(")
    _edit(agent, "def _is_any_available_memory(self)", "def _is_any_available_memory(self, x=1)")
    old, new = folder / "crewai/utilities/rpm_controller.py", folder / "crewai/utilities/rates.py"
    old.rename(new)
    old.write_text("from crewai.utilities.rates import RPMController\n")
    return Release(folder)


def _not_python(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if "." in name and not name.endswith(".py")]


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_a_doctored_release_is_told_name_by_name(doctored: Release) -> None:
    told = {(found.what, found.name): found.detail for found in compare(KNOWN, doctored, used_by(STOCK))}
    name = "crewai.crew:Crew._get_execution_start_index"
    assert told.pop(("gone", name)) == "in engine/run.py; now perhaps in nothing"
    assert told.pop(("changed", "crewai.agent.core:Agent._is_any_available_memory")) == "in engine/agent.py"
    moved = {name for what, name in told if what == "moved"}
    assert moved == {name for name in KNOWN["names"] if name.startswith("crewai.utilities.rpm_controller:")}
    members = told.pop(("members", "crewai.crew:Crew"))
    assert members.startswith("+_execution_start_index +_newly_made -_get_execution_start_index; in ")
    assert {what for what, _ in told} <= {"moved", "changed"}
    changed = {name for what, name in told if what == "changed"}
    assert changed == {"crewai.crew:Crew._aexecute_tasks", "crewai.crew:Crew._execute_tasks"}  # they call it


def test_the_command_tells_and_exits_with_1(doctored: Release, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare_release.main([str(doctored.folder), "--diff"]) == 1
    out = capsys.readouterr().out
    assert "gone     crewai.crew:Crew._get_execution_start_index  in engine/run.py" in out
    assert "+    def _is_any_available_memory(self, x=1)" in out.replace("    +", "+    ")


def test_a_folder_without_crewai_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        Release(tmp_path)


@pytest.fixture
def small(tmp_path: Path) -> Release:
    modules = {
        "crewai/__init__.py": '__version__ = "9.9"\n',
        "crewai/crew/__init__.py": "from .body import Crew as Crew\nfrom . import body\n",
        "crewai/crew/body.py": """
            from crewai.base import Base
            LIMIT: int = 3

            class Crew(Base[int]):
                _table: dict

                def __init__(self):
                    self._made = 1

                @property
                def name(self):
                    return 1

                @name.setter
                def name(self, value):
                    pass
            """,
        "crewai/base.py": "class Base:\n    def _start(self):\n        pass\n",
    }
    for path, text in modules.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(textwrap.dedent(text))
    return Release(tmp_path)


@pytest.mark.parametrize(
    ("name", "at", "kind"),
    [
        ("crewai.crew", "crewai.crew", "module"),
        ("crewai.crew:Crew", "crewai.crew.body:Crew", "class"),
        ("crewai.crew:body.LIMIT", "crewai.crew.body:LIMIT", "value"),
        ("crewai.crew:Crew._table", "crewai.crew.body:Crew._table", "value"),
        ("crewai.crew:Crew._made", "crewai.crew.body:Crew._made", "attribute"),
        ("crewai.crew:Crew._start", "crewai.base:Base._start", "function"),
        ("crewai.crew:Crew.name", "crewai.crew.body:Crew.name", "function"),
    ],
)
def test_names_are_found_where_they_are_defined(name: str, at: str, kind: str, small: Release) -> None:
    found = small.find(name)
    assert found is not None
    assert (found.at, found.kind) == (at, kind)
    assert small.version == "9.9"


def test_a_property_is_its_getter_and_its_setter(small: Release) -> None:
    found = small.find("crewai.crew:Crew.name")
    assert found is not None
    assert found.text.count("def name") == 2


@pytest.mark.parametrize("name", ["crewai.gone", "crewai.crew:Gone", "crewai.crew:Crew._gone", "crewai.crew:Crew.a.b"])
def test_what_is_not_there_is_not_found(name: str, small: Release) -> None:
    assert small.find(name) is None


def test_what_our_source_relies_on_is_seen(small: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_release, "OWNERS", ("crewai.crew:Crew",))
    package = tmp_path / "ours"
    (package / "engine").mkdir(parents=True)
    (package / "engine" / "own.py").write_text("class Other:\n    def _start(self):\n        self._table = 1\n")
    source = """
        from importlib import import_module
        from crewai.base import Base

        body = import_module("crewai.crew.body")

        class Ours(Base):
            def _start(self):
                return body.LIMIT

        def table(crew):
            return crew._made, Pair.of(Base, "_start")
    """
    (package / "engine" / "run.py").write_text(textwrap.dedent(source))
    names = relied_on(small, package)
    assert set(names) == {
        "crewai.base:Base",
        "crewai.base:Base._start",
        "crewai.crew.body",
        "crewai.crew.body:LIMIT",
        "crewai.crew:Crew._made",
        "crewai.crew:Crew._start",
    }
    assert set.union(*names.values()) == {"engine/run.py"}
    assert checked(small, package) == ["crewai.base:Base._start", "crewai.crew.body:LIMIT", "crewai.crew:Crew._start"]
