"""The conftest under which CrewAI's own tests run here: recorded answers, no network, fresh storage.

CrewAI's sdist brings its tests and cassettes but not the ``conftest.py`` of its repository, so this stands in
for it. ``FASTCREW_CONFORMANCE=installed`` switches :func:`fastcrew_async.install` on for the whole session, ``memory``
with ``install(memory=True)``, where a memory at a path of the test's is a ``MemoryStore`` too;
``FASTCREW_CONFORMANCE_REPORT`` names the JSON file that receives every test's outcome, and
``FASTCREW_CONFORMANCE_REQUESTS`` one that receives every request a test asked its recording for. With
``FASTCREW_CONFORMANCE=recordings`` these requests come over the core: see ``recordings.py`` beside this file's source.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

# Before CrewAI is imported: it reads most of these once. The keys only have to be there, no request leaves.
os.environ.update(
    CREWAI_DISABLE_TELEMETRY="true",
    CREWAI_TRACING_ENABLED="false",
    OTEL_SDK_DISABLED="true",
    LITELLM_LOCAL_MODEL_COST_MAP="true",
    OPENAI_API_KEY="fake",
    OPENAI_API_BASE="https://api.openai.com/v1",
    ANTHROPIC_API_KEY="fake",
    GEMINI_API_KEY="fake",
    EXA_API_KEY="fake",
    OPENROUTER_API_KEY="fake",
    AZURE_API_KEY="fake",
    AZURE_API_VERSION="2024-02-15-preview",
    AZURE_ENDPOINT="https://fake-azure-endpoint.openai.azure.com",
    AWS_ACCESS_KEY_ID="fake",
    AWS_SECRET_ACCESS_KEY="fake",
    AWS_DEFAULT_REGION="us-east-1",
)

import pytest

_ENGINE = os.environ.get("FASTCREW_CONFORMANCE")
_REQUESTS = os.environ.get("FASTCREW_CONFORMANCE_REQUESTS")
_outcomes: dict[str, dict[str, str]] = {}
_requests: dict[str, list[Any]] = {}


def pytest_configure(config: pytest.Config) -> None:
    if _ENGINE in ("installed", "memory", "recordings"):
        import fastcrew_async

        if _ENGINE == "memory":
            from crewai.memory.storage.factory import set_memory_storage_factory

            of_crewai = ("lancedb", "qdrant-edge")
            set_memory_storage_factory(lambda spec: None if spec in of_crewai else fastcrew_async.MemoryStore(spec))
        fastcrew_async.install(memory=_ENGINE == "memory")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep the worst of setup, call and teardown; runs in the xdist controller for all workers."""
    outcome = "error" if report.failed and report.when != "call" else report.outcome
    rank = ["passed", "skipped", "failed", "error"]
    seen = _outcomes.setdefault(report.nodeid, {"outcome": "passed", "detail": ""})
    if rank.index(outcome) > rank.index(seen["outcome"]):
        seen.update(outcome=outcome, detail=str(report.longrepr))


def pytest_sessionfinish(session: pytest.Session) -> None:
    target = os.environ.get("FASTCREW_CONFORMANCE_REPORT")
    if target and not hasattr(session.config, "workerinput"):
        Path(target).write_text(json.dumps(_outcomes, indent=1, sort_keys=True))


def pytest_unconfigure(config: pytest.Config) -> None:
    if _REQUESTS:
        Path(_REQUESTS).write_text(json.dumps(_requests, indent=1, sort_keys=True))


@pytest.fixture(autouse=True)
def recorded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep what the test asks its recording for; with ``recordings`` it is asked through a server on loopback."""
    if not _REQUESTS or request.node.get_closest_marker("vcr") is None:
        yield
        return
    cassette = request.getfixturevalue("vcr")
    asked = _requests.setdefault(request.node.nodeid, [])
    play = type(cassette).play_response

    def noted(self: Any, sent: Any) -> Any:
        headers = {name.lower(): value for name, value in sent.headers.items()}
        asked.append([sent.method, sent.uri, headers, (sent.body or b"").decode("utf-8", "replace")])
        return play(self, sent)

    monkeypatch.setattr(type(cassette), "play_response", noted)
    if _ENGINE != "recordings":
        yield
        return
    from fastcrew_async.model import stand_in
    from fastcrew_async.model.client import Client

    address = Client._address
    with _loopback(cassette) as base:
        monkeypatch.setattr(stand_in, "_WATCHED", ())  # the recorder has patched httpx, and is asked all the same
        monkeypatch.setattr(Client, "_address", lambda self: f"{base}/{address(self)}")
        yield


@contextmanager
def _loopback(cassette: Any) -> Iterator[str]:
    """A server that plays the recording to requests for ``/{the recorded address}``."""
    from vcr.request import Request

    class Player(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            played = cassette.play_response(Request("POST", self.path[1:], body, dict(self.headers.items())))
            headers = {name.lower(): value for name, value in played["headers"].items()}
            self.send_response(played["status"]["code"])
            for name in headers.keys() - {"content-length", "content-encoding", "transfer-encoding", "connection"}:
                values = headers[name]
                for value in values if isinstance(values, list) else [values]:
                    self.send_header(name, value)
            content = played["body"]["string"]
            content = content.encode() if isinstance(content, str) else content
            if "gzip" in headers.get("content-encoding", ()) and content[:2] == b"\x1f\x8b":
                self.send_header("content-encoding", "gzip")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Player)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def vcr_cassette_dir(request: pytest.FixtureRequest) -> str:
    """``tests/cassettes`` mirrors ``tests``."""
    module = Path(request.path)
    tests = next(folder for folder in module.parents if folder.name == "tests")
    return str(tests / "cassettes" / module.parent.relative_to(tests))


@pytest.fixture(scope="module")
def vcr_config(vcr_cassette_dir: str) -> dict[str, Any]:
    """Answers are matched by endpoint, in recorded order, as CrewAI's own set-up does."""
    return {
        "cassette_library_dir": vcr_cassette_dir,
        "record_mode": "none",
        "match_on": ["method", "scheme", "host", "port", "path"],
    }


@pytest.fixture(autouse=True)
def isolated_crewai(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A fresh storage folder, event counter and scope stack; handlers that the test added are removed."""
    from crewai.events.base_events import reset_emission_counter
    from crewai.events.event_bus import crewai_event_bus
    from crewai.events.event_context import EventContextConfig, _event_context_config, _event_id_stack
    from crewai.events.listeners.tracing.trace_listener import TraceCollectionListener

    reset_emission_counter()
    _event_id_stack.set(())
    _event_context_config.set(EventContextConfig())
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as storage:
        monkeypatch.setenv("CREWAI_STORAGE_DIR", storage)
        monkeypatch.setenv("CREWAI_TESTING", "true")
        yield
    with crewai_event_bus._rwlock.w_locked():
        crewai_event_bus._sync_handlers.clear()
        crewai_event_bus._async_handlers.clear()
    TraceCollectionListener._instance = None
