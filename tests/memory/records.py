"""Records to store."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Any

from crewai.memory.types import MemoryRecord

START = datetime(2026, 1, 1)


def record(number: int, **fields: Any) -> MemoryRecord:
    """A record told by its number: its id, its content, and its time, in minutes."""
    made = {"id": f"r{number}", "content": f"thought {number}", "created_at": START + timedelta(minutes=number)}
    return MemoryRecord(**{**made, "last_accessed": START, **fields})


def unit(seed: int, dim: int = 8) -> list[float]:
    """A vector of length 1."""
    numbers = [random.Random(f"{seed} {index}").gauss(0, 1) for index in range(dim)]
    length = sum(number * number for number in numbers) ** 0.5
    return [number / length for number in numbers]
