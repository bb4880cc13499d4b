"""What the core says in Python's logging: what, when, and that nothing is lost; compiled and in plain Python."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from fastcrew_async import core_log, runtime
from fastcrew_async.errors import HttpConnectionError
from fastcrew_async.testing import ModelServer, Reply

Said = Callable[[str], list[tuple[str, str]]]


@pytest.fixture
def said(backend: SimpleNamespace, caplog: pytest.LogCaptureFixture) -> Iterator[Said]:
    """``said(topic)``: the levels and texts of a topic so far, all levels being wanted."""

    def said(topic: str) -> list[tuple[str, str]]:
        core_log.flush()
        records = [record for record in caplog.records if record.name == f"fastcrew_async.core.{topic}"]
        return [(record.levelname, record.getMessage()) for record in records]

    core_log.start()
    core_log.flush()
    with caplog.at_level(logging.DEBUG, "fastcrew_async.core"):
        core_log.start()  # which looks at the levels
        caplog.clear()
        yield said
    core_log.start()


def client(backend: SimpleNamespace) -> Any:
    return backend.HttpClient(runtime.get(), 5.0, [], "", [], True, 100)


def body() -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()


async def test_a_runtime_says_when_it_starts_and_ends(said: Said, backend: SimpleNamespace) -> None:
    assert said("runtime") == []
    await runtime.sleep(0)
    (start,) = said("runtime")
    assert start[0] == "DEBUG"
    assert start[1].startswith(f"started in process {os.getpid()}")
    runtime.close()
    assert said("runtime")[1:] == [("DEBUG", "closed")]


async def test_a_request_says_where_it_went_and_how_it_ended_and_tells_no_secret(
    said: Said, backend: SimpleNamespace
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{unused.getsockname()[1]}"
        asked = client(backend).post(
            f"http://me:hidden@{nobody}/v1?key=hidden", [("key", "hidden")], b"hidden", 5.0, 9.0
        )
        with pytest.raises(HttpConnectionError):
            await asked
    ((level, text),) = said("http")
    assert level == "INFO"
    assert text.startswith(f"no answer from {nobody} after ")
    assert "hidden" not in text


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer([Reply.rate_limited(1.0), Reply("fine"), Reply(fault="stall")]) as server:
        yield server


async def test_an_answer_that_refuses_is_more_than_one_that_serves(
    server: ModelServer, said: Said, backend: SimpleNamespace, until: Any
) -> None:
    url, place, of = f"{server.base_url}/chat/completions", server.base_url.split("/")[2], client(backend)
    for _ in range(2):
        await of.post(url, [], body(), 5.0, 9.0)
    given_up = asyncio.ensure_future(of.post(url, [], body(), None, None))
    await until(lambda: server.in_flight == 1)
    given_up.cancel()
    await until(lambda: len(said("http")) == 3)
    refused, served, silent = said("http")
    assert (refused[0], served[0], silent[0]) == ("INFO", "DEBUG", "DEBUG")
    assert refused[1].startswith(f"{place} answered 429 after ")
    assert served[1].startswith(f"{place} answered 200 after ")
    assert silent[1].startswith(f"a call of {place} was given up after ")


def test_limits_say_what_they_learn_and_who_waits_long(said: Said, backend: SimpleNamespace) -> None:
    limiter = backend.Limiter()
    limiter.configure({"model": (1, None, None, 60.0)}, 30.0, 0.0)
    assert limiter.acquire(1, ["model:m"], 10, (0, 0), 0.0)[0] == [1]
    for remaining in (2, 1):  # the second says nothing new
        limiter.observe("model:m", 1, False, (60, remaining, 5.0), 1.0)
    limiter.pause("model:m", 2.0, 2.0)
    assert limiter.acquire(2, ["model:m"], 10, (0, 0), 3.0)[0] == []
    assert limiter.release(1, 10, 90.0)[0] == [2]
    assert said("limits") == [
        ("INFO", "model:m: the provider allows 60 requests in 60 s, of which 2 are left"),
        ("INFO", "model:m: the provider refuses, nothing goes for 2 s"),
        ("INFO", "model:m: let through after 87 s"),
    ]


async def test_lines_come_by_themselves_with_their_own_time(
    said: Said, backend: SimpleNamespace, caplog: pytest.LogCaptureFixture, until: Any
) -> None:
    before = time.time()
    await runtime.sleep(0)
    after = time.time()
    await until(lambda: bool(caplog.records))
    (record,) = caplog.records
    assert before - 1e-3 <= record.created <= after + 1e-3
    assert record.msecs == pytest.approx(record.created % 1 * 1e3, abs=1.1)
    assert (record.name, record.levelno) == ("fastcrew_async.core.runtime", logging.DEBUG)


def test_what_no_logger_wants_is_not_kept(said: Said, backend: SimpleNamespace) -> None:
    limiter = backend.Limiter()
    limiter.configure({"model": (1, None, None, 60.0)}, 30.0, 0.0)
    core_log.limits.setLevel(logging.WARNING)
    try:
        core_log.start()
        limiter.pause("model:m", 2.0, 2.0)
    finally:
        core_log.limits.setLevel(logging.NOTSET)
    core_log.start()
    assert said("limits") == []
    limiter.pause("model:m", 3.0, 2.0)
    assert [text for _, text in said("limits")] == ["model:m: the provider refuses, nothing goes for 3 s"]


def test_what_was_dropped_is_told_and_a_filter_that_raises_keeps_nothing_up(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [(core_log.http.name, logging.ERROR, 1.5, "fastcrew-core", text) for text in ("one", "100 %s")]

    def refuse(record: logging.LogRecord) -> bool:
        if record.msg == "one":
            raise ValueError("of the filter")
        return True

    core_log.http.addFilter(refuse)
    try:
        core_log._hand_over(SimpleNamespace(log_take=lambda: (lines, 7)))
    finally:
        core_log.http.removeFilter(refuse)
    dropped, kept = caplog.records
    assert dropped.getMessage().startswith("7 lines of the core's log were dropped")
    assert (kept.getMessage(), kept.created, kept.msecs, kept.threadName) == ("100 %s", 1.5, 500.0, "fastcrew-core")
    assert "of the filter" in capsys.readouterr().err


_SAY = """
import logging, os, sys
logging.basicConfig(level=logging.DEBUG, format="%(name)s %(message)s", stream=sys.stdout)
from fastcrew_async import runtime
runtime.get()
if sys.argv[1] == "fork":
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        sys.exit()
    runtime.get()
"""


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("way", ["exit", "fork"])
def test_the_last_lines_come_before_the_interpreter_exits(backend: SimpleNamespace, way: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _SAY, way],
        env={**os.environ, "FASTCREW_ASYNC_BACKEND": backend.name},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    lines = [line for line in done.stdout.splitlines() if "fastcrew_async.core.runtime started in process" in line]
    assert len(set(lines)) == len(lines) == (2 if way == "fork" else 1)
