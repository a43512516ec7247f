"""A grant's life: asked for, issued, renewed, ended.

A TaskGrant within its pilot's access becomes a credential Secret under a name known beforehand. It ends at
its time, or on someone's word, or with its pilot, and the Secret goes with it; the grant stays as a record.
Each step is an entry in the log, and an Event names it.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from e2e import foreign, manifests, places
from e2e.admin import Admin, Document
from e2e.credential import Credential
from e2e.patience import until
from e2e.sightings import Sighting
from e2e.stories.play import Play, moment
from pilot_identity.core.audit.entries import EntryType

CLAIMS = "https://pilotidentity.dev/claims"
GONE_WITHIN_S = 1.0
"""Promise 2: with the operator up."""

Act = Callable[[Play], object]
IsIt = Callable[[Sighting], bool]


@pytest.fixture
def short_tokens(admin: Admin, play: Play) -> Iterator[None]:
    """Tokens of the sandbox live six seconds while the story is told."""
    path = places.stages("sandbox")
    usual = admin.get(path)["spec"]["credentials"]["jwtTTL"]
    admin.patch(path, {"spec": {"credentials": {"jwtTTL": "6s"}}})
    play.condition(path, "Ready", reason="KeysReady")
    yield
    admin.patch(path, {"spec": {"credentials": {"jwtTTL": usual}}})


def end_of(secret: str) -> IsIt:
    """Tell by a sighting whether a Secret went."""
    return lambda seen: seen.name == secret and seen.change == "DELETED"


def audit_index(event: Document) -> int:
    """The entry that an Event names, in its annotation and in its words."""
    index = int(event["metadata"]["annotations"]["pilotidentity.dev/audit-index"])
    assert f"(audit entry {index})" in event["note"]
    return index


def test_a_grant_becomes_a_credential_that_others_can_verify(play: Play, tmp_path: Path) -> None:
    """Certificate, token and bundle verify with py-spiffe, openssl and our own validator."""
    domain = str(play.admin.get(places.stages("sandbox"))["spec"]["trustDomain"])
    pilot = play.ready_pilot("triage")
    asked = play.ask("task", "triage", access=[{"name": "tickets", "actions": ["read"]}], duration="10m")
    credential, bundle = play.credential("task"), play.bundle()
    assert set(credential.files) == {"tls.crt", "tls.key", "bundle.pem", "bundle.json", "token.jwt"}
    assert credential.owner_uid == asked["metadata"]["uid"]

    spiffe_id = f"spiffe://{domain}/ns/{play.namespace}/pilot/triage/task/task"
    audience = manifests.AUDIENCE
    assert foreign.read_x509_svid(credential, bundle["bundle.pem"]) == spiffe_id
    assert foreign.read_jwt_svid(credential.token(), domain, bundle["bundle.json"], audience) == spiffe_id
    assert foreign.openssl_verifies(credential, bundle["bundle.pem"], tmp_path) == "tls.crt: OK"
    assert foreign.violations(credential, domain, bundle, {"token.jwt": audience}) == []

    claims = credential.claims()
    der = credential.certificate.public_bytes(Encoding.DER)
    thumbprint = base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()
    assert claims["aud"] == audience, "one audience, a string"
    assert claims["cnf"] == {"x5t#S256": thumbprint}
    assert claims["authorization_details"] == [
        {
            "type": "https://pilotidentity.dev/access/tool",
            "identifier": "tickets",
            "locations": [audience],
            "actions": ["read"],
            "resources": ["projects/billing/**"],
            "datatypes": ["synthetic"],
        }
    ]
    assert claims[CLAIMS] == {
        "stage": "sandbox",
        "pilot": {"name": "triage", "uid": pilot["metadata"]["uid"]},
        "grant": {"namespace": play.namespace, "name": "task", "uid": asked["metadata"]["uid"]},
        "task": "TASK-task",
        "delegation": [],
    }


def test_no_credential_outlives_its_task(play: Play) -> None:
    """Certificate and token end with the task where that is sooner than their own life."""
    play.ready_pilot("triage")
    play.ask("task", "triage", duration="2m")
    status = play.phase("task", "Active")["status"]
    credential = play.credential("task")
    ends = moment(status["expiresAt"])
    assert credential.certificate.not_valid_after_utc.timestamp() == ends
    assert credential.claims()["exp"] == ends


def test_several_audiences_get_a_token_each(play: Play) -> None:
    """Each named after its access entry, with only that entry's access; all bound to the one certificate."""
    domain = str(play.admin.get(places.stages("sandbox"))["spec"]["trustDomain"])
    tools = [manifests.tool(), manifests.tool("invoices", manifests.OTHER_AUDIENCE, actions=["read"])]
    play.ready_pilot("triage", access=tools)
    play.ask("both", "triage", access=[{"name": "tickets"}, {"name": "invoices"}])
    credential, bundle = play.credential("both"), play.bundle()
    tokens = {"tickets.jwt": manifests.AUDIENCE, "invoices.jwt": manifests.OTHER_AUDIENCE}
    assert {file for file in credential.files if file.endswith(".jwt")} == set(tokens)
    for file, audience in tokens.items():
        foreign.read_jwt_svid(credential.token(file), domain, bundle["bundle.json"], audience)
        details = credential.claims(file)["authorization_details"]
        assert [detail["identifier"] for detail in details] == [file.removesuffix(".jwt")]
    assert foreign.violations(credential, domain, bundle, tokens) == []
    ids = {credential.claims(file)["jti"] for file in tokens}
    assert len(ids) == 2
    status = play.phase("both", "Active")["status"]
    assert {token["jti"] for token in status["credential"]["tokens"]} == ids


def test_the_secrets_name_is_known_beforehand(play: Play) -> None:
    """By default the grant's name, else the one that the grant names."""
    play.ready_pilot("triage")
    play.ask("named", "triage", secretName="mounted-by-a-job")
    assert play.phase("named", "Active")["status"]["credential"]["secretName"] == "mounted-by-a-job"
    play.credential("mounted-by-a-job")
    assert play.admin.find(play.secrets("named")) is None


def test_a_grant_may_come_before_its_pilot(play: Play) -> None:
    """Manifests are applied in any order."""
    play.ask("early", "triage")
    play.condition(play.grants("early"), "Ready", reason="PilotNotFound")
    play.declare("triage")
    play.phase("early", "Active")
    play.credential("early")


@pytest.mark.parametrize(
    "asked, reason",
    [
        ({"access": [{"name": "tickets", "actions": ["close"]}]}, "ActionOutsidePilot"),
        ({"access": [{"name": "tickets", "resources": ["projects/**"]}]}, "ResourceOutsidePilot"),
        ({"access": [{"name": "payroll"}]}, "AccessUnknown"),
        ({"duration": "200h"}, "DurationTooLong"),
    ],
)
def test_a_grant_outside_its_pilots_access_is_denied_for_good(
    play: Play, asked: dict[str, Any], reason: str
) -> None:
    """No Secret, one entry with every check and its result, and an Event that names it."""
    play.ready_pilot("triage")
    grant = play.ask("outside", "triage", **asked)
    status = play.phase("outside", "Denied")["status"]
    assert status["decision"]["reason"] == reason
    assert play.admin.find(play.secrets("outside")) is None
    first, line = play.trail().of(grant["metadata"]["uid"])
    assert (first.kind, first.revision) == (EntryType.GRANT_REQUESTED, line.revision), "in one write"
    assert (line.kind, line.index) == (EntryType.GRANT_DENIED, status["decision"]["auditIndex"])
    assert line.entry.data["decision"]["checks"] == status["decision"]["checks"]
    (event,) = play.events_of(grant["metadata"]["uid"], reason)
    assert audit_index(event) == line.index


def test_a_grant_ends_at_its_time(play: Play) -> None:
    """The Secret is gone within a second of `expiresAt`; the grant stays as a record, Expired."""
    play.ready_pilot("triage")
    names = [f"short-{number}" for number in range(8)]
    with play.watch(play.secrets()) as secrets:
        for name in names:
            play.ask(name, "triage", duration="5s")
        for name in names:
            expires_at = moment(play.phase(name, "Active", "Expired")["status"]["expiresAt"])
            gone = secrets.wait_for(end_of(name), f"the end of {name}")
            assert 0 <= gone.at - expires_at < GONE_WITHIN_S
    for name in names:
        grant = play.phase(name, "Expired")
        closure = grant["status"]["closure"]
        assert (closure["outcome"], closure["reason"]) == ("Expired", "TimeUp")
        assert closure["requestedAt"] == grant["status"]["expiresAt"]
        asked, issued, closed = play.trail().of(grant["metadata"]["uid"])
        assert (asked.kind, asked.revision) == (EntryType.GRANT_REQUESTED, issued.revision), "in one write"
        assert (issued.kind, closed.kind) == (EntryType.GRANT_ISSUED, EntryType.GRANT_CLOSED)
        assert issued.index == grant["status"]["decision"]["auditIndex"]
        assert closed.index == closure["auditIndex"]
        assert [audit_index(event) for event in play.events_of(grant["metadata"]["uid"], "Issued")] == [
            issued.index
        ]
        assert [audit_index(event) for event in play.events_of(grant["metadata"]["uid"], "TimeUp")] == [
            closed.index
        ]


def suspend(play: Play) -> object:
    """The owner stops the pilot."""
    return play.admin.patch(play.pilots("triage"), {"spec": {"suspend": True}})


def freeze(play: Play) -> object:
    """Someone stops the whole stage, and lifts that once it has worked."""
    path = places.stages("sandbox")
    play.admin.patch(path, {"spec": {"freeze": True}})
    try:
        return play.phase("task", "Revoked")
    finally:
        play.admin.patch(path, {"spec": {"freeze": False}})


def delete_pilot(play: Play) -> None:
    """The pilot is deleted."""
    play.admin.delete(play.pilots("triage"))


@pytest.mark.parametrize(
    "act, phase, reason",
    [
        pytest.param(
            lambda play: play.admin.patch(play.grants("task"), {"spec": {"completed": True}}),
            "Completed",
            "TaskCompleted",
            id="completed",
        ),
        pytest.param(
            lambda play: play.admin.patch(
                play.grants("task"),
                {"spec": {"revoke": {"reason": "no longer needed", "by": play.admin.name}}},
            ),
            "Revoked",
            "Revoked",
            id="revoked",
        ),
        pytest.param(suspend, "Revoked", "PilotSuspended", id="pilot suspended"),
        pytest.param(freeze, "Revoked", "StageFrozen", id="stage frozen"),
        pytest.param(delete_pilot, "Revoked", "PilotDeleted", id="pilot deleted"),
    ],
)
def test_a_grant_ends_on_someones_word(play: Play, act: Act, phase: str, reason: str) -> None:
    """The Secret goes, the status says who and why, one entry closes the grant, an Event names it."""
    play.ready_pilot("triage")
    grant = play.ask("task", "triage")
    uid = grant["metadata"]["uid"]
    play.phase("task", "Active")
    withdrawn = play.credential("task")
    act(play)
    closure = play.phase("task", phase)["status"]["closure"]
    play.gone("task")
    assert (closure["outcome"], closure["reason"]) == (phase, reason)
    assert play.trail().kinds(uid) == [
        EntryType.GRANT_REQUESTED,
        EntryType.GRANT_ISSUED,
        EntryType.GRANT_CLOSED,
    ]
    closed = play.trail().of(uid)[-1]
    assert closed.index == closure["auditIndex"]
    assert closed.entry.data["withdrawn"]["id"] == withdrawn.id
    (event,) = play.events_of(uid, reason)
    assert audit_index(event) == closed.index


def test_who_revoked_is_told(play: Play) -> None:
    """The API server stamps it, or refuses any other name; the record has it."""
    play.ready_pilot("triage")
    grant = play.ask("task", "triage")
    play.phase("task", "Active")
    play.admin.patch(
        play.grants("task"), {"spec": {"revoke": {"reason": "seen in a wrong place", "by": play.admin.name}}}
    )
    closure = play.phase("task", "Revoked")["status"]["closure"]
    assert closure["message"] == f"revoked by {play.admin.name}: seen in a wrong place"
    assert (
        play.trail().of(grant["metadata"]["uid"])[-1].entry.data["closure"]["message"] == closure["message"]
    )


def test_a_deleted_grant_is_withdrawn_and_recorded_before_it_goes(play: Play) -> None:
    """The finalizer holds it until its Secret is gone and the log says so, and not longer."""
    play.ready_pilot("triage")
    grant = play.ask("task", "triage")
    play.phase("task", "Active")
    play.admin.delete(play.grants("task"))
    until(lambda: play.admin.find(play.grants("task")) is None, "the grant is gone")
    assert play.admin.find(play.secrets("task")) is None
    closed = play.trail().of(grant["metadata"]["uid"])[-1]
    assert closed.kind is EntryType.GRANT_CLOSED
    assert closed.entry.data["closure"]["reason"] == "GrantDeleted"


def test_a_pilot_in_suspension_has_nothing_and_gets_it_back(play: Play) -> None:
    """Its SVID is withdrawn at once, and a grant that is asked for meanwhile is denied."""
    pilot = play.ready_pilot("triage")
    suspend(play)
    play.condition(play.pilots("triage"), "Ready", reason="Suspended")
    play.gone("pilot-svid-triage")
    play.ask("meanwhile", "triage")
    assert play.phase("meanwhile", "Denied")["status"]["decision"]["reason"] == "PilotSuspended"
    play.admin.patch(play.pilots("triage"), {"spec": {"suspend": False}})
    play.condition(play.pilots("triage"), "Ready", reason="IdentityIssued")
    play.credential("pilot-svid-triage")
    assert play.trail().kinds(pilot["metadata"]["uid"])[-4:] == [
        EntryType.PILOT_DEFINED,
        EntryType.PILOT_SUSPENDED,
        EntryType.PILOT_DEFINED,
        EntryType.PILOT_RESUMED,
    ]


def test_a_deleted_pilot_takes_everything_with_it(play: Play) -> None:
    """Grants, Secrets, bundle and finalizers are gone, so that nothing holds up the namespace's deletion."""
    pilot = play.ready_pilot("triage")
    names = [f"task-{number}" for number in range(5)]
    for name in names:
        play.ask(name, "triage")
    for name in names:
        play.phase(name, "Active")
    play.admin.delete(f"/api/v1/namespaces/{play.namespace}")
    until(
        lambda: play.admin.find(f"/api/v1/namespaces/{play.namespace}") is None,
        "the namespace is gone",
        seconds=60,
    )
    trail = play.trail()
    assert trail.kinds(pilot["metadata"]["uid"])[-1] is EntryType.PILOT_RETIRED
    closed = [line for line in trail if line.kind is EntryType.GRANT_CLOSED]
    subjects = {line.entry.subject for line in closed}
    assert {f"TaskGrant {play.namespace}/{name}" for name in names} <= subjects


def test_a_long_task_renews_its_short_credentials_and_ends_them_all(play: Play, short_tokens: None) -> None:
    """Each is replaced at half its life under the same name, none outlives the task, each has its entry."""
    del short_tokens
    play.ready_pilot("triage")
    with play.watch(play.secrets()) as secrets:
        grant = play.ask("long", "triage", duration="14s")
        gone = secrets.wait_for(end_of("long"), "the end", seconds=30)
        seen = secrets.of("long")[:-1]
    versions = [Credential.of(one.object) for one in seen]
    status = play.phase("long", "Expired")["status"]
    ends = moment(status["expiresAt"])
    assert len(versions) >= 3
    assert len({one.uid for one in versions}) == 1, "one Secret, so that kubelet follows it"
    for before, after in itertools.pairwise(versions):
        assert after.replaces == before.id
        assert after.claims()["exp"] > before.claims()["exp"] or after.claims()["exp"] == ends
        left = before.claims()["exp"] - seen[versions.index(after)].at
        assert left > 0, "a workload always has a token that is good"
    assert all(one.claims()["exp"] <= ends for one in versions)
    assert 0 <= gone.at - ends < GONE_WITHIN_S
    asked, *lines = play.trail().of(grant["metadata"]["uid"])
    assert asked.kind is EntryType.GRANT_REQUESTED
    assert [line.kind for line in lines] == [
        EntryType.GRANT_ISSUED,
        *[EntryType.GRANT_RENEWED] * (len(versions) - 1),
        EntryType.GRANT_CLOSED,
    ]
    for version, line in zip(versions, lines, strict=False):
        assert (line.credential_id, line.revision < version.revision) == (version.id, True)


def test_no_key_is_in_a_status_an_event_or_the_log(play: Play) -> None:
    """What people may read tells identifiers and digests, never a key or a token."""
    play.ready_pilot("triage")
    grant = play.ask("task", "triage")
    play.phase("task", "Active")
    credential = play.credential("task")
    told = json.dumps(
        [
            play.admin.get(play.grants("task")),
            play.admin.get(places.events(play.namespace))["items"],
            [line.entry.data for line in play.trail().of(grant["metadata"]["uid"])],
        ]
    )
    assert "PRIVATE KEY" not in told
    assert credential.token().rpartition(".")[2] not in told
