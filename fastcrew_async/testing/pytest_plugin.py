"""A pytest fixture: model servers for a test.

In your ``conftest.py``: ``pytest_plugins = ["fastcrew_async.testing.pytest_plugin"]``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from fastcrew_async.testing.script import Script
from fastcrew_async.testing.server import ModelServer


@pytest.fixture
def model_server() -> Iterator[Callable[..., ModelServer]]:
    """Starts a :class:`ModelServer` with a script, as often as it is called; they are closed after the test."""
    with ExitStack() as servers:

        def start(script: Script = "It is green.", **options: Any) -> ModelServer:
            return servers.enter_context(ModelServer(script, **options))

        yield start
