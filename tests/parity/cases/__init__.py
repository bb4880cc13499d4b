"""The parity table, one file for each subject."""

from __future__ import annotations

from ..case import Case
from . import react

ALL: list[Case] = [*react.CASES]
