from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable

import pytest

from fastcrew_async.testing import ModelServer, Reply
from fastcrew_async.testing.pytest_plugin import model_server

__all__ = ["model_server"]


def asked(server: ModelServer) -> bytes:
    request = urllib.request.Request(f"{server.base_url}/chat/completions", b'{"messages": []}', method="POST")
    with urllib.request.urlopen(request, timeout=10) as answer:
        found: bytes = answer.read()
        return found


class TestServersOfATest:
    servers: list[ModelServer] = []  # noqa: RUF012 (what the first test leaves to the second)

    def test_each_call_starts_one(self, model_server: Callable[..., ModelServer]) -> None:
        one, other = model_server(), model_server([Reply(status=500), "Blue."], latency=0.01)
        assert b"It is green." in asked(one)
        with pytest.raises(urllib.error.HTTPError):
            asked(other)
        assert b"Blue." in asked(other)
        self.servers.extend([one, other])

    def test_they_are_closed_after_it(self) -> None:
        for server in self.servers:
            with pytest.raises(RuntimeError, match="not running"):
                _ = server.base_url
