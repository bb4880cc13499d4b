"""The parity table, one file for each subject."""

from __future__ import annotations

from ..case import Case
from . import (
    agents,
    failures,
    flows,
    memories,
    native,
    odd,
    odd_answers,
    odd_texts,
    odd_tools,
    planning,
    react,
    tasks,
    tools,
)

_FILES = (
    react,
    native,
    failures,
    tasks,
    agents,
    memories,
    planning,
    tools,
    odd,
    odd_texts,
    odd_tools,
    odd_answers,
    flows,
)
ALL: list[Case] = [case for file in _FILES for case in file.CASES]
