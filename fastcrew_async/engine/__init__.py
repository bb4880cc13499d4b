"""The engine: CrewAI's execution layer, written once, without I/O, and driven on a loop or in place."""

from fastcrew_async.install import versions

# Before any module of the engine meets a CrewAI that it was not made for.
versions.check()
