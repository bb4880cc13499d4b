"""The adapter: a CrewAI crew on the caller's event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, cast, get_args

from crewai.crew import Crew
from crewai.crews.crew_output import CrewOutput

from fastcrew_async.engine import kickoff as engine
from fastcrew_async.engine.drivers import Stop
from fastcrew_async.engine.graph import graph_of
from fastcrew_async.engine.run import Order
from fastcrew_async.environment import LONGEST, is_name, is_seconds
from fastcrew_async.retry import Retry
from fastcrew_async.run import Run

if TYPE_CHECKING:
    from crewai.state.checkpoint_config import CheckpointConfig
    from crewai.types.streaming import CrewStreamingOutput

Inputs = Mapping[str, Any]
Progress = bool | Callable[[int, int], Any]


class AsyncCrew:
    """Runs a crew natively on the event loop, any number of times at once, with the results that CrewAI gives.

    The crew itself is not changed and may still be used directly.

    Args:
        crew: the crew.
        order: in which order its tasks run. ``"listed"`` is CrewAI's: one after the other, those with
            ``async_execution`` beside the following ones, and a task without a context of its own sees all outputs
            before it. ``"graph"`` starts each task as soon as the tasks of its explicit ``context`` are done: those
            that do not need each other run at the same time, also two of one agent, and a task without an explicit
            context gets none. A conditional task waits for the one listed before it. The outputs are in the listed
            order in both.
        retry: tries tasks again that failed by an error that may pass; by default the first error ends the run, as in
            CrewAI.

    Raises:
        TypeError: `crew` is not a ``crewai.Crew``, or `retry` not a ``fastcrew_async.Retry``.
        ValueError: there is no such `order`.
    """

    def __init__(self, crew: Crew, *, order: Order = "listed", retry: Retry | None = None) -> None:
        if not isinstance(crew, Crew):
            hint = "; pass an instance, not the class" if crew is Crew else ""
            raise TypeError(f"AsyncCrew needs a crewai.Crew, got {crew!r}{hint}")
        if order not in get_args(Order):
            raise ValueError(f"order={order!r} is unknown; use 'listed' or 'graph'")
        if retry is not None and not isinstance(retry, Retry):
            raise TypeError(f"retry={retry!r} must be a fastcrew_async.Retry, or None for no retries")
        self._crew = crew
        self._order: Order = order
        self._retry = retry
        engine.prepare_process()

    @property
    def crew(self) -> Crew:
        """The crew that was given."""
        return self._crew

    def __repr__(self) -> str:
        return f"AsyncCrew({self._crew!r})"

    async def kickoff(
        self,
        inputs: Inputs | None = None,
        input_files: Mapping[str, Any] | None = None,
        from_checkpoint: CheckpointConfig | None = None,
        *,
        timeout: float | None = None,
        priority: int = 0,
        tenant: str | None = None,
    ) -> CrewOutput | CrewStreamingOutput:
        """Run the crew and give its output; what ``Crew.akickoff`` gives, a stream for a crew with ``stream=True``.

        Cancelling the awaiting task cancels the run: no further model or tool call starts, its events are closed, and
        the crew can be used again at once.

        Args:
            inputs: values for the placeholders in the texts of the crew's agents and tasks.
            input_files: named files for the crew's tasks.
            from_checkpoint: where to resume from, and whether to write checkpoints.
            timeout: seconds after which the run is cancelled; those of a streaming crew count from its first chunk.
            priority: runs of a higher one get their turn on the event loop, and within the limits, first; 0 by
                default. A run inside a run has the place of the outer one.
            tenant: for whom the run works, where there are limits for tenants (see :mod:`fastcrew_async.limits`).

        Raises:
            RunTimeoutError: it did not end within `timeout`.
            TypeError: `inputs` or `input_files` is not a mapping, or `from_checkpoint` no checkpoint's configuration;
                nothing has been started.
            ValueError: `timeout` is not a number above 0; or in the order ``"graph"``, tasks wait for each other, or
                for one that is not in the crew; nothing has been started.
            Exception: what the run itself raised, as from CrewAI.
        """
        terms = self._terms(inputs, input_files, timeout, priority, tenant)
        _check_checkpoint(from_checkpoint)
        return await engine.kickoff(self._crew, inputs, cast(Any, input_files), from_checkpoint, terms)

    def start(
        self,
        inputs: Inputs | None = None,
        input_files: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        priority: int = 0,
        tenant: str | None = None,
    ) -> Run:
        """Start the crew in the background of the running event loop; a handle to await, to watch and to cancel.

        The arguments and errors are those of :meth:`kickoff`; a streaming crew is run to its end.

        Raises:
            RuntimeError: no event loop is running here.
        """
        terms = self._terms(inputs, input_files, timeout, priority, tenant)
        asyncio.get_running_loop()
        return Run(self._to_end(inputs, input_files, terms), self._crew.name or "", inputs)

    def _terms(
        self, inputs: Any, input_files: Any, timeout: float | None, priority: int, tenant: str | None
    ) -> engine.Terms:
        """What a run is asked for, checked before anything starts."""
        _check_mapping("inputs", inputs)
        _check_mapping("input_files", input_files)
        if timeout is not None and not (is_seconds(timeout) and timeout > 0):
            raise ValueError(
                f"timeout={timeout!r} must be a number of seconds above 0 (at most {LONGEST}), or None for no limit"
            )
        if type(priority) is not int:
            raise TypeError(f"priority={priority!r} must be a whole number; a higher one goes first")
        if tenant is not None and not is_name(tenant):
            raise TypeError(f"tenant={tenant!r} must be a str that is not empty, or None")
        if self._order == "graph":
            graph_of(self._crew.tasks)
        return engine.Terms(self._order, timeout, priority, self._retry, tenant)

    async def kickoff_for_each(
        self,
        inputs: Iterable[Inputs],
        *,
        concurrency: int | None = None,
        on_result: Callable[[int, CrewOutput | BaseException], Any] | None = None,
        return_exceptions: bool = False,
        progress: Progress = False,
        timeout: float | None = None,
        priority: int = 0,
        tenant: str | None = None,
    ) -> list[Any]:
        """Run the crew once for each of `inputs`; the outputs in the order of the inputs.

        Args:
            inputs: one mapping a run.
            concurrency: how many run at the same time; all of them by default.
            on_result: called with the index and the output (or, with `return_exceptions`, the error) of each run as it
                ends; awaited if it is async.
            return_exceptions: put a run's error in its place in the list. Otherwise the first error cancels the other
                runs and is raised.
            progress: True for a progress bar on the terminal, or a function that gets the number of ended runs and the
                number of all.
            timeout: seconds that each run may take, from its own start.
            priority: as in :meth:`kickoff`; a batch below 0 lets other runs go first.
            tenant: as in :meth:`kickoff`.

        Raises:
            TypeError: one of `inputs` is not a mapping, or another argument is not of its kind; nothing has been
                started.
            ValueError: `concurrency` is not a whole number of 1 or more, or `timeout` not a number above 0.
        """
        work = _listed(inputs)
        results: list[Any] = [None] * len(work)
        if on_result is not None and not callable(on_result):
            raise TypeError(f"on_result={on_result!r} must be a function of the index and the output, or None")
        async with aclosing(
            self._each(work, concurrency, return_exceptions, progress, timeout, priority, tenant)
        ) as each:
            async for index, result in each:
                results[index] = result
                if on_result is not None:
                    outcome = on_result(index, result)
                    if asyncio.iscoroutine(outcome):
                        await outcome
        return results

    def as_completed(
        self,
        inputs: Iterable[Inputs],
        *,
        concurrency: int | None = None,
        return_exceptions: bool = False,
        progress: Progress = False,
        timeout: float | None = None,
        priority: int = 0,
        tenant: str | None = None,
    ) -> AsyncGenerator[tuple[int, Any], None]:
        """Run the crew once for each of `inputs`; gives the index and the output of each run as it ends.

        Leaving the iteration cancels the runs that have not ended; at once where the iterator goes with it, as in
        ``async for ... in crew.as_completed(...)``, and at its ``aclose()`` where you hold it (see
        ``contextlib.aclosing``). The arguments are those of :meth:`kickoff_for_each`.
        """
        return self._each(_listed(inputs), concurrency, return_exceptions, progress, timeout, priority, tenant)

    async def _each(
        self,
        work: list[Inputs],
        concurrency: int | None,
        return_exceptions: bool,
        progress: Progress,
        timeout: float | None,
        priority: int,
        tenant: str | None,
    ) -> AsyncGenerator[tuple[int, Any], None]:
        if concurrency is not None and (type(concurrency) is not int or concurrency < 1):
            raise ValueError(f"concurrency={concurrency!r} must be a whole number of 1 or more, or None for no limit")
        if type(return_exceptions) is not bool:
            raise TypeError(f"return_exceptions={return_exceptions!r} must be True or False")
        if type(progress) is not bool and (not callable(progress) or iscoroutinefunction(progress)):
            raise TypeError(
                f"progress={progress!r} must be True, False, or a function of two numbers that is not async (on_result "
                "may be)"
            )
        for index, entry in enumerate(work):
            if not isinstance(entry, Mapping):
                raise TypeError(f"inputs[{index}] must be a dict or Mapping, got {type(entry).__name__}")
        terms = self._terms(None, None, timeout, priority, tenant)
        following = iter(enumerate(work))
        running: dict[asyncio.Task[Any], int] = {}
        report = _reporter(progress, len(work))
        ended = 0
        try:
            while True:
                while concurrency is None or len(running) < concurrency:
                    index, entry = next(following, (-1, {}))
                    if index < 0:
                        break
                    running[asyncio.create_task(self._to_end(entry, None, terms))] = index
                if not running:
                    return
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in sorted(done, key=running.__getitem__):
                    index = running.pop(task)
                    error = asyncio.CancelledError() if task.cancelled() else task.exception()
                    if error is not None and not return_exceptions:
                        raise error
                    ended += 1
                    report(ended)
                    yield index, error if error is not None else task.result()
        finally:
            report(None)
            await Stop(list(running)).aperform()

    async def _to_end(self, inputs: Any, input_files: Any, terms: engine.Terms) -> Any:
        """A kickoff to its end, through its stream if the crew streams."""
        output: Any = await engine.kickoff(self._crew, inputs, input_files, None, terms)
        if isinstance(output, CrewOutput):
            return output
        async for _ in output:
            pass
        return output.result


def _check_mapping(name: str, value: Any) -> None:
    if value is not None and not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dict or Mapping, got {type(value).__name__}: {value!r}")


def _check_checkpoint(value: Any) -> None:
    if value is None:
        return
    from crewai.state.checkpoint_config import CheckpointConfig

    if not isinstance(value, CheckpointConfig):
        raise TypeError(f"from_checkpoint={value!r} must be a CheckpointConfig, as CheckpointConfig(restore_from=path)")


def _listed(inputs: Any) -> list[Any]:
    if not isinstance(inputs, Iterable) or isinstance(inputs, (Mapping, str, bytes)):
        raise TypeError(f"inputs must be a list of dicts, one a run, got {type(inputs).__name__}: {inputs!r}")
    return list(inputs)


def _reporter(progress: Progress, total: int) -> Callable[[int | None], None]:
    """What is told the number of ended runs, and None at the end."""
    if callable(progress):
        tell = progress
        return lambda ended: None if ended is None else cast(None, tell(ended, total))
    if not progress:
        return lambda ended: None
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    bar = Bar(TextColumn("kickoffs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    task = bar.add_task("kickoffs", total=total)
    bar.start()
    return lambda ended: bar.stop() if ended is None else bar.update(task, completed=ended)
