"""Proof: what the lists say to verifiers that are not ours, and what happens where an end cannot be shown."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import jwt
import pytest
from cryptography import x509

from e2e import places
from e2e.controlplane.cluster import Cluster
from e2e.credential import Credential
from e2e.installation import Installation
from e2e.patience import until
from e2e.squatter import squat
from e2e.stories.play import Play, moment
from pilot_identity.core.audit.entries import EntryType

LIST = "pilot-revoked-sandbox"
OVERDUE_S = 45.0
HELD_S = 90.0


def openssl_with_crl(credential: Credential, bundle: str, crl: str, scratch: Path) -> str:
    """Let openssl verify a leaf against bundle and CRL; returns what it says."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not on this machine")
    files = {"bundle.pem": bundle.encode(), "tls.crt": credential.files["tls.crt"], "crl.pem": crl.encode()}
    for name, content in files.items():
        (scratch / name).write_bytes(content)
    command = [openssl, "verify", "-x509_strict", "-crl_check", "-CAfile", str(scratch / "bundle.pem")]
    command += ["-CRLfile", str(scratch / "crl.pem"), str(scratch / "tls.crt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip()


def denied_tokens(lists: dict[str, str], bundle_json: str, trust_domain: str) -> list[str]:
    """Read the deny list with PyJWT, by the key that the stage's bundle names."""
    signed = lists["revoked-tokens.jws"]
    header = jwt.get_unverified_header(signed)
    assert header["typ"] == "pilot-revoked+jwt"
    (key,) = [key for key in json.loads(bundle_json)["keys"] if key.get("kid") == header["kid"]]
    payload = jwt.decode(signed, jwt.PyJWK(key).key, algorithms=["ES256"], issuer=f"spiffe://{trust_domain}")
    revoked: list[str] = payload["revoked"]
    return revoked


def lists_of(play: Play) -> dict[str, str]:
    """The lists of the namespace as they are published now."""
    data: dict[str, str] = play.admin.get(places.core("configmaps", play.namespace, LIST))["data"]
    return data


def serials(lists: dict[str, str]) -> set[str]:
    """The serial numbers on a CRL, as statuses write them."""
    crl = x509.load_pem_x509_crl(lists["revoked.crl"].encode())
    return {f"{one.serial_number:x}" for one in crl}


def revoke(play: Play, name: str) -> None:
    """Somebody with the right to revoke says so."""
    word = {"reason": "it leaked", "by": play.admin.name}
    play.admin.patch(play.grants(name), {"spec": {"revoke": word}})


def test_a_copy_that_somebody_took_is_refused_by_the_lists(play: Play, tmp_path: Path) -> None:
    """The certificate is revoked for openssl, another's is not; PyJWT reads the token's id in the list."""
    play.ready_pilot("triage")
    play.ask("leaked", "triage", duration="10m")
    play.ask("other", "triage", duration="10m")
    leaked, other, bundle = play.credential("leaked"), play.credential("other"), play.bundle()
    play.phase("leaked", "Active")
    revoke(play, "leaked")
    play.phase("leaked", "Revoked")
    lists = lists_of(play)
    told = openssl_with_crl(leaked, bundle["bundle.pem"], lists["revoked.crl"], tmp_path)
    assert "certificate revoked" in told
    told = openssl_with_crl(other, bundle["bundle.pem"], lists["revoked.crl"], tmp_path)
    assert told.endswith("tls.crt: OK")
    domain = play.admin.get(places.stages("sandbox"))["spec"]["trustDomain"]
    denied = denied_tokens(lists, bundle["bundle.json"], domain)
    assert leaked.claims()["jti"] in denied
    assert other.claims()["jti"] not in denied


def test_an_earlier_credential_is_revoked_with_the_grant(play: Play) -> None:
    """What a renewal replaced lives on for a while; a revocation takes it back too."""
    path = places.stages("sandbox")
    usual = play.admin.get(path)["spec"]["credentials"]["jwtTTL"]
    play.admin.patch(path, {"spec": {"credentials": {"jwtTTL": "6s"}}})
    play.condition(path, "Ready", reason="KeysReady")
    try:
        play.ready_pilot("triage")
        play.ask("long", "triage", duration="10m")
        first = play.credential("long")
        until(lambda: play.credential("long").id != first.id, "it is renewed")
    finally:
        play.admin.patch(path, {"spec": {"credentials": {"jwtTTL": usual}}})
    second = play.credential("long")
    revoke(play, "long")
    play.phase("long", "Revoked")
    assert {first.serial, second.serial} <= serials(lists_of(play))


def test_no_revocation_is_forgotten_over_a_restart(play: Play, operator: Installation) -> None:
    """The new process has only the log to know it from: its lists name what the old one revoked."""
    play.ready_pilot("triage")
    for name in ("before", "after"):
        play.ask(name, "triage", duration="10m")
    before, after = play.credential("before"), play.credential("after")
    play.phase("before", "Active")
    revoke(play, "before")
    play.phase("before", "Revoked")
    play.admin.delete(play.grants("before"))
    operator.operator.kill()
    operator.operator.stop()
    operator.start_operator()
    play.phase("after", "Active")
    revoke(play, "after")
    play.phase("after", "Revoked")
    assert {before.serial, after.serial} <= serials(lists_of(play))


def test_an_end_that_cannot_be_shown_is_told_and_tried_until_it_is(play: Play, cluster: Cluster) -> None:
    """Access is cut and recorded at once; half a minute later people are told; then it is put right."""
    play.ready_pilot("triage")
    mine = squat(cluster, play.namespace, LIST)
    play.ask("stuck", "triage", duration="10m")
    play.ask("deleted", "triage", duration="10m")
    asked = play.phase("stuck", "Active")
    deleted = play.phase("deleted", "Active")
    revoke(play, "stuck")
    play.admin.delete(play.grants("deleted"))

    closing = play.phase("stuck", "Closing")
    play.gone("stuck")
    proofs = {proof["name"]: proof for proof in closing["status"]["closure"]["proofs"]}
    assert proofs["secret-gone"]["proven"]
    assert not proofs["on-revocation-list"]["proven"]
    uid = asked["metadata"]["uid"]
    assert play.trail().kinds(uid) == [
        EntryType.GRANT_REQUESTED,
        EntryType.GRANT_ISSUED,
        EntryType.GRANT_CLOSED,
    ]

    told = play.condition(
        play.grants("stuck"), "RevocationUnproven", reason="ProofOverdue", seconds=OVERDUE_S
    )
    assert told["status"] == "True"
    assert "on-revocation-list" in told["message"]
    (event,) = play.events_of(uid, "ProofOverdue")
    assert event["type"] == "Warning"

    # A deleted grant is held no longer than its bound; the log keeps a tombstone.
    until(lambda: play.admin.find(play.grants("deleted")) is None, "the grant is let go", seconds=HELD_S)
    lines = play.trail().of(deleted["metadata"]["uid"])
    assert [line.kind for line in lines][-1] is EntryType.GRANT_UNPROVEN
    tombstone = lines[-1].entry.data
    assert tombstone["letGo"] is True
    assert tombstone["withdrawn"]["serial"] == deleted["status"]["credential"]["serial"]
    assert [proof["name"] for proof in tombstone["left"]["proofs"]] == ["on-revocation-list"]

    assert play.admin.get(places.core("configmaps", play.namespace, LIST))["data"] == mine["data"]
    play.admin.delete(places.core("configmaps", play.namespace, LIST))
    ended = play.phase("stuck", "Revoked", seconds=HELD_S)
    assert [one["type"] for one in ended["status"]["conditions"]] == ["Ready"]
    closure = ended["status"]["closure"]
    assert moment(closure["withdrawnAt"]) < moment(closure["provenAt"])
    assert play.trail().kinds(uid) == [
        EntryType.GRANT_REQUESTED,
        EntryType.GRANT_ISSUED,
        EntryType.GRANT_CLOSED,
        EntryType.GRANT_UNPROVEN,
        EntryType.GRANT_PROVEN,
    ]
    assert {asked["status"]["credential"]["serial"], deleted["status"]["credential"]["serial"]} <= serials(
        lists_of(play)
    )
