"""Kickoffs as CrewAI's entry points have them: checkpoints, streams, and the crew or a copy of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from crewai.crew import Crew
from crewai.crews.crew_output import CrewOutput
from crewai.crews.utils import StreamingContext
from crewai.types.streaming import CrewStreamingOutput
from crewai.utilities.env import get_env_context
from crewai.utilities.streaming import (
    create_async_chunk_generator,
    create_chunk_generator,
    register_cleanup,
    signal_end,
    signal_error,
)

from fastcrew_async import limits
from fastcrew_async.config import settings
from fastcrew_async.deadlines import within
from fastcrew_async.engine import collector, limited
from fastcrew_async.engine.copies import exclusive
from fastcrew_async.engine.drivers import Work, drive, drive_in_place, seen
from fastcrew_async.engine.executor import AgentExecutor
from fastcrew_async.engine.nesting import entered
from fastcrew_async.engine.resumed import restored_from
from fastcrew_async.engine.run import Order, run_crew
from fastcrew_async.engine.streaming import not_streaming, streams
from fastcrew_async.errors import RunTimeoutError
from fastcrew_async.retry import Retry

Inputs = Mapping[str, Any] | None


def prepare_process() -> None:
    """What is done once per process, before its first kickoff."""
    settings()  # from here on its limits are in force
    collector.start()
    AgentExecutor.model_rebuild()


@dataclass(frozen=True)
class Terms:
    """How a run is to be carried out, besides what it computes."""

    order: Order = "listed"
    timeout: float | None = None
    priority: int = 0
    retry: Retry | None = None
    tenant: str | None = None


async def kickoff(
    crew: Crew, inputs: Inputs, input_files: Any = None, from_checkpoint: Any = None, terms: Terms = Terms()
) -> CrewOutput | CrewStreamingOutput:
    """``Crew.akickoff`` on the engine.

    Raises:
        RunTimeoutError: the run took longer than `terms` allow; it has been cancelled.
    """
    restored = await restored_from(crew, from_checkpoint)
    if restored is not None:
        return await kickoff(cast(Crew, restored), inputs, input_files, terms=terms)
    if streams(crew):
        return _stream_async(
            crew,
            lambda taken: _on_terms(taken, limited.kickoff(lambda: _work(taken, inputs, input_files, terms)), terms),
        )
    return await _on_terms(crew, _run(crew, inputs, input_files, terms), terms)


async def _on_terms(crew: Crew, work: Work[CrewOutput], terms: Terms) -> CrewOutput:
    if terms.tenant is None:
        return await _in_time(crew, work, terms)
    around = limits.tenant.set(terms.tenant)
    try:
        return await _in_time(crew, work, terms)
    finally:
        limits.tenant.reset(around)


async def _in_time(crew: Crew, work: Work[CrewOutput], terms: Terms) -> CrewOutput:
    if terms.timeout is None:
        return await drive(work, terms.priority)
    with within(terms.timeout):
        run = asyncio.create_task(drive(work, terms.priority))
    run.add_done_callback(lambda _: work.close())  # one that was cancelled before its start
    try:
        done, _ = await asyncio.wait({run}, timeout=terms.timeout)
    except asyncio.CancelledError:
        run.cancel()
        await asyncio.wait({run})
        seen(run)
        raise
    if done:
        return run.result()
    run.cancel()
    await asyncio.wait({run})
    if not run.cancelled():
        return run.result()  # it ended, or failed, at the last moment
    raise RunTimeoutError(
        f"the run of crew {crew.name!r} did not end within {terms.timeout:g} seconds; it was cancelled"
    )


async def kickoff_like_sync(crew: Crew, inputs: Inputs, input_files: Any = None) -> CrewOutput | CrewStreamingOutput:
    """``Crew.kickoff_async`` on the engine: on the loop, with the event order of ``Crew.kickoff``.

    In a task of its own: CrewAI runs it on a thread, so it leaves no context variable behind in the caller's context.
    """
    if streams(crew):
        return _stream_async(
            crew,
            lambda taken: _after_environment(lambda: limited.kickoff(lambda: run_crew(taken, inputs, input_files))),
        )
    result, interrupt = await asyncio.create_task(_held(_after_environment(lambda: _run(crew, inputs, input_files))))
    if interrupt is not None:
        raise interrupt
    return cast(CrewOutput, result)


async def _held(work: Awaitable[CrewOutput]) -> tuple[CrewOutput | None, BaseException | None]:
    """The output, or what must not leave a task: it would end the event loop, and everybody on it, or, before
    Python 3.11, lose its message."""
    try:
        return await work, None
    except (KeyboardInterrupt, SystemExit, asyncio.CancelledError) as interrupt:
        return None, interrupt


async def _after_environment(work: Callable[[], Work[CrewOutput]]) -> CrewOutput:
    get_env_context()
    return await drive(work())


def kickoff_in_place(crew: Crew, inputs: Inputs, input_files: Any = None) -> CrewOutput | CrewStreamingOutput:
    """``Crew.kickoff`` on the engine: on this thread, without an event loop."""
    get_env_context()
    if streams(crew):
        return _stream(
            crew, lambda taken: drive_in_place(limited.kickoff(lambda: run_crew(taken, inputs, input_files)))
        )
    return drive_in_place(_run(crew, inputs, input_files))


async def _run(crew: Crew, inputs: Inputs, input_files: Any, terms: Terms = Terms()) -> CrewOutput:
    return await limited.kickoff(lambda: _exclusively(crew, inputs, input_files, terms))


async def _exclusively(crew: Crew, inputs: Inputs, input_files: Any, terms: Terms) -> CrewOutput:
    with entered("crew", crew.name or "crew"), collector.BUSY, exclusive(crew) as taken:
        return await _work(taken, inputs, input_files, terms)


def _work(crew: Crew, inputs: Inputs, input_files: Any, terms: Terms) -> Work[CrewOutput]:
    return run_crew(crew, inputs, input_files, terms.order, terms.retry)


def _stream(crew: Crew, run: Callable[[Crew], Any]) -> CrewStreamingOutput:
    context = StreamingContext()

    def run_streaming() -> None:
        try:
            with (
                entered("crew", crew.name or "crew"),
                collector.BUSY,
                exclusive(crew) as taken,
                not_streaming(crew, taken),
            ):
                context.result_holder.append(run(taken))
        except Exception as error:
            signal_error(context.state, error)
        finally:
            signal_end(context.state)

    output = CrewStreamingOutput(
        sync_iterator=create_chunk_generator(context.state, run_streaming, context.output_holder)
    )
    register_cleanup(output, context.state)
    context.output_holder.append(output)
    return output


def _stream_async(crew: Crew, run: Callable[[Crew], Awaitable[CrewOutput]]) -> CrewStreamingOutput:
    context = StreamingContext(use_async=True)

    async def run_streaming() -> None:
        try:
            with (
                entered("crew", crew.name or "crew"),
                collector.BUSY,
                exclusive(crew) as taken,
                not_streaming(crew, taken),
            ):
                context.result_holder.append(await run(taken))
        except Exception as error:
            signal_error(context.state, error, is_async=True)
        finally:
            signal_end(context.state, is_async=True)

    output = CrewStreamingOutput(
        async_iterator=create_async_chunk_generator(context.state, run_streaming, context.output_holder)
    )
    register_cleanup(output, context.state)
    context.output_holder.append(output)
    return output
