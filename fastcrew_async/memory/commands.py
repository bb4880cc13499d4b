"""``fastcrew-async memory``: a look into a store, and its transfers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fastcrew_async.memory.store import MemoryStore

app = typer.Typer(help="The memories of a store.", no_args_is_help=True)

Folder = Annotated[
    Path | None,
    typer.Option("--path", help="The store's folder.", show_default="fastcrew_memory where CrewAI keeps memories"),
]
Scope = Annotated[str | None, typer.Option(help="What a record's scope begins with.")]


def _store(path: Path | None) -> MemoryStore:
    # Here and not above, so that --help does not wait for CrewAI's import.
    from fastcrew_async.errors import DatabaseError
    from fastcrew_async.memory.store import MemoryStore, default_path

    folder = Path(default_path()) if path is None else path
    if not (folder / "records.db").is_file():
        raise typer.BadParameter(f"{folder} holds no memories", param_hint="--path")
    store = MemoryStore(folder)
    try:
        store.count()
    except DatabaseError as error:
        raise typer.BadParameter(str(error), param_hint="--path") from None
    return store


@app.command()
def search(
    text: str,
    path: Folder = None,
    scope: Scope = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 10,
) -> None:
    """Find records by words."""
    for record, score in _store(path).search_words(text, scope, limit=limit):
        typer.echo(f"{score:8.3f}  {record.scope}  {record.id}  {' '.join(record.content.split())[:200]}")


@app.command()
def stats(path: Folder = None) -> None:
    """Tell how much there is."""
    store = _store(path)
    sizes = store.stats()
    for name in ("records", "dimensions", "slots", "dead_slots", "records_bytes", "free_bytes", "vectors_bytes"):
        typer.echo(f"{name:<14} {getattr(sizes, name):,}")
    for child in store.get_scope_info("/").child_scopes:
        typer.echo(f"{child:<14} {store.count(child):,}")


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="A LanceDB folder of CrewAI's, or a file of JSON lines; - is stdin.")],
    path: Folder = None,
) -> None:
    """Copy records into a store; those that it has are passed over."""
    from fastcrew_async.errors import DatabaseError
    from fastcrew_async.memory import transfer
    from fastcrew_async.memory.store import MemoryStore

    store = MemoryStore(path)
    try:
        if source.is_dir():
            count = transfer.import_lancedb(store, source)
        elif str(source) == "-":
            count = transfer.import_jsonl(store, sys.stdin)
        else:
            with source.open(encoding="utf-8") as file:
                count = transfer.import_jsonl(store, file)
    except DatabaseError as error:
        raise typer.BadParameter(str(error), param_hint="--path") from None
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error), param_hint="SOURCE") from None
    typer.echo(f"{count:,} records imported into {store.path}")


@app.command()
def export(
    path: Folder = None,
    scope: Scope = None,
    vectors: Annotated[bool, typer.Option(help="Write the vectors too.")] = True,
) -> None:
    """Write records as JSON lines to stdout."""
    from fastcrew_async.memory import transfer

    transfer.export_jsonl(_store(path), sys.stdout, scope, vectors)


@app.command()
def compact(path: Folder = None) -> None:
    """Give the places of deleted vectors back."""
    typer.echo(f"{_store(path).compact()} files removed")
