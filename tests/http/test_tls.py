"""TLS, HTTP/2, and what of the environment counts: authorities and proxies."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fastcrew_async import runtime
from fastcrew_async.errors import HttpConnectionError
from fastcrew_async.model import pool
from fastcrew_async.testing import ModelServer
from tests.http.tls_server import AUTHORITY, TlsServer

# httpx leaves a connection whose handshake failed to the collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture(autouse=True)
def clean(backend: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxies and authorities of this machine's, and pools of the backend at test."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setattr(pool, "HttpClient", backend.HttpClient)
    monkeypatch.setattr(pool, "_pools", {})


@pytest.fixture
def server() -> Iterator[TlsServer]:
    with TlsServer() as running:
        yield running


@pytest.fixture
def scripted() -> Iterator[ModelServer]:
    with ModelServer("green") as running:
        yield running


async def post(client: Any, url: str) -> tuple[int, bytes]:
    status, _, body = await client.post(url, [("content-type", "application/json")], b'{"messages": []}', 10.0, 20.0)
    return status, body


def client(backend: SimpleNamespace, *ca_files: Path, system_cas: bool = False) -> Any:
    return backend.HttpClient(runtime.get(), 5.0, [], "", list(ca_files), system_cas, 10)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_a_custom_authority_is_trusted(backend: SimpleNamespace, server: TlsServer, host: str) -> None:
    answer = await post(client(backend, AUTHORITY), f"https://{host}:{server.port}/")
    assert answer == (200, b"HTTP/1.1")


async def test_what_nobody_vouches_for_is_refused(backend: SimpleNamespace, server: TlsServer) -> None:
    for of in (client(backend, system_cas=True), client(backend)):
        with pytest.raises(HttpConnectionError, match=r"(?i)certificate|unknownissuer|build"):
            await post(of, f"https://localhost:{server.port}/")


async def test_the_systems_authorities_are_trusted(
    backend: SimpleNamespace, server: TlsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(AUTHORITY))  # where the system's libraries look for its authorities
    assert await post(client(backend, system_cas=True), f"https://localhost:{server.port}/") == (200, b"HTTP/1.1")


async def test_a_folder_of_authorities_is_read_off_the_loop(
    backend: SimpleNamespace, server: TlsServer, tmp_path: Path
) -> None:
    shutil.copy(AUTHORITY, tmp_path)
    (tmp_path / "notes.txt").write_text("no certificate")
    assert await post(client(backend, tmp_path), f"https://localhost:{server.port}/") == (200, b"HTTP/1.1")


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
async def test_the_environment_names_authorities(
    server: TlsServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    shutil.copy(AUTHORITY, tmp_path)
    monkeypatch.setenv(name, str(AUTHORITY if name == "SSL_CERT_FILE" else tmp_path))
    of = pool.connections(5.0)  # under the detector of blocking calls
    assert await post(of, f"https://localhost:{server.port}/") == (200, b"HTTP/1.1")


async def test_http_2_is_spoken_where_it_is_offered(backend: SimpleNamespace) -> None:
    if backend.name == "python":
        pytest.skip("httpx speaks HTTP/2 with a package that is not required")
    with TlsServer("h2", "http/1.1") as server:
        of = client(backend, AUTHORITY)
        url = f"https://localhost:{server.port}/"
        assert await post(of, url) == (200, b"h2")
        answers = await asyncio.gather(*(post(of, url) for _ in range(8)))
        assert answers == [(200, b"h2")] * 8
        assert server.connections == 1
    with TlsServer("http/1.1") as server:
        assert await post(client(backend, AUTHORITY), f"https://localhost:{server.port}/") == (200, b"HTTP/1.1")


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
async def test_a_proxy_of_the_environment_is_asked(
    scripted: ModelServer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, scripted.base_url.removesuffix("/v1").replace("http://", "http://user:word@"))
    status, body = await post(pool.connections(5.0), "http://model.invalid/v1/chat/completions")
    assert (status, b"http://model.invalid/v1/chat/completions" in body) == (404, True)  # an address, for a proxy
    for direct in ("127.0.0.1", "*", "example.com, 127.0.0.1"):
        monkeypatch.setenv("NO_PROXY", direct)
        status, body = await post(pool.connections(5.0), f"{scripted.base_url}/chat/completions")
        assert (status, b"green" in body) == (200, True)


async def test_a_proxy_is_asked_for_a_tunnel_with_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    heads: list[bytes] = []

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    proxy = await asyncio.start_server(tunnel, "127.0.0.1", 0)
    try:
        port = proxy.sockets[0].getsockname()[1]
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:word@127.0.0.1:{port}")
        with pytest.raises(HttpConnectionError) as caught:
            await post(pool.connections(5.0), "https://model.invalid/v1")
    finally:
        proxy.close()
    assert heads[0].startswith(b"CONNECT model.invalid:443 ")
    assert b"basic dxnlcjp3b3jk" in heads[0].lower()
    assert "word" not in str(caught.value)
