"""The parity table, one file for each subject."""

from __future__ import annotations

from ..case import Case
from . import agents, failures, native, react, tasks, tools

ALL: list[Case] = [*react.CASES, *native.CASES, *failures.CASES, *tasks.CASES, *agents.CASES, *tools.CASES]
