from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from fastcrew_async import AsyncCrew, telemetry
from fastcrew_async.engine.kickoff import kickoff_in_place
from fastcrew_async.testing import Reply
from tests import crews
from tests.crews import storage

__all__ = ["storage"]

TEA = {"topic": "tea"}


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """What was ended so far, while everything is traced."""
    monkeypatch.delenv("OTEL_SDK_DISABLED", raising=False)
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with telemetry.observe(tracer_provider=provider):
        yield exporter


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemoryMetricReader]:
    monkeypatch.delenv("OTEL_SDK_DISABLED", raising=False)
    found = InMemoryMetricReader()
    with telemetry.observe(meter_provider=MeterProvider([found])):
        yield found


def tree(exporter: InMemorySpanExporter) -> list[tuple[str, str | None]]:
    """The name of each span and of the one that it is in, in the order in which they began."""
    spans = sorted(exporter.get_finished_spans(), key=lambda span: span.start_time or 0)
    names = {span.context.span_id: span.name for span in spans if span.context}
    return [(span.name, names.get(span.parent.span_id) if span.parent else None) for span in spans]


def points(reader: InMemoryMetricReader) -> dict[str, list[Any]]:
    """The data points of each instrument."""
    data = reader.get_metrics_data()
    assert data is not None
    metrics = [one for resource in data.resource_metrics for scope in resource.scope_metrics for one in scope.metrics]
    return {metric.name: list(metric.data.data_points) for metric in metrics}


EXPECTED = [
    ("invoke_workflow crew", None),
    ("task brew", "invoke_workflow crew"),
    ("invoke_agent Researcher", "task brew"),
    ("chat scripted", "invoke_agent Researcher"),
    ("chat scripted", "invoke_agent Researcher"),
]


def brewing() -> Any:
    crew = crews.crew(crews.use_ping, tools=[crews.ping])
    crew.tasks[0].name = "brew"
    return crew


async def test_a_run_is_a_tree_of_spans(spans: InMemorySpanExporter) -> None:
    await AsyncCrew(brewing()).kickoff(TEA)
    assert [one for one in tree(spans) if not one[0].startswith("execute_tool")] == EXPECTED


def test_in_place_as_well(spans: InMemorySpanExporter) -> None:
    kickoff_in_place(brewing(), TEA)
    assert [one for one in tree(spans) if not one[0].startswith("execute_tool")] == EXPECTED


async def test_a_tool_is_in_the_agent_that_calls_it(spans: InMemorySpanExporter) -> None:
    await AsyncCrew(brewing()).kickoff(TEA)
    assert ("execute_tool ping", "invoke_agent Researcher") in tree(spans)


async def test_runs_at_once_have_trees_of_their_own(spans: InMemorySpanExporter) -> None:
    crew = AsyncCrew(brewing())
    await asyncio.gather(*(crew.kickoff(TEA) for _ in range(20)))
    traces: dict[int, int] = {}
    for span in spans.get_finished_spans():
        assert span.context is not None
        traces[span.context.trace_id] = traces.get(span.context.trace_id, 0) + 1
    assert list(traces.values()) == [6] * 20


async def test_a_run_is_inside_the_span_of_its_caller(spans: InMemorySpanExporter) -> None:
    provider = TracerProvider()
    with provider.get_tracer("host").start_as_current_span("request") as request:
        await AsyncCrew(crews.crew()).start(TEA)
        assert trace.get_current_span() is request
    [run] = [span for span in spans.get_finished_spans() if span.name.startswith("invoke_workflow")]
    assert run.parent is not None
    assert run.parent.span_id == request.get_span_context().span_id


async def test_errors_and_cancellations_are_seen(spans: InMemorySpanExporter) -> None:
    with pytest.raises(RuntimeError):
        await AsyncCrew(crews.crew(lambda _: Reply("no", status=400), max_retry_limit=0)).kickoff(TEA)
    assert {span.attributes["error.type"] for span in spans.get_finished_spans() if span.attributes} == {"RefusedError"}
    spans.clear()
    run = AsyncCrew(crews.crew(lambda _: Reply("late", latency=60))).start(TEA)
    await asyncio.sleep(0.05)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    found: list[ReadableSpan] = list(spans.get_finished_spans())
    assert len(found) == 4
    assert {span.attributes["error.type"] for span in found if span.attributes} == {"CancelledError"}


async def test_no_text_of_the_run_is_in_a_span(spans: InMemorySpanExporter) -> None:
    await AsyncCrew(crews.crew("the secret answer")).kickoff({"topic": "a secret question"})
    assert spans.get_finished_spans()
    assert not any("secret" in span.to_json() for span in spans.get_finished_spans())


async def test_durations_tokens_and_lag_are_measured(reader: InMemoryMetricReader) -> None:
    crew = AsyncCrew(crews.crew(lambda _: Reply("done", latency=0.25)))
    await asyncio.gather(*(crew.kickoff(TEA) for _ in range(3)))
    await asyncio.to_thread(_handled)
    found = points(reader)
    [runs] = found["fastcrew.run.duration"]
    assert (runs.count, dict(runs.attributes)["gen_ai.workflow.name"]) == (3, "crew")
    assert runs.sum >= 3 * 0.25
    assert found["gen_ai.client.operation.duration"][0].count == 3
    tokens = {point.attributes["gen_ai.token.type"]: point for point in found["gen_ai.client.token.usage"]}
    assert set(tokens) == {"input", "output"}
    assert all(point.count == 3 and point.sum > 0 for point in tokens.values())
    assert found["fastcrew.loop.lag"][0].count >= 2
    assert {name for name in found if name.startswith("fastcrew.workers")} == {
        f"fastcrew.workers.{what}" for what in ("threads", "running", "waiting", "abandoned")
    }


async def test_a_loop_that_is_held_up_is_seen(reader: InMemoryMetricReader) -> None:
    run = AsyncCrew(crews.crew(lambda _: Reply("done", latency=0.4))).start(TEA)
    await asyncio.sleep(0.05)
    held = time.monotonic() + 0.2
    while time.monotonic() < held:
        pass
    await run
    assert points(reader)["fastcrew.loop.lag"][0].max >= 0.1


async def test_the_gauges_say_what_is_under_way(reader: InMemoryMetricReader) -> None:
    run = AsyncCrew(crews.crew(lambda _: Reply("done", latency=0.2))).start(TEA)
    await asyncio.sleep(0.05)
    assert points(reader)["fastcrew.runs.running"][0].value == 1
    await run
    assert points(reader)["fastcrew.runs.running"][0].value == 0


def _handled() -> None:
    from crewai.events import crewai_event_bus

    crewai_event_bus.flush()


async def test_after_close_nothing_is_recorded(spans: InMemorySpanExporter) -> None:
    with pytest.raises(RuntimeError, match="observed already"):
        telemetry.observe(tracer_provider=TracerProvider())
    current = telemetry.observer.current
    assert isinstance(current, telemetry.Telemetry)
    current.close()
    current.close()
    await AsyncCrew(crews.crew()).kickoff(TEA)
    assert spans.get_finished_spans() == ()


def test_without_a_provider_there_is_nothing_to_do() -> None:
    with pytest.raises(ValueError, match="needs a tracer_provider"):
        telemetry.observe()
    with pytest.raises(TypeError, match=r"tracer_provider=5 must be a provider .* no get_tracer\(\)"):
        telemetry.observe(tracer_provider=5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="meter_provider='x' must be a provider"):
        telemetry.observe(meter_provider="x")  # type: ignore[arg-type]
    assert telemetry.observer.current is None
