from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from fastcrew_async.retry import Retry, may_pass, retry_after


def of_provider(status: int, **headers: str) -> Exception:
    """An error as the SDKs of model providers raise it."""
    error = Exception(f"status {status}")
    error.status_code = status  # type: ignore[attr-defined]
    error.response = SimpleNamespace(headers=httpx.Headers(headers))  # type: ignore[attr-defined]
    return error


def caused_by(cause: BaseException) -> Exception:
    error = ValueError("the task failed")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionResetError("gone"), True),
        (httpx.ReadTimeout("slow"), True),
        (of_provider(429), True),
        (of_provider(503), True),
        (caused_by(of_provider(500)), True),
        (caused_by(httpx.ConnectError("refused")), True),
        (of_provider(400), False),
        (of_provider(401), False),
        (ValueError("status 500"), False),
        (TimeoutError("max_execution_time"), False),
    ],
)
def test_what_may_pass(error: Exception, expected: bool) -> None:
    assert may_pass(error) is expected
    assert Retry().covers(error) is expected


def test_a_circle_of_causes_has_an_end() -> None:
    error = ValueError("first")
    error.__cause__ = caused_by(error)
    assert may_pass(error) is False


def test_which_errors_are_worth_it_can_be_said() -> None:
    assert Retry(on=KeyError).covers(KeyError("x"))
    assert not Retry(on=(KeyError, OSError)).covers(ValueError("x"))
    assert Retry(on=lambda error: "again" in str(error)).covers(ValueError("again"))


def test_what_the_provider_asks_to_wait() -> None:
    error = of_provider(429, **{"Retry-After": "7"})
    assert retry_after(caused_by(error)) == 7
    for text in ("Wed, 21 Oct 2026 07:28:00 GMT", "nan", "-1", "inf"):
        assert retry_after(of_provider(429, **{"Retry-After": text})) == 0
    assert retry_after(ValueError("no response")) == 0


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"attempts": 0}, ValueError, "attempts=0 must be a whole number of 1 or more"),
        ({"attempts": True}, ValueError, "attempts=True"),
        ({"budget": -1}, ValueError, "budget=-1 must be a whole number of 0 or more"),
        ({"backoff": -0.5}, ValueError, "backoff=-0.5 must be a number of seconds"),
        ({"longest": float("inf")}, ValueError, "longest=inf"),
        ({"backoff": "1"}, ValueError, "backoff='1'"),
        ({"on": "ValueError"}, TypeError, "on='ValueError' must be types of exceptions"),
        ({"on": (ValueError, str)}, TypeError, "must be types of exceptions"),
        ({"on": ()}, TypeError, "must be types of exceptions"),
        ({"on": KeyboardInterrupt}, TypeError, "must be types of exceptions"),
        ({"on": asyncio.sleep}, TypeError, "must not be async"),
    ],
)
def test_bad_values_are_named(wrong: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message.replace("(", r"\(")):
        Retry(**wrong)
