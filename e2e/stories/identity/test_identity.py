"""A pilot gets its identity.

Someone declares a PilotIdentity; the operator gives it a SPIFFE ID in its stage's trust domain, a service
account of its own, an X.509-SVID in a Secret and the stage's trust bundle beside it. Verifiers that others
wrote read them. The SVID is renewed at half its life; what people delete by hand comes back then; and
applying a manifest twice changes nothing.
"""

from __future__ import annotations

import base64
import datetime as dt
import itertools
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509

from e2e import foreign, manifests, places
from e2e.admin import Admin, Document
from e2e.controlplane.cluster import Cluster
from e2e.credential import Credential
from e2e.patience import until
from e2e.sightings import Sightings
from e2e.stories.play import Play, moment
from pilot_identity.core.audit.entries import EntryType
from pilot_identity.core.spiffe.bundle import Bundle
from pilot_identity.core.spiffe.ids import TrustDomain

SHORT_TTL = dt.timedelta(seconds=10)
BACKDATED = dt.timedelta(seconds=10)
"""How far an SVID's start is set back for clocks that are behind."""


@pytest.fixture
def short_svids(admin: Admin, play: Play) -> Iterator[None]:
    """SVIDs of the sandbox live ten seconds while the story is told."""
    path = places.stages("sandbox")
    usual = admin.get(path)["spec"]["credentials"]["x509TTL"]
    admin.patch(path, {"spec": {"credentials": {"x509TTL": f"{SHORT_TTL.seconds}s"}}})
    play.condition(path, "Ready", reason="KeysReady")
    yield
    admin.patch(path, {"spec": {"credentials": {"x509TTL": usual}}})


def trust_domain(admin: Admin, stage: str = "sandbox") -> str:
    """The trust domain of a stage."""
    return str(admin.get(places.stages(stage))["spec"]["trustDomain"])


def test_a_pilot_gets_all_that_it_needs_to_prove_who_it_is(play: Play, tmp_path: Path) -> None:
    """SPIFFE ID, service account, SVID and bundle are there; foreign verifiers and our own accept them."""
    domain = trust_domain(play.admin)
    pilot = play.ready_pilot("triage")
    status, credential, bundle = pilot["status"], play.credential("pilot-svid-triage"), play.bundle()
    spiffe_id = f"spiffe://{domain}/ns/{play.namespace}/pilot/triage"

    assert (status["stage"], status["spiffeID"]) == ("sandbox", spiffe_id)
    account = play.admin.get(places.core("serviceaccounts", play.namespace, "pilot-workload-triage"))
    assert account["metadata"]["ownerReferences"][0]["uid"] == pilot["metadata"]["uid"]
    assert status["serviceAccountName"] == "pilot-workload-triage"

    assert set(credential.files) == {"tls.crt", "tls.key", "bundle.pem", "bundle.json"}
    assert credential.owner_uid == pilot["metadata"]["uid"]
    assert (credential.id, credential.serial) == (status["credential"]["id"], status["credential"]["serial"])
    assert {name: credential.files[name].decode() for name in bundle} == bundle

    assert foreign.read_x509_svid(credential, bundle["bundle.pem"]) == spiffe_id
    assert foreign.openssl_verifies(credential, bundle["bundle.pem"], tmp_path) == "tls.crt: OK"
    assert foreign.violations(credential, domain, bundle, {}) == []


def test_the_record_of_an_identity_is_older_than_the_identity(play: Play) -> None:
    """The log announces the SVID, its key and its owner in an entry that was durable before the Secret."""
    pilot = play.ready_pilot("triage")
    credential = play.credential("pilot-svid-triage")
    defined, line = play.trail().of(pilot["metadata"]["uid"])
    assert (defined.kind, line.kind) == (EntryType.PILOT_DEFINED, EntryType.PILOT_REGISTERED)
    assert defined.revision == line.revision, "in one write"
    assert (line.credential_id, line.index) == (credential.id, pilot["status"]["credential"]["auditIndex"])
    assert line.revision < credential.revision
    assert defined.entry.data["definition"]["owners"] == pilot["spec"]["owners"]
    (event,) = play.events_of(pilot["metadata"]["uid"], "IdentityIssued")
    assert event["metadata"]["annotations"]["pilotidentity.dev/audit-index"] == str(line.index)


def test_an_svid_is_renewed_at_half_its_life_give_or_take_a_tenth(play: Play, short_svids: None) -> None:
    """Each renewal is a new key and serial, between 40 % and 60 % of the life of the one before."""
    del short_svids
    names = [f"short-{number}" for number in range(4)]
    with play.watch(play.secrets()) as secrets:
        for name in names:
            play.declare(name)
        for name in names:
            until(
                partial(_was_renewed_twice, secrets, f"pilot-svid-{name}"),
                f"two renewals of {name}",
                seconds=30,
            )
        shares: list[float] = []
        for name in names:
            seen = secrets.of(f"pilot-svid-{name}")
            versions = [(one.at, Credential.of(one.object)) for one in seen[:3]]
            for (_, before), (at, after) in itertools.pairwise(versions):
                start = before.certificate.not_valid_before_utc + BACKDATED
                assert before.certificate.not_valid_after_utc - start == SHORT_TTL
                shares.append((at - start.timestamp()) / SHORT_TTL.total_seconds())
                assert after.replaces == before.id
                assert after.serial != before.serial
                assert after.certificate.public_key() != before.certificate.public_key()
    # The tenth above is for the second to which starts are cut and for a machine that others use too.
    assert all(0.4 <= share <= 0.7 for share in shares), shares
    assert max(shares) - min(shares) > 0.005, f"a fleet must not renew all at once: {shares}"


def _was_renewed_twice(secrets: Sightings, name: str) -> bool:
    return len(secrets.of(name)) >= 3


def test_renewal_times_spread_over_a_fifth_of_the_life(play: Play) -> None:
    """What the status plans lies in the band of ±10 % around half of the life, and not all at one place."""
    names = [f"spread-{number}" for number in range(12)]
    for name in names:
        play.declare(name)
    shares: list[float] = []
    for name in names:
        play.condition(play.pilots(name), "Ready", reason="IdentityIssued")
        credential = play.status(play.pilots(name))["credential"]
        start = moment(credential["notBefore"]) + BACKDATED.total_seconds()
        life = moment(credential["notAfter"]) - start
        shares.append((moment(credential["renewAt"]) - start) / life)
    assert all(0.4 <= share <= 0.6 for share in shares), shares
    assert max(shares) - min(shares) > 0.02, shares


def test_a_secret_deleted_by_hand_comes_back_at_the_next_renewal(play: Play, short_svids: None) -> None:
    """Nobody watches Secrets, so that it is the renewal that brings it back."""
    del short_svids
    play.declare("careless")
    first = play.credential("pilot-svid-careless")
    play.admin.delete(play.secrets("pilot-svid-careless"))
    second = play.credential("pilot-svid-careless")
    assert second.uid != first.uid
    assert second.id != first.id
    assert second.certificate.not_valid_before_utc > first.certificate.not_valid_before_utc


def test_applying_a_manifest_twice_changes_nothing(play: Play, cluster: Cluster) -> None:
    """Neither the pilot nor its Secret nor the log moves."""
    manifest = manifests.pilot("steady")
    manifest["metadata"]["namespace"] = play.namespace
    cluster.apply(manifest)
    play.condition(play.pilots("steady"), "Ready", reason="IdentityIssued")

    def state() -> Document:
        pilot = play.admin.get(play.pilots("steady"))
        return {
            "pilot": pilot["metadata"]["resourceVersion"],
            "Secret": play.credential("pilot-svid-steady").revision,
            "entries": len(play.trail().of(pilot["metadata"]["uid"])),
        }

    before = state()
    cluster.apply(manifest)
    # Another pilot's whole way is a sure sign that the operator had its time to look at the first again.
    play.ready_pilot("later")
    assert state() == before


def test_stages_share_no_key(play: Play) -> None:
    """Each stage has CA, trust domain and JWT key of its own, in the operator's namespace."""
    seen: dict[str, set[str]] = {}
    for name in ("sandbox", "pilot", "production"):
        play.condition(places.stages(name), "Ready", reason="KeysReady")
        stage = play.admin.get(places.stages(name))
        secret = play.admin.get(places.core("secrets", name=f"stage-keys-{name}"))
        assert secret["type"] == "pilotidentity.dev/stage-keys"
        assert secret["immutable"]
        files = {file: base64.b64decode(text) for file, text in secret["data"].items()}
        assert files["trust-domain"].decode() == stage["spec"]["trustDomain"]
        ca = x509.load_pem_x509_certificate(files["ca.crt"])
        san = ca.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert san.get_values_for_type(x509.UniformResourceIdentifier) == [
            f"spiffe://{stage['spec']['trustDomain']}"
        ]
        for file, content in files.items():
            if file not in {"generation", "rotate", "refresh-hint-seconds"}:
                seen.setdefault(file, set()).add(content.decode())
        seen.setdefault("jwt key id", set()).add(stage["status"]["jwtKeyID"])
        assert moment(stage["status"]["caNotAfter"]) == ca.not_valid_after_utc.timestamp()
    assert {what: len(values) for what, values in seen.items()} == dict.fromkeys(seen, 3)


def test_the_bundle_is_the_stages_and_holds_no_private_key(play: Play) -> None:
    """What is published in a namespace is the public half, and parses as a SPIFFE bundle of the domain."""
    play.ready_pilot("triage")
    bundle = play.bundle()
    stored = play.admin.get(places.core("secrets", name="stage-keys-sandbox"))["data"]
    assert bundle["bundle.pem"] == base64.b64decode(stored["ca.crt"]).decode()
    parsed = Bundle.parse_spiffe_json(bundle["bundle.json"], TrustDomain.parse(trust_domain(play.admin)))
    assert list(parsed.jwt_keys) == [play.status(places.stages("sandbox"))["jwtKeyID"]]
    assert "PRIVATE" not in json.dumps(bundle)
    assert all("d" not in key for key in json.loads(bundle["bundle.json"])["keys"])
