"""The choice of the backend, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SHOW = "from fastcrew_async import _native; print(_native.backend, _native.reason, _native.Runtime.__module__, sep='|')"
WITHOUT_CORE = "import sys; sys.modules['fastcrew_async._core'] = None; "


def choose(backend: str | None, code: str = SHOW) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != "FASTCREW_ASYNC_BACKEND"}
    if backend is not None:
        env["FASTCREW_ASYNC_BACKEND"] = backend
    return subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=30, check=False
    )


@pytest.mark.parametrize("backend", ["python", " Python "])
def test_python_is_what_was_asked_for(backend):
    assert choose(backend).stdout == (
        f"python|FASTCREW_ASYNC_BACKEND=python|fastcrew_async._fallback.runtime{os.linesep}"
    )


@pytest.mark.parametrize("backend", ["rust", "auto", "", None])
def test_the_core_is_taken_where_it_is(backend):
    pytest.importorskip("fastcrew_async._core", reason="the compiled core is not built here")
    chosen, reason, module = choose(backend).stdout.strip().split("|")
    assert (chosen, module) == ("rust", "fastcrew_async._core")
    assert "the compiled core is here" in reason


def test_auto_does_without_the_core_and_says_why():
    chosen, reason, _ = choose("auto", WITHOUT_CORE + SHOW).stdout.strip().split("|")
    assert chosen == "python"
    assert "cannot be loaded" in reason


def test_rust_without_the_core_is_an_error_with_the_fix():
    done = choose("rust", WITHOUT_CORE + SHOW)
    assert done.returncode == 1
    assert "fastcrew_async.errors.BackendUnavailableError" in done.stderr
    assert "set FASTCREW_ASYNC_BACKEND=auto" in done.stderr


def test_another_word_is_an_error():
    done = choose("rusty")
    assert done.returncode == 1
    assert "FASTCREW_ASYNC_BACKEND='rusty' is not a backend; use rust, python or auto" in done.stderr
