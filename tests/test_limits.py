from __future__ import annotations

from typing import Any

import pytest

import fastcrew_async
from fastcrew_async import config, limits, rate_headers
from fastcrew_async.limits import Limit, Limits, parsed


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASTCREW_ASYNC_LIMITS", raising=False)
    monkeypatch.setattr(config, "_settings", None)
    monkeypatch.setattr(limits, "_permits", None)
    monkeypatch.setattr(limits, "active", None)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Limit(concurrent=-1), "concurrent=-1 must be a whole number of 1 or more"),
        (lambda: Limit(requests=True), "requests=True must be a whole number"),
        (lambda: Limit(tokens="many"), "tokens='many' must be a whole number"),  # type: ignore[arg-type]
        (lambda: Limit(window=0), "window=0 must be a number of seconds above 0"),
        (lambda: Limit(window=float("nan")), "window=nan"),
        (lambda: Limits(kickoffs=0), "kickoffs=0 must be a whole number"),
        (lambda: Limits(model=5), "model=5 must be a Limit, as"),  # type: ignore[arg-type]
        (lambda: Limits(keys={"modell:x": Limit()}), "'modell:x' is not a key; write kind:name, with a kind of kick"),
        (lambda: Limits(keys={"tool:x": 3}), r"keys\['tool:x'\]=3 must be a Limit"),  # type: ignore[dict-item]
        (lambda: Limits(keys={"tool:x": None}), r"must be a Limit, .*Limit\(\) is none"),  # type: ignore[dict-item]
        (lambda: Limits(keys=["tool:x"]), "must be a dict"),  # type: ignore[arg-type]
        (lambda: Limits(ageing=-1), "ageing=-1 must be a number of seconds above 0"),
        (lambda: Limits(learn=1), "learn=1 must be True or False"),  # type: ignore[arg-type]
    ],
)
def test_bad_input_names_the_value_and_the_fix(make: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_they_are_configured_and_taken_back() -> None:
    fastcrew_async.configure(limits=Limits(kickoffs=3))
    assert limits.active is not None
    with pytest.raises(TypeError, match="limits=5 must be a Limits object"):
        fastcrew_async.configure(limits=5)
    assert limits.active is not None
    fastcrew_async.configure(replay_runs=7)
    assert limits.active is not None
    fastcrew_async.configure(limits=None)
    assert limits.active is None


def test_they_may_be_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "FASTCREW_ASYNC_LIMITS",
        '{"kickoffs": 9, "model": {"requests": 500, "window": 30}, '
        '"keys": {"tool:a": {"concurrent": 2}}, "learn": false}',
    )
    assert fastcrew_async.settings().limits == Limits(
        kickoffs=9, model=Limit(requests=500, window=30), keys={"tool:a": Limit(concurrent=2)}, learn=False
    )
    assert limits.active is not None
    assert limits.active.kinds == {"kickoffs", "model", "tool"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "X='{' is not JSON"),
        ("[]", "must be an object; write it like"),
        ('{"kickoff": 1}', "Limits has no field 'kickoff'; its fields are ageing"),
        ('{"model": {"rpm": 1}}', "model has no field 'rpm'; its fields are concurrent"),
        ('{"model": {"requests": "1"}}', "X: requests='1' must be a whole number"),
        ('{"keys": {"tool:a": 1}}', "tool:a=1 must be an object"),
        ('{"kickoffs": 1, "kickoffs": 2}', "'kickoffs' is there twice"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_a_bad_variable_is_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match="X") as refused:
        parsed("X", text)
    assert message in str(refused.value)


def test_a_client_of_ones_own_tells_what_the_provider_says() -> None:
    limits.observe("model:m", {}, 429)  # nothing is limited: nothing happens
    fastcrew_async.configure(limits=Limits())
    headers = {"x-ratelimit-limit-requests": "500", "x-ratelimit-remaining-requests": "499"}
    limits.observe("model:m", headers | {"x-ratelimit-reset-requests": "120ms"})
    limits.observe("model:m", {"Retry-After": "7"}, 429)  # as the server has written it
    found = fastcrew_async.stats().limits["model:m"]
    assert (found.requests_limit, found.refused) == (500, 1)
    assert 6 < found.paused_seconds <= 7


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (("gpt-4o", {}), "'gpt-4o' is not a key; write kind:name"),
        (("model:m", None), "headers=None must be a dict"),
        (("model:m", {}, "429"), "status='429' must be a whole number"),
    ],
)
def test_what_tells_nothing_is_refused(told: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        limits.observe(*told)


def test_the_snapshot_of_an_idle_process() -> None:
    found = fastcrew_async.stats()
    assert (found.limits, found.runs.running, found.turnstile) == ({}, 0, None)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1", 1), ("59.5", 59.5), ("250ms", 0.25), ("6m0s", 360), ("1h2m3s", 3723), ("soon", None), ("", None)],
)
def test_how_long(text: str, seconds: float | None) -> None:
    assert rate_headers.seconds(text) == seconds


def test_dates_that_have_passed_are_now() -> None:
    assert rate_headers.seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert rate_headers.seconds("2015-10-21T07:28:00Z") == 0


def test_what_headers_say() -> None:
    said = {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "anthropic-ratelimit-tokens-limit": "1000",
        "anthropic-ratelimit-tokens-remaining": "0",
        "anthropic-ratelimit-tokens-reset": "2015-10-21T07:28:00Z",
    }
    assert list(rate_headers.limits(said)) == [(False, (60, 59, 1.0)), (True, (1000, 0, 0.0))]
    assert list(rate_headers.limits(said | {"x-ratelimit-limit-requests": "unlimited"})) == [(True, (1000, 0, 0.0))]
    for odd in ("\N{SUPERSCRIPT TWO}", "9" * 5000, "9" * 400, "-1"):
        assert list(rate_headers.limits(said | {"x-ratelimit-limit-requests": odd})) == [(True, (1000, 0, 0.0))]
        assert list(rate_headers.limits(said | {"x-ratelimit-remaining-requests": odd})) == [(True, (1000, 0, 0.0))]
    assert rate_headers.seconds("Jan 99999 +23:5901 99999999999999999999") is None
    assert rate_headers.retry_after({"retry-after-ms": "1500", "retry-after": "9"}) == 1.5
    assert rate_headers.retry_after({"retry-after": "99999999"}) == 3600
    assert rate_headers.retry_after({}) == rate_headers.UNSAID
