"""OpenTelemetry spans and metrics of the runtime, given to the providers of your choice.

Nothing is global: OpenTelemetry's global providers are neither read nor set. (CrewAI's own telemetry keeps spans of its
own, and has nothing to do with these.) No text of a prompt, an answer, an input or a tool's arguments is recorded.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, TracerProvider, set_span_in_context

import fastcrew_async
from fastcrew_async import workers
from fastcrew_async.engine import collector, observer, turnstile

if TYPE_CHECKING:
    from crewai.events.types.llm_events import LLMCallCompletedEvent

LAG_EVERY_S = 0.1
"""How often the lag of a loop is measured while runs are under way."""

_OPERATIONS: dict[observer.Kind, tuple[str, SpanKind]] = {
    "run": ("invoke_workflow", SpanKind.INTERNAL),
    "task": ("task", SpanKind.INTERNAL),
    "agent": ("invoke_agent", SpanKind.INTERNAL),
    "model": ("chat", SpanKind.CLIENT),
    "tool": ("execute_tool", SpanKind.INTERNAL),
}
"""The names of the OpenTelemetry semantic conventions for generative AI, and of our own where they have none."""

_NAMES: dict[observer.Kind, str] = {
    "run": "gen_ai.workflow.name",
    "task": "fastcrew.task.name",
    "agent": "gen_ai.agent.name",
    "model": "gen_ai.request.model",
    "tool": "gen_ai.tool.name",
}
_DURATIONS: dict[observer.Kind, str] = {
    "run": "fastcrew.run.duration",
    "task": "fastcrew.task.duration",
    "model": "gen_ai.client.operation.duration",
    "tool": "fastcrew.tool.duration",
}
_lock = threading.Lock()


def observe(*, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None) -> Telemetry:
    """Record the runs of this process, those under way excepted, until :meth:`Telemetry.close`.

    Args:
        tracer_provider: gets a span for each run, task, agent, model call and tool call, each inside the one that it
            is part of. A run is inside the span that is current where it is kicked off.
        meter_provider: gets durations, tokens, the lag of the event loops, and what waits and works in the runtime.

    Raises:
        ValueError: neither is given.
        TypeError: what is given is no provider.
        RuntimeError: the process is observed already.
    """
    if tracer_provider is None and meter_provider is None:
        raise ValueError("observe() needs a tracer_provider, a meter_provider or both")
    for name, provider, maker in (
        ("tracer_provider", tracer_provider, "get_tracer"),
        ("meter_provider", meter_provider, "get_meter"),
    ):
        if provider is not None and not callable(getattr(provider, maker, None)):
            raise TypeError(f"{name}={provider!r} must be a provider of OpenTelemetry: it has no {maker}()")
    with _lock:
        if observer.current is not None:
            raise RuntimeError("this process is observed already; close() what observe() gave before")
        telemetry = Telemetry(tracer_provider, meter_provider)
        observer.current = telemetry
    return telemetry


class Telemetry:
    """What :func:`observe` gives; also a context manager that closes it."""

    def __init__(self, tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None) -> None:
        version = fastcrew_async.__version__
        self._tracer: Tracer | None = None
        if tracer_provider is not None:
            self._tracer = tracer_provider.get_tracer("fastcrew_async", version)
        self._durations: dict[observer.Kind, Any] = {}
        self._lag: _Lag | None = None
        self._closed = False
        if meter_provider is not None:
            self._measure(meter_provider.get_meter("fastcrew_async", version))

    def __enter__(self) -> Telemetry:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Record nothing more; the spans of calls under way are still ended."""
        if self._closed:
            return
        self._closed = True
        observer.current = None
        if self._lag is not None:
            from crewai.events.event_bus import crewai_event_bus
            from crewai.events.types.llm_events import LLMCallCompletedEvent

            crewai_event_bus.off(LLMCallCompletedEvent, self._count_tokens)

    @contextmanager
    def call(self, kind: observer.Kind, name: str) -> Iterator[None]:
        """One call, for the engine."""
        operation, span_kind = _OPERATIONS[kind]
        attributes = {"gen_ai.operation.name": operation, _NAMES[kind]: name}
        span = token = None
        if self._tracer is not None:
            span = self._tracer.start_span(f"{operation} {name}".strip(), kind=span_kind, attributes=attributes)
            token = otel_context.attach(set_span_in_context(span))
        if kind == "run" and self._lag is not None:
            self._lag.watch()
        began = time.perf_counter()
        failed: dict[str, str] = {}
        try:
            yield
        except BaseException as error:
            failed = {"error.type": type(error).__qualname__}
            if isinstance(error, GeneratorExit):
                token = None  # a forgotten coroutine, closed in whatever context the collector runs
            if span is not None:
                _mark_failed(span, error)
            raise
        finally:
            if token is not None:
                otel_context.detach(token)
            if span is not None:
                span.end()
            if kind in self._durations:
                self._durations[kind].record(time.perf_counter() - began, attributes | failed)

    def _measure(self, meter: Any) -> None:
        from crewai.events.event_bus import crewai_event_bus
        from crewai.events.types.llm_events import LLMCallCompletedEvent

        for kind, name in _DURATIONS.items():
            self._durations[kind] = meter.create_histogram(name, unit="s")
        self._tokens = meter.create_histogram("gen_ai.client.token.usage", unit="{token}")
        crewai_event_bus.on(LLMCallCompletedEvent)(self._count_tokens)
        self._lag = _Lag(
            meter.create_histogram("fastcrew.loop.lag", unit="s", description="how late a timer of the loop was")
        )

        def counter(name: str, unit: str, read: Callable[[], float]) -> None:
            meter.create_observable_counter(name, [self._reader(read)], unit=unit)

        def gauge(name: str, unit: str, read: Callable[[], float]) -> None:
            meter.create_observable_gauge(name, [self._reader(read)], unit=unit)

        gauge("fastcrew.runs.running", "{run}", lambda: collector.running())
        gauge("fastcrew.workers.threads", "{thread}", lambda: _of_workers("workers"))
        gauge("fastcrew.workers.running", "{job}", lambda: _of_workers("running"))
        gauge("fastcrew.workers.waiting", "{job}", lambda: _of_workers("waiting"))
        counter("fastcrew.workers.abandoned", "{job}", lambda: _of_workers("abandoned"))
        gauge("fastcrew.turnstile.waiting", "{step}", lambda: sum(one.waiting for one in turnstile.all_stats()))
        counter("fastcrew.turnstile.waited", "s", lambda: sum(one.waited_seconds for one in turnstile.all_stats()))

    def _reader(self, read: Callable[[], float]) -> Callable[[CallbackOptions], Iterable[Observation]]:
        return lambda options: () if self._closed else (Observation(read()),)

    def _count_tokens(self, source: Any, event: LLMCallCompletedEvent) -> None:
        usage: dict[str, Any] = event.usage or {}
        for name, kind in (("prompt_tokens", "input"), ("completion_tokens", "output")):
            if usage.get(name):
                self._tokens.record(usage[name], {"gen_ai.token.type": kind, "gen_ai.request.model": event.model or ""})


class _Lag:
    """Measures how late each loop with runs serves its timers, as long as there are runs."""

    def __init__(self, histogram: Any) -> None:
        self._histogram = histogram
        self._watched: set[asyncio.AbstractEventLoop] = set()

    def watch(self) -> None:
        loop = asyncio._get_running_loop()
        if loop is not None and loop not in self._watched:
            self._watched.add(loop)
            self._wait(loop)

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        due = loop.time() + LAG_EVERY_S
        loop.call_at(due, self._measure, loop, due)

    def _measure(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._histogram.record(max(loop.time() - due, 0.0))
        if observer.current is not None and collector.running():
            self._wait(loop)
        else:
            self._watched.discard(loop)


def _mark_failed(span: Span, error: BaseException) -> None:
    name = type(error).__qualname__
    span.set_attribute("error.type", name)
    if isinstance(error, Exception):
        span.record_exception(error)
    span.set_status(Status(StatusCode.ERROR, name))


def _of_workers(what: str) -> int:
    pool = workers._pool
    return 0 if pool is None else pool.stats()[what]
