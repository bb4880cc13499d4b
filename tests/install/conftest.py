from __future__ import annotations

from tests.crews import storage

__all__ = ["storage"]
