"""The folder in which CrewAI's tests run: its sdist, our conftest, and an environment over the running one.

The environment adds what only these tests need (other providers' SDKs, recorded HTTP) and sees the running
environment's packages behind its own, so CrewAI and fastcrew-async are the ones of the checkout.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
FOLDER = HERE.parents[1] / ".conformance"


@dataclass(frozen=True)
class Suite:
    """CrewAI's tests and the interpreter that runs them."""

    version: str
    tests: Path
    python: Path


def prepare(folder: Path = FOLDER) -> Suite:
    """Fetch and lay out what is missing in `folder`; needs the package index the first time.

    Raises:
        subprocess.CalledProcessError: pip could not download or install; its output has said why.
    """
    folder.mkdir(exist_ok=True)
    crewai = version("crewai")
    tests = folder / f"crewai-{crewai}" / "tests"
    if not tests.is_dir():
        _unpack_sdist("crewai", crewai, folder)
    files = folder / "crewai-files"  # beside CrewAI, as in its repository: the tests take their pictures from it
    if not files.is_dir():
        _unpack_sdist("crewai-files", crewai, folder).rename(files)
    shutil.copy(HERE / "suite_conftest.py", tests / "conftest.py")
    return Suite(crewai, tests, _environment(crewai, folder / "venv"))


def _unpack_sdist(package: str, release: str, folder: Path) -> Path:
    _pip(sys.executable, "download", "--no-deps", "--no-binary", package, "-d", str(folder), f"{package}=={release}")
    unpacked = f"{package.replace('-', '_')}-{release}"
    with tarfile.open(folder / f"{unpacked}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / unpacked


def _environment(crewai: str, venv: Path) -> Path:
    requirements = (HERE / "requirements.txt").read_text().format(version=crewai)
    python = venv / "bin" / "python"
    made_of = hashlib.sha256(f"{sys.version}\n{sysconfig.get_path('purelib')}\n{requirements}".encode()).hexdigest()
    stamp = venv / ".made-of"
    if stamp.is_file() and stamp.read_text() == made_of:
        return python
    shutil.rmtree(venv, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    packages = next(venv.glob("lib/python*/site-packages"))
    behind = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    (packages / "behind.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in behind))
    (venv / "requirements.txt").write_text(requirements)
    _pip(str(python), "install", "-r", str(venv / "requirements.txt"))
    stamp.write_text(made_of)
    return python


def _pip(python: str, *arguments: str) -> None:
    subprocess.run([python, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments], check=True)
