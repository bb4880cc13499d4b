from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fastcrew_async", *arguments],
        cwd=ROOT,
        env=os.environ | {"NO_COLOR": "1", "COLUMNS": "120"} | environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_without_arguments_it_lists_the_commands() -> None:
    done = run()
    assert "demo" in done.stdout + done.stderr
    assert "status" in done.stdout + done.stderr


@pytest.mark.parametrize("name", ["typer", "rich"])
def test_a_missing_extra_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules['{name}'] = None\n")
    done = run("demo", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.strip() == f"the command line needs {name}: pip install 'fastcrew-async[cli]'"


def test_a_real_model_needs_a_key() -> None:
    done = run("demo", "--real", OPENAI_API_KEY="")
    assert done.returncode == 2
    assert "OPENAI_API_KEY" in done.stderr


@pytest.mark.timeout(120)
def test_the_demo_ends_in_a_table_of_right_answers() -> None:
    done = run("demo", "--kickoffs", "3", "--latency", "0", "--no-stock")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Order 0 for Ada: sencha at 70 °C for 1 minute. 1 cups: 2.80 EUR." in done.stdout
    assert re.search(r"fastcrew-async\s+│\s+3 │\s+3 │", done.stdout)


@pytest.mark.parametrize("backend", ["rust", "python"])
def test_status_says_what_install_does_here(backend: str) -> None:
    done = run("status", FASTCREW_ASYNC_BACKEND=backend)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"core: {backend} (")
    assert "\nactive: crewai.crew.Crew.akickoff: " in done.stdout
    assert "not active" not in done.stdout


def test_status_says_why_install_refuses(tmp_path: Path) -> None:
    pretend = """
        from importlib import metadata
        real = metadata.version
        metadata.version = lambda name: "1.14.0" if name == "crewai" else real(name)
    """
    (tmp_path / "sitecustomize.py").write_text(textwrap.dedent(pretend))
    done = run("status", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "install() refuses: " in done.stdout
    assert "1.14.0" in done.stdout


def test_a_model_server_answers_until_it_is_interrupted(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("script = ['Blue.']\n")
    command = [sys.executable, "-m", "fastcrew_async", "model-server"]
    for options, answer in ((["--reply", "Green."], b"Green."), (["--script", "shop:script"], b"Blue.")):
        with subprocess.Popen(
            [*command, *options],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        ) as server:
            try:
                assert server.stdout is not None
                base_url = server.stdout.readline().removeprefix("base_url: ").strip()
                asked = urllib.request.Request(f"{base_url}/chat/completions", b'{"messages": []}', method="POST")
                with urllib.request.urlopen(asked, timeout=20) as reply:
                    assert answer in reply.read()
                server.send_signal(signal.SIGINT)
                assert server.stdout.read() == "requests: 1\n"
                assert server.wait(20) == 0
            finally:
                server.kill()


def test_a_model_server_needs_one_script_that_is_there() -> None:
    for options, word in (
        (("--script", "nothing:here"), "nothing:here"),
        (("--script", "x:y", "--reply", "z"), "not both"),
    ):
        done = run("model-server", *options)
        assert done.returncode == 2
        assert word in done.stderr
