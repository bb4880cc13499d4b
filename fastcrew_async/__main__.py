"""The command ``fastcrew-async``, also ``python -m fastcrew_async``."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line, or says how to install what it needs."""
    try:
        from fastcrew_async.cli import app
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("typer", "rich"):
            raise
        sys.exit(f"the command line needs {missing}: pip install 'fastcrew-async[cli]'")
    app()


if __name__ == "__main__":
    main()
