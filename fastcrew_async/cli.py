"""The commands of ``fastcrew-async``; they need the extra ``cli``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from fastcrew_async.demo.compare import Outcome

app = typer.Typer(help="CrewAI crews on the event loop.", no_args_is_help=True, add_completion=False)
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
