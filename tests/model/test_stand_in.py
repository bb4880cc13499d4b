"""Which clients of the openai package the core stands in for."""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock, patch

import httpcore
import httpx
import openai
import pytest
from openai import AsyncAzureOpenAI, AsyncOpenAI, OpenAI
from openai.resources.chat.completions import AsyncCompletions, Completions

from fastcrew_async.model.client import AsyncClient, LateResponse, SyncClient
from fastcrew_async.model.stand_in import reason, stand_in

KEY = {"api_key": "sk-1"}


@pytest.mark.parametrize(("kind", "ours"), [(OpenAI, SyncClient), (AsyncOpenAI, AsyncClient)])
def test_the_packages_own_clients_are_stood_in_for(kind: Any, ours: Any) -> None:
    sdk = kind(**KEY)
    assert reason(sdk) is None
    client = stand_in(sdk)
    assert type(client) is ours
    assert stand_in(sdk) is client
    assert sdk.chat.completions.with_raw_response.create  # what was used before may be used
    assert type(stand_in(sdk)) is ours
    assert type(stand_in(sdk.with_options(max_retries=5))) is ours
    assert stand_in(sdk.with_options(max_retries=5)).max_retries == 5


async def given() -> str:
    return "sk-2"


@pytest.mark.parametrize(
    ("sdk", "why"),
    [
        (MagicMock(), "MagicMock"),
        (AsyncAzureOpenAI(api_key="k", azure_endpoint="https://x.invalid", api_version="1"), "AsyncAzureOpenAI"),
        (OpenAI(**KEY, http_client=httpx.Client()), "HTTP client of its own"),
        (AsyncOpenAI(**KEY, http_client=openai.DefaultAsyncHttpxClient()), "HTTP client of its own"),
        (AsyncOpenAI(api_key=given), "asked for anew"),
    ],
    ids=["a mock", "Azure", "http_client", "async http_client", "a function for the key"],
)
def test_others_are_asked_themselves(sdk: Any, why: str) -> None:
    assert stand_in(sdk) is sdk
    assert why in str(reason(sdk))


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (Completions, "create"),
        (AsyncCompletions, "parse"),
        (openai._base_client.SyncAPIClient, "request"),
        (httpx.Client, "send"),
        (httpx.AsyncHTTPTransport, "handle_async_request"),
        (httpcore.ConnectionPool, "handle_request"),
    ],
)
def test_while_a_class_is_patched_the_package_is_asked(owner: Any, name: str) -> None:
    sdk = OpenAI(**KEY)
    with patch.object(owner, name):
        assert stand_in(sdk) is sdk
        assert name in str(reason(sdk))
    assert type(stand_in(sdk)) is SyncClient


def test_while_an_object_is_patched_it_is_asked() -> None:
    sdk = OpenAI(**KEY)
    assert type(stand_in(sdk)) is SyncClient
    completions = sdk.chat.completions
    targets = [
        (sdk, "post"),
        (sdk, "chat"),
        (completions, "create"),
        (completions, "with_raw_response"),
        (completions.with_raw_response, "create"),
        (sdk.beta.chat.completions.with_raw_response, "parse"),
    ]
    for owner, name in targets:
        with patch.object(owner, name):
            assert stand_in(sdk) is sdk, name
            assert reason(sdk) == "a method of its client was replaced"
        assert type(stand_in(sdk)) is SyncClient, name


def test_a_client_whose_transport_was_changed_is_asked() -> None:
    sdk = OpenAI(**KEY)
    sdk._client._transport = httpx.MockTransport(lambda request: httpx.Response(200))
    assert stand_in(sdk) is sdk
    sdk = OpenAI(**KEY)
    sdk._client.event_hooks = {"request": [lambda request: None]}
    assert stand_in(sdk) is sdk


def test_a_late_response_is_a_response() -> None:
    response = LateResponse((429, [("retry-after", "3")], b'{"error": 1}'), "https://x.invalid/v1")
    assert isinstance(response, httpx.Response)
    assert response.status_code == 429
    assert response.headers["retry-after"] == "3"
    assert response.json() == {"error": 1}
    assert response.request.url.host == "x.invalid"
    assert "429" in repr(LateResponse((429, [], b""), "https://x.invalid/v1"))
    with pytest.raises(AttributeError):
        _ = response.tea
