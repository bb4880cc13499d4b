from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest


@pytest.fixture
async def settled() -> AsyncIterator[None]:
    """For tests that leave a request: the twin's tasks and transports end a few turns after it was left."""
    yield
    while len(asyncio.all_tasks()) > 1:
        await asyncio.sleep(0.001)
    for _ in range(5):
        await asyncio.sleep(0.001)
