from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import fastcrew_async
from tests import crews  # noqa: F401  (imports CrewAI past its warnings)

AT_ONCE = {"Target", "install", "Stats", "stats", "status", "uninstall"}


def _imported_for_types() -> set[str]:
    tree = ast.parse(Path(fastcrew_async.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    return {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}


def test_the_three_lists_of_names_are_one() -> None:
    lazy = set(fastcrew_async._HOMES)
    assert set(fastcrew_async.__all__) == lazy | AT_ONCE | {"__version__"}
    assert _imported_for_types() == lazy
    assert dir(fastcrew_async) == sorted(fastcrew_async.__all__)
    assert list(fastcrew_async.__all__) == sorted(fastcrew_async.__all__)


@pytest.mark.parametrize("name", sorted(fastcrew_async._HOMES))
def test_each_name_comes_from_the_home_it_is_listed_with(name: str) -> None:
    value = getattr(fastcrew_async, name)
    assert value.__module__ == fastcrew_async._HOMES[name]
    assert inspect.getdoc(value)


def test_install_is_the_function_whatever_is_used_first() -> None:
    code = """
import warnings; warnings.simplefilter("ignore")
import fastcrew_async
fastcrew_async.status()
import fastcrew_async.install.targets
fastcrew_async.install(); fastcrew_async.uninstall()
from fastcrew_async import install; assert callable(install)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'fastcrew_async' has no attribute 'AsyncCrews'"):
        fastcrew_async.AsyncCrews  # noqa: B018


def test_the_import_and_the_database_do_without_crewai() -> None:
    code = "import sys, fastcrew_async; fastcrew_async.Database; assert 'crewai' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
