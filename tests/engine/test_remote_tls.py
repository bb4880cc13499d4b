from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import certifi
import pytest
from crewai.a2a.auth.client_schemes import BearerTokenAuth, TLSConfig
from crewai.a2a.config import A2AClientConfig
from crewai.a2a.utils import agent_card, delegation

from fastcrew_async.engine import remote_tls
from fastcrew_async.engine.remote_tls import contexts, given

pytestmark = pytest.mark.filterwarnings("ignore:.verify=<str>. is deprecated:DeprecationWarning")  # httpx, of CrewAI's
STOCK = agent_card._get_tls_verify


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    remote_tls._kept.clear()
    yield
    remote_tls._kept.clear()
    assert agent_card._get_tls_verify is delegation._get_tls_verify is STOCK


@pytest.fixture
def authorities(tmp_path: Path) -> Path:
    return Path(shutil.copy(certifi.where(), tmp_path / "authorities.pem"))


def agent(*auths: Any) -> Any:
    return SimpleNamespace(a2a=[A2AClientConfig(endpoint="http://127.0.0.1", auth=auth) for auth in auths])


def only_the_first(authorities: Path) -> None:
    first, end, _ = authorities.read_text().partition("-----END CERTIFICATE-----\n")
    authorities.write_text(first + end)


def told(tls: Any) -> BearerTokenAuth:
    return BearerTokenAuth(token="token", tls=tls)


async def test_one_context_for_all_clients_made_on_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    make, made = ssl.create_default_context, []

    def making(*arguments: Any, **options: Any) -> ssl.SSLContext:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        made.append(make(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(ssl, "create_default_context", making)
    found = await asyncio.gather(*(contexts(agent(None, told(None))) for _ in range(5)))
    assert len(made) == 1
    for ready in found:
        with given(ready):
            assert agent_card._get_tls_verify(None) is made[0]
            assert delegation._get_tls_verify(told(None)) is made[0]


async def test_a_configuration_has_its_own(authorities: Path) -> None:
    own, refused = told(TLSConfig(ca_cert_path=authorities)), told(TLSConfig(verify=False))
    with given(await contexts(agent(None, own, refused))):
        by_default, by_own, unverified = (agent_card._get_tls_verify(auth) for auth in (None, own, refused))
        assert agent_card._get_tls_verify(told(TLSConfig(ca_cert_path=authorities))) is by_own
        other = told(TLSConfig(ca_cert_path=authorities, client_key_path=authorities))
        assert agent_card._get_tls_verify(other) == str(authorities)  # nobody said so before: as CrewAI gives it
    assert len({id(found) for found in (by_default, by_own, unverified)}) == 3
    assert (by_default.verify_mode, by_own.verify_mode) == (ssl.CERT_REQUIRED, ssl.CERT_REQUIRED)
    assert (unverified.verify_mode, unverified.check_hostname) == (ssl.CERT_NONE, False)


async def test_it_is_read_again_when_a_file_or_the_environment_changed(
    authorities: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def now(auth: Any = None) -> Any:
        with given(await contexts(agent(auth))):
            return agent_card._get_tls_verify(auth)

    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    own = told(TLSConfig(ca_cert_path=authorities))
    before = [await now(), await now(own)]
    assert [await now(), await now(own)] == before
    await asyncio.to_thread(only_the_first, authorities)
    assert (await now(own)).cert_store_stats()["x509_ca"] == 1
    monkeypatch.setenv("SSL_CERT_FILE", str(authorities))
    assert (await now()).cert_store_stats()["x509_ca"] == 1
    monkeypatch.delenv("SSL_CERT_FILE")
    assert (await now()).cert_store_stats() == before[0].cert_store_stats()


async def test_outside_and_beside_it_crewai_is_asked() -> None:
    ready = await contexts(agent(None))

    async def beside() -> Any:
        return agent_card._get_tls_verify(None)

    other = asyncio.create_task(beside())
    with given(ready):
        assert await other is True
        assert await asyncio.create_task(beside()) is ready[()]  # CrewAI fetches cards in tasks of their own
        with given({}):
            assert agent_card._get_tls_verify(None) is True
        assert agent_card._get_tls_verify is not STOCK
    assert agent_card._get_tls_verify(None) is True


async def test_what_cannot_be_read_is_told_by_crewai(authorities: Path) -> None:
    own = told(TLSConfig(ca_cert_path=authorities, client_cert_path=authorities, client_key_path=authorities))
    with given(await contexts(agent(own))), pytest.raises(ssl.SSLError):
        agent_card._get_tls_verify(own)  # there is no key in that file


async def test_a_configuration_of_the_users_own_class_is_asked_each_time() -> None:
    class Own(TLSConfig):
        def get_httpx_ssl_context(self) -> str:
            return "theirs"

    own = told(Own())
    with given(await contexts(agent(own, told(TLSConfig())))):
        assert agent_card._get_tls_verify(own) == "theirs"


async def test_what_others_have_put_there_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    ready = await contexts(agent(None))
    with monkeypatch.context() as patch:
        patch.setattr(agent_card, "_get_tls_verify", lambda auth: "theirs")
        with given(ready):
            assert agent_card._get_tls_verify(None) == "theirs"
            assert delegation._get_tls_verify is STOCK
    with given(ready), monkeypatch.context() as patch:
        patch.setattr(delegation, "_get_tls_verify", lambda auth: "theirs")
        assert delegation._get_tls_verify(None) == "theirs"
        assert agent_card._get_tls_verify(None) is ready[()]


async def test_few_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_tls, "_MOST", 2)
    paths = [tmp_path / f"{number}.pem" for number in range(3)]
    for path in paths:
        shutil.copy(certifi.where(), path)
    await contexts(agent(*(told(TLSConfig(ca_cert_path=path)) for path in paths)))
    assert len(remote_tls._kept) <= 2
