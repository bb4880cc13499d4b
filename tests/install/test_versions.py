from __future__ import annotations

import subprocess
import sys
import textwrap
from importlib import metadata
from pathlib import Path

import crewai
import pytest
from packaging.specifiers import SpecifierSet

from fastcrew_async.errors import UnsupportedCrewAIError
from fastcrew_async.install import versions

ROOT = Path(__file__).parents[2]


def claim(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: version)


def test_the_installed_crewai_is_supported() -> None:
    versions.check()
    assert SpecifierSet(versions.SUPPORTED).contains(crewai.__version__)


@pytest.mark.parametrize("version", ["1.15.29", "1.15.30", "1.15.99", "1.15.31a1"])
def test_supported_versions(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    claim(monkeypatch, version)
    versions.check()


@pytest.mark.parametrize("version", ["1.15.28", "1.16", "1.16.0", "1.16.0a1", "2.0", "0.1", "unknown"])
def test_others_are_refused_by_name(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    claim(monkeypatch, version)
    with pytest.raises(UnsupportedCrewAIError, match=rf"CrewAI {version} is not supported.*1\.15\.29"):
        versions.check()


def test_no_crewai_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    with pytest.raises(UnsupportedCrewAIError, match="not installed; install crewai"):
        versions.check()


@pytest.mark.parametrize(
    ("name", "patched", "attribute"),
    [
        ("crewai.crew:Crew._get_execution_start_index", "crewai.crew.Crew", "_get_execution_start_index"),
        ("crewai.utilities.file_store:_CREW_PREFIX", "crewai.utilities.file_store", "_CREW_PREFIX"),
    ],
)
def test_a_renamed_name_is_told(name: str, patched: str, attribute: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(f"{patched}.{attribute}")
    with pytest.raises(UnsupportedCrewAIError, match=f"lacks {name}, which the engine needs"):
        versions.check()


def test_a_module_that_is_gone_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "NAMES", ("crewai.gone:Name",))
    with pytest.raises(UnsupportedCrewAIError, match=r"lacks crewai\.gone:Name"):
        versions.check()


@pytest.mark.parametrize("use", ["from fastcrew_async import AsyncCrew", "fastcrew_async.install()"])
def test_another_release_is_refused_whatever_is_used_first(use: str) -> None:
    program = f"""
        from importlib import metadata
        real = metadata.version
        metadata.version = lambda name: "1.14.7" if name == "crewai" else real(name)
        import fastcrew_async
        try:
            {use}
        except ImportError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.stdout.startswith("CrewAI 1.14.7 is not supported: "), done.stderr
