"""The commands of ``fastcrew-async``; they need the extra ``cli``."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fastcrew_async.memory import commands

if TYPE_CHECKING:
    from fastcrew_async.demo.compare import Outcome
    from fastcrew_async.doctor import Report

app = typer.Typer(help="CrewAI crews on the event loop.", no_args_is_help=True, add_completion=False)
app.add_typer(commands.app, name="memory")
console = Console()


@app.command()
def demo(
    kickoffs: Annotated[
        int | None, typer.Option(min=1, show_default="100, or 3 with --real", help="How many at once, on each engine.")
    ] = None,
    latency: Annotated[float, typer.Option(min=0.0, help="Seconds the scripted model takes for an answer.")] = 0.2,
    stock: Annotated[bool, typer.Option(help="Run stock CrewAI too, for comparison.")] = True,
    real: Annotated[bool, typer.Option(help="Ask a real model (costs tokens); needs OPENAI_API_KEY.")] = False,
    model: Annotated[str, typer.Option(help="The model's name, as CrewAI takes it.")] = "openai/gpt-4o-mini",
) -> None:
    """Run a crew of three agents with tools many times at once, here and on stock CrewAI."""
    if real and not os.environ.get("OPENAI_API_KEY"):
        raise typer.BadParameter("a real model needs OPENAI_API_KEY in the environment", param_hint="--real")
    # Here and not above, so that --help does not wait for CrewAI's import.
    from fastcrew_async.demo.compare import OURS, STOCK, compare
    from fastcrew_async.demo.crew import script
    from fastcrew_async.testing import ModelServer

    count = kickoffs or (3 if real else 100)
    engines = (OURS, STOCK) if stock else (OURS,)
    if real:
        console.print(f"Three agents, a tool each, {count} kickoffs at once; the model is {model}.")
        _show(engines, compare(engines, count, model))
        return
    model_text = f"a scripted model over HTTP, {latency} s an answer"
    console.print(f"Three agents, a tool each, {count} kickoffs at once; {model_text}.", soft_wrap=True)
    with ModelServer(script, latency=latency) as server:
        _show(engines, compare(engines, count, model, server.base_url, "unused"))


def _show(engines: Sequence[str], outcomes: Iterator[Outcome]) -> None:
    """The crew's answer as soon as there is one, a line for each engine's work, and the table at the end."""
    caption = "CPU: of one kickoff, all threads. Stall: longest time the event loop ran nothing else."
    table = Table("engine", "kickoffs", "right", "wall s", "CPU ms", "stall ms", "threads", caption=caption)
    for column in table.columns[1:]:
        column.justify = "right"
    failed = False
    for engine in engines:
        with console.status(f"{engine} is at work ..."):
            outcome = next(outcomes)
        console.print(f"{engine} ({outcome.core}): [bold]{escape(outcome.answer)}[/bold]", soft_wrap=True)
        for error in outcome.errors:
            console.print(f"  [red]wrong:[/red] {escape(error)}")
        failed = failed or outcome.right != outcome.kickoffs
        table.add_row(
            engine,
            str(outcome.kickoffs),
            str(outcome.right),
            f"{outcome.wall_s:.2f}",
            f"{outcome.cpu_ms:.1f}",
            f"{outcome.stall_ms:.1f}",
            str(outcome.threads),
        )
    console.print(table)
    if failed:
        raise typer.Exit(1)


@app.command()
def status() -> None:
    """Say which core is in use, and what install() replaces in the CrewAI that is here, or why it would not."""
    from fastcrew_async import _native, install, uninstall
    from fastcrew_async import status as targets
    from fastcrew_async.errors import UnsupportedCrewAIError

    console.print(f"core: {_native.backend} ({escape(_native.reason)})", soft_wrap=True)
    try:
        install()
    except UnsupportedCrewAIError as error:
        console.print(f"install() refuses: {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from None
    try:
        for target in targets():
            state = "active" if target.active else "not active"
            console.print(f"{state}: {target.name}: {escape(target.reason)}", soft_wrap=True)
    finally:
        uninstall()


@app.command()
def doctor(
    crew: Annotated[
        str | None, typer.Option(metavar="MODULE:ATTRIBUTE", help="A crew, or what gives one, to look at as well.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Say what runs here, what install() replaces, and what would not run on the engine. Exits with 1 where install()
    would refuse."""
    from fastcrew_async.doctor import crew_at, examine

    try:
        with redirect_stdout(sys.stderr):  # what the module prints is not of the report
            found = None if crew is None else crew_at(crew)
    except (ImportError, ValueError) as error:
        raise typer.BadParameter(str(error), param_hint="--crew") from None
    report = examine(found)
    if as_json:
        typer.echo(json.dumps(asdict(report), indent=2))
    else:
        _tell(report)
    if report.refusal is not None:
        raise typer.Exit(1)


@app.command()
def model_server(
    reply: Annotated[
        list[str] | None, typer.Option(show_default="It is green.", help="An answer; of several, one after another.")
    ] = None,
    script: Annotated[
        str | None, typer.Option(metavar="MODULE:ATTRIBUTE", help="A script of fastcrew_async.testing instead.")
    ] = None,
    latency: Annotated[float, typer.Option(min=0.0, help="Seconds that an answer takes.")] = 0.0,
    port: Annotated[int, typer.Option(min=0, max=65535, show_default="a free one")] = 0,
) -> None:
    """Answer chat completions from a script on a loopback port until it is interrupted; the last answer is repeated."""
    from fastcrew_async.testing.server import ModelServer

    if reply and script:
        raise typer.BadParameter("give --reply or --script, not both", param_hint="--script")
    try:
        server = ModelServer(_script_at(script) if script else reply or "It is green.", latency=latency, port=port)
        server.start()
    except (OSError, TypeError, ValueError) as error:
        raise typer.BadParameter(str(error)) from None
    typer.echo(f"base_url: {server.base_url}")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        typer.echo(f"requests: {len(server.requests)}")
    finally:
        server.close()


def _script_at(place: str) -> Any:
    """The attribute at ``module:attribute``; modules of the working folder are found."""
    name, _, attribute = place.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return getattr(import_module(name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise typer.BadParameter(f"{place!r} gives no script: {error}", param_hint="--script") from None


def _tell(report: Report) -> None:
    """The report, a line a thing, on one screen."""

    def line(name: str, text: str) -> None:
        console.print(f"[bold]{name:<15}[/bold] {escape(text)}", soft_wrap=True, highlight=False)

    line("python", report.python)
    line("crewai", f"{report.crewai or 'not installed'} (supported: {report.crewai_supported})")
    line("fastcrew-async", report.fastcrew_async)
    core = "cannot be chosen" if report.backend is None else " ".join(filter(None, (report.backend, report.core)))
    line("core", f"{core}: {report.backend_reason}")
    uvloop = f"uvloop {report.uvloop} is there" if report.uvloop else "uvloop is not installed"
    line("event loop", f"{report.loop_policy}; {uvloop}")
    line(
        "task outputs", (report.storage_path or "unknown") + ("" if report.storage_writable else " (cannot be written)")
    )
    for index, entry in enumerate(report.settings):
        line("" if index else "settings", f"{entry.name}={entry.value} (default {entry.default}; {entry.source})")
    if not report.settings:
        line("settings", "all as by default")
    if report.refusal is not None:
        line("install()", f"refuses: {report.refusal}")
    else:
        line("install()", f"{'has replaced' if report.installed else 'would replace'} {len(report.names)} names:")
        owners: dict[str, list[str]] = {}
        for target in report.names:
            owner, _, name = target.name.rpartition(".")
            owners.setdefault(owner, []).append(name)
        alike: dict[str, list[str]] = {}
        for owner, names in owners.items():
            alike.setdefault(", ".join(names), []).append(owner)
        for listed, where in alike.items():
            console.print(f"  {escape(', '.join(where))}: {escape(listed)}", soft_wrap=True, highlight=False)
    for index, fallback in enumerate(report.fallbacks):
        line("" if index else "not on engine", f"{fallback.what}: {fallback.instead} ({fallback.why})")
    if not report.fallbacks:
        line("not on engine", "nothing")
