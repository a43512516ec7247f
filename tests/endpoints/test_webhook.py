from __future__ import annotations

import asyncio
import datetime as dt
import gzip
import io
import json
import logging
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from pilot_identity.clocks import utc_now
from pilot_identity.control import sightings
from pilot_identity.core.audit.entries import EntryType
from pilot_identity.core.decisions.kubernetes_access import account_name
from pilot_identity.core.resources.timestamps import format_timestamp
from pilot_identity.endpoints import server as module
from pilot_identity.endpoints import webhook
from pilot_identity.endpoints.server import Certificate, Tls, listen
from pilot_identity.endpoints.webhook import MAX_BODY_OCTETS, PATH, CredentialsError, Sender
from tests.endpoints.conftest import Pki
from tests.fakes.desk import Desk

CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH


@dataclass
class Served:
    """A webhook, and what is posted to it."""

    here: Desk
    pki: Pki
    port: int = 0
    is_working: bool = True

    def batch(self, count: int = 1) -> dict[str, Any]:
        """Requests by the grant's account, each another one."""
        grant = self.here.grant()
        event = {
            "auditID": "a",
            "stage": "ResponseComplete",
            "verb": "get",
            "user": {
                "username": f"system:serviceaccount:{grant.metadata.namespace}:{account_name(grant)}",
                "extra": {"authentication.kubernetes.io/credential-id": ["JTI=1"]},
            },
            "objectRef": {"resource": "pods", "namespace": "team-a", "name": "web-0"},
            "responseStatus": {"code": 200},
            "requestReceivedTimestamp": format_timestamp(utc_now()),
        }
        items = [{**event, "requestURI": f"/{number}"} for number in range(count)]
        return {"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "metadata": {}, "items": items}

    async def post(
        self,
        body: object = None,
        *,
        client: ssl.SSLContext | None = None,
        token: str = "",
        path: str = PATH,
        **more: Any,
    ) -> tuple[int, str]:
        """Post a batch; returns status and text."""
        headers = {**({"Authorization": f"Bearer {token}"} if token else {}), **more.pop("headers", {})}
        async with aiohttp.ClientSession() as session:
            packed = body if isinstance(body, bytes) else json.dumps(body or self.batch()).encode()
            url = f"https://localhost:{self.port}{path}"
            context = client or self.pki.client()
            async with session.post(
                url, data=io.BytesIO(packed), ssl=context, headers=headers, **more
            ) as answer:
                return answer.status, await answer.text()


@asynccontextmanager
async def serving(here: Desk, pki: Pki, sender: Sender) -> AsyncIterator[Served]:
    """Serve a webhook that knows the API server by `sender`."""
    served = Served(here, pki)
    app = webhook.application(sender, here.sightings, utc_now, is_working=lambda: served.is_working)
    async with listen(app, 0, Tls(Certificate(*pki.issue("server")), sender.pem)) as served.port:
        yield served


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """A token as an admin would write it."""
    path = tmp_path / "token"
    path.write_text("s3cret\n")
    return path


@pytest.fixture
async def served(here: Desk, pki: Pki, token_file: Path) -> AsyncIterator[Served]:
    """A webhook that knows the API server by its token."""
    async with serving(here, pki, Sender(token_file=token_file)) as made:
        yield made


async def test_what_the_api_server_posts_is_recorded(served: Served) -> None:
    """Under the grant whose account it was."""
    assert await served.post(served.batch(3), token="s3cret") == (200, "")
    await served.here.sightings.drain()
    (entry,) = served.here.entries(EntryType.ACCESS_SEEN)
    assert (entry.subject, entry.data["requests"]) == ("TaskGrant team-a/task-1", 3)


@pytest.mark.parametrize("token", ["", "s3cre", "s3cret2", "S3CRET", "x" * 4000], ids=len)
async def test_another_token_is_refused(served: Served, token: str) -> None:
    """Whatever it is, and nothing is counted."""
    status, text = await served.post(token=token)
    assert (status, text) == (401, "show that you are the API server\n")
    assert served.here.sightings.figures.requests == 0


async def test_a_token_counts_only_as_a_bearer_token(served: Served) -> None:
    """Not by another scheme."""
    assert (await served.post(headers={"Authorization": "Basic s3cret"}))[0] == 401


def change(file: Path, text: str) -> None:
    """Write a file anew."""
    file.write_text(text)


async def test_a_token_that_was_changed_counts_at_once(served: Served, token_file: Path) -> None:
    """Without a restart; the old one does not."""
    change(token_file, "n3w\n")
    assert (await served.post(token="s3cret"))[0] == 401
    assert (await served.post(token="n3w"))[0] == 200


async def test_a_token_file_that_is_empty_lets_nobody_in(served: Served, token_file: Path) -> None:
    """An empty token would be everybody's."""
    change(token_file, "\n")
    assert (await served.post(headers={"Authorization": "Bearer "}))[0] == 500
    assert served.here.sightings.figures.requests == 0


async def test_refusals_tell_no_token(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the one that is right nor the one that was tried."""
    caplog.set_level(logging.DEBUG)
    await served.post(token="tr1ed")
    assert "it is not the API server" in caplog.text
    assert "tr1ed" not in caplog.text
    assert "s3cret" not in caplog.text


async def test_the_api_server_is_known_by_its_client_certificate(here: Desk, pki: Pki) -> None:
    """Of the authority that was named, for clients, and in its time."""
    async with serving(here, pki, Sender(pki.file)) as served:
        good = pki.client(*pki.issue("apiserver", purpose=CLIENT))
        assert (await served.post(client=good))[0] == 200
        assert (await served.post())[0] == 401
        for_servers = pki.client(*pki.issue("web"))
        with pytest.raises(aiohttp.ClientError):
            await served.post(client=for_servers)


async def test_a_certificate_of_another_authority_is_refused(here: Desk, pki: Pki, tmp_path: Path) -> None:
    """A stage's own too: whoever has a grant's SVID must not tell what was accessed."""
    other = tmp_path / "other"
    other.mkdir()
    for foreign in (Pki(other), Pki(other, "stranger")):
        async with serving(here, pki, Sender(pki.file)) as served:
            with pytest.raises(aiohttp.ClientError):
                await served.post(client=pki.client(*foreign.issue("apiserver", purpose=CLIENT)))
    assert here.sightings.figures.requests == 0


async def test_a_certificate_of_another_name_is_refused(here: Desk, pki: Pki) -> None:
    """Where the authority signs for others too, as a cluster's CA does."""
    async with serving(here, pki, Sender(pki.file, "apiserver")) as served:
        assert (await served.post(client=pki.client(*pki.issue("apiserver", purpose=CLIENT))))[0] == 200
        assert (await served.post(client=pki.client(*pki.issue("kubelet", purpose=CLIENT))))[0] == 401


async def test_where_both_are_set_both_must_be_shown(here: Desk, pki: Pki, token_file: Path) -> None:
    """A token alone, or a certificate alone, is not enough."""
    async with serving(here, pki, Sender(pki.file, "", token_file)) as served:
        client = pki.client(*pki.issue("apiserver", purpose=CLIENT))
        assert (await served.post(client=client))[0] == 401
        assert (await served.post(token="s3cret"))[0] == 401
        assert (await served.post(client=client, token="s3cret"))[0] == 200


def der(pair: tuple[Path, Path]) -> bytes:
    """A certificate as TLS hands it over."""
    return x509.load_pem_x509_certificate(pair[0].read_bytes()).public_bytes(serialization.Encoding.DER)


def test_a_sender_is_judged_whatever_the_handshake_let_through(tmp_path: Path, pki: Pki) -> None:
    """Another authority's, a server's, one that is over, and one that its own key signed."""
    sender = Sender(pki.file)
    (tmp_path / "other").mkdir()
    assert sender.is_shown(der(pki.issue("apiserver", purpose=CLIENT)), "", utc_now)
    for shown in (
        der(Pki(tmp_path / "other").issue("apiserver", purpose=CLIENT)),
        der(pki.issue("web")),
        der(pki.issue("late", purpose=CLIENT, valid=dt.timedelta(minutes=-1))),
        der((pki.file, pki.file)),
        None,
    ):
        assert not sender.is_shown(shown, "", utc_now)


async def test_where_there_is_no_room_the_api_server_is_asked_to_come_back(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503, so that it keeps the batch."""
    monkeypatch.setattr(sightings, "MAX_BOOKS", 0)
    assert (await served.post(token="s3cret"))[0] == 503
    monkeypatch.undo()
    assert (await served.post(token="s3cret"))[0] == 200


def test_who_is_known_by_nothing_is_not_believed(tmp_path: Path, pki: Pki) -> None:
    """Nothing set, a name without an authority, a file that is not there, that is empty or no certificate."""
    empty = tmp_path / "empty"
    empty.touch()
    with pytest.raises(CredentialsError, match="client CA"):
        Sender()
    with pytest.raises(CredentialsError, match="beside its CA"):
        Sender(name="apiserver", token_file=pki.file)
    with pytest.raises(CredentialsError, match="no token"):
        Sender(token_file=empty)
    with pytest.raises(FileNotFoundError):
        Sender(token_file=tmp_path / "missing")
    with pytest.raises(ValueError, match="PEM"):
        Sender(empty)


async def test_a_replica_that_does_not_work_asks_to_come_back(served: Served) -> None:
    """On another connection, which may find another replica; and only whoever may ask is told."""
    served.is_working = False
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"https://localhost:{served.port}{PATH}",
            json=served.batch(),
            ssl=served.pki.client(),
            headers={"Authorization": "Bearer s3cret"},
        ) as answer,
    ):
        assert (answer.status, answer.headers["Retry-After"], answer.headers["Connection"]) == (
            503,
            "5",
            "close",
        )
    assert (await served.post(token="x"))[0] == 401


async def test_a_replica_that_stops_while_a_batch_comes_in_does_not_count_it(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is counted after the sums were told is never told; the API server sends the batch again."""

    async def read_late(request: web.Request, limit: int) -> bytes:
        served.is_working = False
        return await module.read_body(request, limit)

    monkeypatch.setattr(webhook, "read_body", read_late)
    assert (await served.post(token="s3cret"))[0] == 503
    assert served.here.sightings.figures.requests == 0


@pytest.mark.parametrize(
    "body, status",
    [
        (b"", 400),
        (b"{}", 400),
        (b'{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":[{}]}', 400),
        (b" " * (MAX_BODY_OCTETS + 1), 413),
    ],
    ids=["empty", "object", "event", "large"],
)
async def test_what_is_no_batch_is_refused(served: Served, body: bytes, status: int) -> None:
    """With what is wrong."""
    assert (await served.post(body, token="s3cret"))[0] == status


async def test_a_body_without_a_length_is_bounded_too(served: Served) -> None:
    """It is read only so far."""

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 65536

    async with aiohttp.ClientSession() as session:
        url = f"https://localhost:{served.port}{PATH}"
        headers = {"Authorization": "Bearer s3cret"}
        try:
            async with session.post(url, data=endless(), ssl=served.pki.client(), headers=headers) as answer:
                assert answer.status == 413
        except aiohttp.ClientOSError:
            pass  # the server hung up on what it will not read


async def test_nothing_is_unpacked(served: Served) -> None:
    """A small body could become a large one."""
    packed = gzip.compress(json.dumps(served.batch()).encode())
    headers = {"Content-Encoding": "gzip"}
    assert (await served.post(packed, token="s3cret", headers=headers))[0] == 415


async def test_nothing_else_is_served(served: Served) -> None:
    """No listing, and no other method."""
    assert (await served.post(token="s3cret", path="/"))[0] == 404
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"https://localhost:{served.port}{PATH}", ssl=served.pki.client()) as answer,
    ):
        assert answer.status == 405


async def test_a_connection_without_a_request_is_closed(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can keep the others out by holding connections."""
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.2)
    reader, writer = await asyncio.open_connection("localhost", served.port, ssl=served.pki.client())
    writer.write(b"POST /v1")
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.close()


async def test_a_body_that_does_not_come_is_not_waited_for(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is given up."""
    monkeypatch.setattr(module, "BODY_SECONDS", 0.2)
    reader, writer = await asyncio.open_connection("localhost", served.port, ssl=served.pki.client())
    head = (
        "POST " + PATH + " HTTP/1.1",
        "Host: localhost",
        "Authorization: Bearer s3cret",
        "Content-Length: 9",
    )
    writer.write("\r\n".join((*head, "", "")).encode())
    async with asyncio.timeout(5):
        assert (await reader.readline()).startswith(b"HTTP/1.1 408")
    writer.close()


async def test_connections_are_bounded(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more than there may be is closed, and there is room again when one goes."""
    monkeypatch.setattr(module, "MAX_CONNECTIONS", 1)
    reader, writer = await asyncio.open_connection("localhost", served.port, ssl=served.pki.client())
    with pytest.raises(aiohttp.ClientError):
        await served.post(token="s3cret")
    writer.close()
    await reader.read()
    async with asyncio.timeout(5):
        while True:
            try:
                assert (await served.post(token="s3cret"))[0] == 200
                break
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)


async def test_plain_http_is_not_answered(served: Served) -> None:
    """A token would be readable on the way."""
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError):
            await session.post(f"http://localhost:{served.port}{PATH}", data=b"{}")


@pytest.mark.parametrize("name", ["localhost", ""], ids=["by name", "without a name"])
async def test_a_certificate_that_was_renewed_is_served_at_once(served: Served, name: str) -> None:
    """To clients that say the server's name and to those that do not; one that is half written is not."""
    first = await served_certificate(served, name)
    chain, key = served.pki.issue("server")
    os.utime(chain, ns=(1, 1))
    second = await served_certificate(served, name)
    assert second != first
    change(key, "half written")
    assert await served_certificate(served, name) == second


async def served_certificate(served: Served, name: str) -> bytes:
    """The certificate that a new connection is shown."""
    client = served.pki.client()
    client.check_hostname = bool(name)
    _, writer = await asyncio.open_connection("localhost", served.port, ssl=client, server_hostname=name)
    shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return shown
