"""Prints the project's dependencies, one a line, out of pyproject.toml.

    python scripts/requirements.py [EXTRA ...]

Development needs everything around the package before the package itself can be built, and pip can only install an
extra together with its package.
"""

from __future__ import annotations

import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    from pip._vendor import tomli as tomllib

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"


def requirements(names: list[str]) -> list[str]:
    """The package's own dependencies and those of the named extras."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    unknown = [name for name in names if name not in extras]
    if unknown:
        sys.exit(f"no extra named {', '.join(unknown)}; there are {', '.join(extras)}")
    return [*project["dependencies"], *(line for name in names for line in extras[name])]


if __name__ == "__main__":
    print("\n".join(requirements(sys.argv[1:])))
