"""Prints the project's dependencies, one a line, out of pyproject.toml.

    python scripts/requirements.py [EXTRA_OR_GROUP ...]

Development needs everything around the package before the package itself can be built, and pip learned
``--group`` only in 25.1. The names are extras or dependency groups.
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
    """The package's own dependencies and those of the named extras and groups."""
    data = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))
    tables = data["project"].get("optional-dependencies", {}) | data.get("dependency-groups", {})
    unknown = [name for name in names if name not in tables]
    if unknown:
        sys.exit(f"no extra or dependency group named {', '.join(unknown)}; there are {', '.join(tables)}")
    return [*data["project"]["dependencies"], *(line for name in names for line in tables[name])]


if __name__ == "__main__":
    print("\n".join(requirements(sys.argv[1:])))
