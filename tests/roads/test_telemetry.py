"""CrewAI's telemetry and tracing switched on, without a network."""

from __future__ import annotations

from typing import Any

import pytest
from crewai.events.event_listener import event_listener
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from fastcrew_async import workers
from tests.roads.at_once import answers, at_once, of
from tests.roads.crews import Ping, crew, ping_once


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Telemetry that is on, its spans kept here."""
    for name in ("CREWAI_DISABLE_TELEMETRY", "OTEL_SDK_DISABLED", "CREWAI_DISABLE_TRACKING"):
        monkeypatch.setenv(name, "false")
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    telemetry = event_listener._telemetry
    monkeypatch.setattr(telemetry, "ready", True)
    monkeypatch.setattr(telemetry, "trace_set", True)
    monkeypatch.setattr(telemetry, "provider", provider, raising=False)
    assert telemetry._should_execute_telemetry()
    return kept


async def test_fifty_runs_with_telemetry(spans: Any) -> None:
    seen = await at_once(of(crew(ping_once, tools=[Ping()])))
    assert seen.texts == answers()
    assert len(seen.threads) <= workers.pool().max_workers  # where CrewAI looks up its own version
    assert {span.name for span in spans.get_finished_spans()} >= {"Tool Usage"}
