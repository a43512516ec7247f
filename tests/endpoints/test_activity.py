from __future__ import annotations

import asyncio
import base64
import datetime as dt
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from pilot_identity.clocks import utc_now
from pilot_identity.core.activity.rate import Allowance, Rate
from pilot_identity.core.audit import remembered
from pilot_identity.core.audit.entries import EntryType, RecordedEntry
from pilot_identity.core.resources.metadata import GROUP
from pilot_identity.core.spiffe import jose
from pilot_identity.endpoints import activity
from pilot_identity.endpoints.activity import PATH, Activities
from pilot_identity.endpoints.server import Certificate, Tls, listen, read_body
from pilot_identity.ports import Unavailable
from tests.endpoints.conftest import Pki
from tests.fakes import manifests
from tests.fakes.desk import Desk, desk, issue
from tests.fakes.server import FakeServer

CALL: Mapping[str, Any] = {"kind": "tool_call", "attributes": {"gen_ai.tool.name": "search"}}


@dataclass
class Served:
    """The endpoint, and what is posted to it."""

    here: Desk
    pki: Pki
    directory: Path
    activities: Activities
    port: int = 0
    is_working: bool = True
    headers: dict[str, str] = field(default_factory=dict)

    def file(self, name: str, grant: str = "task-1") -> bytes:
        """A file of a grant's Secret."""
        return base64.b64decode(self.here.secret(grant)["data"][name])

    def token(self, grant: str = "task-1") -> str:
        """A grant's JWT-SVID."""
        return self.file("token.jwt", grant).decode()

    def client(self, grant: str = "") -> ssl.SSLContext:
        """A client of the endpoint, with a grant's X.509-SVID where one is named."""
        if not grant:
            return self.pki.client()
        chain, key = self.directory / f"{grant}.crt", self.directory / f"{grant}.key"
        chain.write_bytes(self.file("tls.crt", grant))
        key.write_bytes(self.file("tls.key", grant))
        return self.pki.client(chain, key)

    async def post(
        self, *activities: Any, token: str = "", client: ssl.SSLContext | None = None, **fields: Any
    ) -> tuple[int, dict[str, Any]]:
        """Post a report; returns the status and the answer."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                f"https://localhost:{self.port}{PATH}",
                json={"activities": activities or [CALL], **fields},
                headers=headers,
                ssl=client or self.pki.client(),
            ) as answer,
        ):
            self.headers = dict(answer.headers)
            return answer.status, await answer.json()

    def entries(self) -> list[RecordedEntry]:
        """What was recorded."""
        return self.here.entries(EntryType.ACTIVITY_RECORDED)

    def change(self, grant: str = "task-1", *, spec: Any = None, meta: Any = None, **status: Any) -> None:
        """Change a grant as the API server would tell it."""
        body = self.here.server.find("taskgrants", grant)
        assert body is not None
        body["status"] |= status
        body["spec"] |= spec or {}
        body["metadata"] |= meta or {}
        self.here.server.plant(("taskgrants", manifests.NAMESPACE, grant), body)


@pytest.fixture
async def served(here: Desk, pki: Pki, tmp_path: Path) -> AsyncIterator[Served]:
    """The endpoint over a desk with one grant."""
    async for made in serving(here, pki, tmp_path):
        yield made


async def serving(here: Desk, pki: Pki, directory: Path) -> AsyncIterator[Served]:
    """Serve the endpoint."""
    activities = Activities(
        here.store, here.issuer, here.log, here.sightings, utc_now, lambda: made.is_working
    )
    made = Served(here, pki, directory, activities)
    tls = Tls(Certificate(*pki.issue("server")), activities.authorities)
    async with listen(activities.application(), 0, tls) as made.port:
        yield made


async def test_what_is_reported_with_the_grants_token_is_recorded(served: Served) -> None:
    """And answered with the entry's index when it is in the log."""
    status, answer = await served.post(CALL, token=served.token())
    (entry,) = served.entries()
    assert (status, answer) == (201, {"index": served.here.log.size - 1, "id": entry.id})
    grant = served.here.grant()
    assert (entry.subject, entry.subject_uid) == ("TaskGrant team-a/task-1", grant.metadata.uid)
    assert grant.status.credential is not None
    assert entry.data["authentication"] == {
        "method": "JWT-SVID",
        "jti": grant.status.credential.tokens[0].jti,
        "audience": "https://tickets.example.org",
        "bound": False,
    }
    assert entry.data["activities"] == [CALL]
    assert (entry.data["pilot"], entry.data["stage"], entry.data["task"]) == (
        "triage",
        "sandbox",
        {"id": "T-1"},
    )


async def test_what_is_reported_with_the_grants_certificate_is_recorded(served: Served) -> None:
    """Over mutual TLS, without a token."""
    status, _ = await served.post(CALL, client=served.client("task-1"))
    assert status == 201
    (entry,) = served.entries()
    credential = served.here.grant().status.credential
    assert credential is not None
    assert entry.data["authentication"] == {"method": "X509-SVID", "serial": credential.serial}


async def test_a_token_beside_its_certificate_is_told_as_bound(served: Served) -> None:
    """RFC 8705: whoever shows both holds the key."""
    status, _ = await served.post(token=served.token(), client=served.client("task-1"))
    assert status == 201
    assert served.entries()[0].data["authentication"]["bound"] is True


async def test_the_status_tells_how_often_and_when(served: Served) -> None:
    """The sum of activities, in the next batch."""
    await served.post(CALL, CALL, CALL, token=served.token())
    await served.here.sightings.drain()
    assert served.here.usage()["activities"] == 3
    assert served.here.usage()["lastUsed"] == served.here.usage()["firstUsed"]


async def test_a_report_that_is_sent_again_is_recorded_once(served: Served) -> None:
    """The answer is the same; another report under the same id is another entry."""
    token = served.token()
    first = await served.post(CALL, token=token, id="run-1")
    assert await served.post(CALL, token=token, id="run-1") == first
    other = {"kind": "tool_call", "attributes": {"gen_ai.tool.name": "delete"}}
    assert (await served.post(other, token=token, id="run-1"))[1]["index"] == first[1]["index"] + 1
    assert len(served.entries()) == 2


async def test_what_a_child_reports_names_its_chain(pki: Pki, tmp_path: Path) -> None:
    """And counts for the grants that it was delegated from."""
    server = FakeServer(utc_now)
    await issue(
        server,
        manifests.grant("root", duration="30m"),
        manifests.grant("child", parent="root", duration="10m"),
    )
    async with desk(server, utc_now) as here:
        async for served in serving(here, pki, tmp_path):
            assert (await served.post(token=served.token("child")))[0] == 201
            (entry,) = served.entries()
            assert [ancestor["grant"] for ancestor in entry.data["delegation"]] == ["root"]
            assert entry.data["parent"] == {"name": "root", "uid": here.grant("root").metadata.uid}
            await here.sightings.drain()
            assert here.usage("root")["chained"]["activities"] == 1


def forged(token: str, **claims: Any) -> str:
    """A token with other claims under the same signature."""
    header, payload, signature = token.split(".")
    changed = jose.json_object(jose.decode(payload)) | claims
    return f"{header}.{jose.encode(jose.json_text(changed).encode())}.{signature}"


def unsigned(**claims: Any) -> str:
    """A token with these claims that nobody signed."""
    return f"e30.{jose.encode(jose.json_text(claims).encode())}.e30"


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "a.b.c",
        "e30.e30.e30",
        "x" * 7000,
        unsigned(sub=7),
        unsigned(sub="spiffe://elsewhere.example.org/ns/a"),
        unsigned(sub="http://sandbox.example.org"),
        unsigned(sub="spiffe://sandbox.example.org/ns/a", aud=["x"]),
    ],
    ids=["one part", "no base64", "empty", "large", "number", "other domain", "no SPIFFE ID", "audiences"],
)
async def test_what_is_no_token_of_ours_is_refused(served: Served, token: str) -> None:
    """With 401, and nothing is recorded."""
    status, answer = await served.post(token=token)
    assert (status, list(answer)) == (401, ["error"])
    assert served.headers["WWW-Authenticate"].startswith("Bearer")
    assert served.entries() == []


async def test_who_shows_nothing_is_told_what_to_show(served: Served) -> None:
    """401."""
    status, answer = await served.post()
    assert status == 401
    assert "JWT-SVID" in answer["error"]


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": "spiffe://sandbox.example.org/ns/team-a/pilot/triage/task/task-2"},
        {"aud": "https://other.example.org"},
        {"exp": 4_000_000_000},
        {"jti": "another"},
    ],
    ids=["subject", "audience", "expiry", "id"],
)
async def test_a_token_that_was_changed_is_refused(served: Served, claims: dict[str, Any]) -> None:
    """Its signature is not its own."""
    status, answer = await served.post(token=forged(served.token(), **claims))
    assert status == 401
    assert "signature" in answer["error"]


async def test_a_copied_token_beside_another_certificate_is_refused(pki: Pki, tmp_path: Path) -> None:
    """Whoever shows a certificate must hold the token's own."""
    server = FakeServer(utc_now)
    await issue(server, manifests.grant(duration="30m"), manifests.grant("task-2", duration="30m"))
    async with desk(server, utc_now) as here:
        async for served in serving(here, pki, tmp_path):
            status, answer = await served.post(token=served.token("task-2"), client=served.client("task-1"))
            assert status == 401
            assert "thumbprint" in answer["error"]


async def test_a_strangers_certificate_does_not_come_through_the_handshake(served: Served) -> None:
    """Only stages' authorities are known here, the server's own is not."""
    with pytest.raises(aiohttp.ClientError):
        await served.post(client=served.pki.client(*served.pki.issue("stranger")))


async def test_a_pilots_own_certificate_reports_nothing(served: Served) -> None:
    """It says who a pilot is, and is of no task."""
    secret = served.here.server.find("secrets", "pilot-svid-triage")
    assert secret is not None
    chain, key = served.directory / "pilot.crt", served.directory / "pilot.key"
    for path, name in ((chain, "tls.crt"), (key, "tls.key")):
        await asyncio.to_thread(path.write_bytes, base64.b64decode(secret["data"][name]))
    status, answer = await served.post(client=served.pki.client(chain, key))
    assert status == 401
    assert "no task's" in answer["error"]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"phase": "Completed"}, "is Completed"),
        (
            {"phase": "Revoked", "closure": {"outcome": "Revoked", "message": "Tom said so"}},
            "Revoked (Tom said so)",
        ),
        ({"phase": "Closing"}, "is Closing"),
        ({"expiresAt": "2026-01-01T00:00:00Z"}, "expired at 2026-01-01T00:00:00Z"),
        ({"spec": {"completed": True}}, "is being ended"),
        ({"spec": {"revoke": {"reason": "x"}}}, "is being ended"),
        ({"meta": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}, "is being ended"),
        ({"meta": {"uid": "another"}}, "is another grant by now"),
        ({"phase": "Pending"}, "has no credential"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value,
)
async def test_nothing_is_recorded_after_a_grants_end(
    served: Served, change: dict[str, Any], message: str
) -> None:
    """The credential is still good by itself; 403 says why that is not enough."""
    token = served.token()
    served.change(**change)
    status, answer = await served.post(token=token)
    assert status == 403
    assert message in answer["error"]
    assert served.entries() == []


async def test_a_grant_that_ends_while_its_report_comes_in_gets_nothing_recorded(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked at again when the report is there."""
    token = served.token()

    async def read_late(request: web.Request, limit: int) -> bytes:
        served.change(phase="Revoked")
        return await read_body(request, limit)

    monkeypatch.setattr(activity, "read_body", read_late)
    assert (await served.post(token=token))[0] == 403
    assert served.entries() == []


async def test_only_a_bearer_token_counts(served: Served) -> None:
    """No other scheme."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"https://localhost:{served.port}{PATH}",
            json={"activities": [CALL]},
            headers={"Authorization": f"Basic {served.token()}"},
            ssl=served.pki.client(),
        ) as answer,
    ):
        assert answer.status == 401


async def test_keys_that_cannot_be_read_are_told(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """503: nobody is refused for what is our trouble."""

    async def fail(_: str) -> None:
        raise Unavailable("nobody answers")

    monkeypatch.setattr(served.here.issuer, "facts", fail)
    status, _ = await served.post(token=served.token())
    assert status == 503


async def test_a_certificate_of_a_grant_that_ended_is_refused_too(served: Served) -> None:
    """403 as well."""
    client = served.client("task-1")
    served.change(phase="Expired")
    assert (await served.post(client=client))[0] == 403


async def test_a_grant_that_is_gone_is_told_so(served: Served) -> None:
    """403."""
    token = served.token()
    served.here.server.lose("taskgrants", "task-1")
    status, answer = await served.post(token=token)
    assert (status, "is gone" in answer["error"]) == (403, True)


async def test_a_credential_that_the_grant_no_longer_has_is_refused(served: Served) -> None:
    """Such as one that was announced and abandoned: it is signed by us, and nobody should hold it."""
    token, client = served.token(), served.client("task-1")
    body = served.here.server.find("taskgrants", "task-1")
    assert body is not None
    credential = body["status"]["credential"]
    served.change(credential=credential | {"serial": "1", "tokens": []})
    for answer in (await served.post(token=token), await served.post(client=client)):
        assert answer[0] == 401
        assert "not one that" in answer[1]["error"]
    superseded = [
        {"serial": credential["serial"], "notAfter": credential["notAfter"], "tokens": credential["tokens"]}
    ]
    served.change(credential=credential | {"serial": "1", "tokens": [], "superseded": superseded})
    assert (await served.post(token=token))[0] == 201
    assert (await served.post(client=client))[0] == 201


async def test_a_token_that_has_expired_is_told_apart_from_a_grant_that_has(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """401 while the grant goes on, because there is a newer one; 403 after its end."""
    token = served.token()
    later = utc_now() + dt.timedelta(hours=2)
    monkeypatch.setattr(served.activities, "clock", lambda: later)
    status, answer = await served.post(token=token)
    assert (status, "expired at" in answer["error"]) == (403, True)
    served.change(expiresAt="2099-01-01T00:00:00Z")
    status, answer = await served.post(token=token)
    assert (status, "read the Secret anew" in answer["error"]) == (401, True)


async def test_what_must_not_be_kept_is_refused(served: Served) -> None:
    """With what to change; the text is not told back."""
    said = {"kind": "prompt", "attributes": {"gen_ai.input.messages": "my s3cret"}}
    status, answer = await served.post(said, token=served.token())
    assert status == 400
    assert "give its SHA-256 in digests" in answer["error"]
    assert "s3cret" not in json.dumps(answer)
    assert served.entries() == []


async def test_too_much_at_once_is_asked_to_come_later(served: Served) -> None:
    """429 with when; what was refused is not recorded."""
    served.activities.rate = Rate(Allowance(per_second=0.5, burst=2), Allowance(1e9, 1e9))
    token = served.token()
    assert (await served.post(CALL, CALL, token=token))[0] == 201
    assert (await served.post(CALL, token=token))[0] == 429
    assert served.headers["Retry-After"] == "2"
    assert len(served.entries()) == 1


async def test_where_no_more_names_are_told_apart_that_is_said(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is known is answered as before; without a name it is recorded."""
    monkeypatch.setattr(remembered, "NAMED_OF_ONE", 1)
    token = served.token()
    first = await served.post(CALL, token=token, id="run-1")
    assert first[0] == 201
    status, answer = await served.post(CALL, token=token, id="run-2")
    assert (status, "send it without an id" in answer["error"]) == (429, True)
    assert "Retry-After" not in served.headers
    assert await served.post(CALL, token=token, id="run-1") == first
    assert (await served.post(CALL, token=token))[0] == 201
    assert len(served.entries()) == 2


async def test_bytes_count_where_they_are_more_than_the_activities(served: Served) -> None:
    """A report of one activity and more than 1,024 bytes is taken as two."""
    served.activities.rate = Rate(Allowance(per_second=0.5, burst=3), Allowance(1e9, 1e9))
    token = served.token()
    names = ("gen_ai.agent.id", "gen_ai.agent.name", "gen_ai.conversation.id", "gen_ai.response.id")
    large = {**CALL, "attributes": {**CALL["attributes"], **dict.fromkeys(names, "x" * 256)}}
    assert (await served.post(large, token=token))[0] == 201
    assert (await served.post(large, token=token))[0] == 429
    assert (await served.post(CALL, token=token))[0] == 201
    assert len(served.entries()) == 2


async def test_a_large_report_is_refused(served: Served) -> None:
    """Before it is read."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"https://localhost:{served.port}{PATH}",
            data=b" " * 40_000,
            headers={"Authorization": f"Bearer {served.token()}"},
            ssl=served.pki.client(),
        ) as answer,
    ):
        assert answer.status == 413


async def test_reports_side_by_side_share_a_write_of_the_log(served: Served) -> None:
    """A group commit: fifty reports are a few groups."""
    before = served.here.log.groups_written
    token = served.token()
    answers = await asyncio.gather(*(served.post(CALL, token=token) for _ in range(50)))
    assert {status for status, _ in answers} == {201}
    assert len({answer["index"] for _, answer in answers}) == 50
    assert served.here.log.groups_written - before < 45


async def test_a_log_that_cannot_be_written_is_told(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """503: it is to be sent again."""

    async def fail(_: object) -> int:
        raise Unavailable("nobody answers")

    monkeypatch.setattr(served.here.log, "commit", fail)
    assert (await served.post(token=served.token()))[0] == 503
    assert served.headers["Retry-After"] == "1"
    assert served.here.sightings.figures.activities == 0


async def test_a_replica_that_does_not_work_asks_to_come_back(served: Served) -> None:
    """On another connection."""
    served.is_working = False
    assert (await served.post(token=served.token()))[0] == 503
    assert served.headers["Connection"] == "close"


async def test_a_replica_that_stops_while_a_report_comes_in_does_not_take_it(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks to come back, and records nothing."""

    async def read_late(request: web.Request, limit: int) -> bytes:
        served.is_working = False
        return await read_body(request, limit)

    monkeypatch.setattr(activity, "read_body", read_late)
    assert (await served.post(token=served.token()))[0] == 503
    assert served.entries() == []


async def test_credentials_are_in_no_entry_and_no_log_line(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the token nor a part of it."""
    token = served.token()
    await served.post(token=token)
    await served.post(token=forged(token, jti="another"))
    signature = token.rsplit(".", 1)[1]
    assert signature not in caplog.text
    groups = [
        body
        for body in served.here.server.all("configmaps")
        if body["metadata"]["labels"].get(f"{GROUP}/audit")
    ]
    assert signature not in json.dumps(groups)
