"""A certificate over the workload's own key: nothing secret is made, stored or sent.

A long-running agent draws its key itself and asks with a certificate request. The certificate is in the
grant's status, where everyone may read it; only the agent can use it.
"""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from e2e import foreign, places
from e2e.admin import Admin
from e2e.credential import Credential
from e2e.stories.play import Play, moment
from pilot_identity.core.audit.entries import EntryType
from pilot_identity.core.spiffe.certificate import uris
from pilot_identity.core.spiffe.keys import spki_sha256

WISHES = "URI:spiffe://elsewhere.example.org/root,DNS:kubernetes.default.svc"
"""Names that the request asks for; none of them is looked at."""
USAGES = ("basicConstraints=critical,CA:TRUE", "keyUsage=keyCertSign", "extendedKeyUsage=codeSigning")


@pytest.fixture
def short_certificates(admin: Admin, play: Play) -> Iterator[None]:
    """Certificates of the sandbox live eight seconds while the story is told."""
    path = places.stages("sandbox")
    usual = admin.get(path)["spec"]["credentials"]
    admin.patch(path, {"spec": {"credentials": {"x509TTL": "8s", "jwtTTL": "6s"}}})
    play.condition(path, "Ready", reason="KeysReady")
    yield
    admin.patch(path, {"spec": {"credentials": usual}})


class Agent:
    """Has a key of its own, drawn by openssl."""

    def __init__(self, room: Path, kind: tuple[str, ...]) -> None:
        openssl = shutil.which("openssl")
        if openssl is None:
            pytest.skip("openssl is not on this machine")
        self._room = room
        self._key, self._request = room / "agent.key", room / "agent.csr"
        extensions = [part for usage in USAGES for part in ("-addext", usage)]
        command = [openssl, "req", "-new", "-nodes", "-newkey", *kind, "-subj", "/CN=system:admin"]
        files = ["-keyout", str(self._key), "-out", str(self._request)]
        subprocess.run(
            [*command, *files, "-addext", f"subjectAltName={WISHES}", *extensions],
            check=True,
            capture_output=True,
        )

    @property
    def request(self) -> str:
        """The certificate request, PEM."""
        return self._request.read_text()

    def with_certificate(self, pem: str) -> Credential:
        """What the agent has once it read its certificate."""
        files = {"tls.crt": pem.encode(), "tls.key": self._key.read_bytes()}
        return Credential(id="", replaces="", uid="", revision=0, owner_uid="", files=files)


KINDS = {
    "P-256": ("ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
    "P-384": ("ec", "-pkeyopt", "ec_paramgen_curve:P-384"),
    "RSA 2048": ("rsa:2048",),
}


def certificate(play: Play, grant: str) -> str:
    """The certificate in a grant's status."""
    pem: str = play.phase(grant, "Active")["status"]["credential"]["certificate"]
    return pem


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_an_agent_gets_a_certificate_over_its_own_key(
    play: Play, tmp_path: Path, kind: tuple[str, ...]
) -> None:
    """It says what the grant says, not what the request wished; there is no Secret, and no token."""
    agent = Agent(tmp_path, kind)
    domain = str(play.admin.get(places.stages("sandbox"))["spec"]["trustDomain"])
    play.ready_pilot("triage")
    asked = play.ask("keyless", "triage", certificateRequest=agent.request, duration="10m")
    pem = certificate(play, "keyless")
    credential, bundle = agent.with_certificate(pem), play.bundle()
    leaf = credential.certificate
    private_key = load_pem_private_key(credential.files["tls.key"], None)
    assert leaf.public_key() == private_key.public_key()
    spiffe_id = f"spiffe://{domain}/ns/{play.namespace}/pilot/triage/task/keyless"
    assert uris(leaf) == (spiffe_id,)
    assert foreign.read_x509_svid(credential, bundle["bundle.pem"]) == spiffe_id
    assert foreign.openssl_verifies(credential, bundle["bundle.pem"], tmp_path) == "tls.crt: OK"
    assert foreign.violations(credential, domain, bundle, {}) == []
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca

    status = play.status(play.grants("keyless"))
    assert status["credential"]["serial"] == credential.serial
    assert "tokens" not in status["credential"]
    assert status["credential"]["secretName"] == ""
    made = [secret["metadata"]["name"] for secret in play.admin.get(play.secrets())["items"]]
    assert made == ["pilot-svid-triage"], "the pilot's own, and nothing of the task's"
    *_, issued = play.trail().of(asked["metadata"]["uid"])
    announced = issued.entry.data["credential"]
    assert announced["serial"] == credential.serial
    assert announced["publicKeySHA256"] == spki_sha256(leaf.public_key())  # type: ignore[arg-type]
    assert "PRIVATE KEY" not in json.dumps(play.admin.get(play.grants("keyless")))


def test_a_long_task_keeps_its_key(play: Play, tmp_path: Path, short_certificates: None) -> None:
    """The certificate is replaced before it lapses, each with its entry; none outlives the task."""
    del short_certificates
    agent = Agent(tmp_path, KINDS["P-256"])
    play.ready_pilot("triage")
    with play.watch(play.grants()) as grants:
        asked = play.ask("long", "triage", certificateRequest=agent.request, duration="16s")
        grants.wait_for(
            lambda seen: seen.object.get("status", {}).get("phase") == "Expired", "the end", seconds=40
        )
        seen = grants.of("long")
    told = {
        one.object["status"]["credential"]["serial"]: one
        for one in seen
        if "credential" in one.object.get("status", {})
    }
    leaves = [
        agent.with_certificate(one.object["status"]["credential"]["certificate"]).certificate
        for one in told.values()
    ]
    assert len(leaves) >= 3
    assert len({spki_sha256(leaf.public_key()) for leaf in leaves}) == 1  # type: ignore[arg-type]
    ends = moment(play.status(play.grants("long"))["expiresAt"])
    for before, after in itertools.pairwise(leaves):
        assert after.not_valid_before_utc > before.not_valid_before_utc
        assert after.serial_number != before.serial_number
    assert all(leaf.not_valid_after_utc.timestamp() <= ends for leaf in leaves)
    kinds = play.trail().kinds(asked["metadata"]["uid"])
    assert kinds[:3] == [EntryType.GRANT_REQUESTED, EntryType.GRANT_ISSUED, EntryType.GRANT_RENEWED]
    assert kinds.count(EntryType.GRANT_RENEWED) == len(leaves) - 1
    assert EntryType.GRANT_CLOSED in kinds


def test_a_revoked_certificate_is_named(play: Play, tmp_path: Path) -> None:
    """There is no Secret to take away: the serial is told, and until when a copy would be believed."""
    agent = Agent(tmp_path, KINDS["P-256"])
    play.ready_pilot("triage")
    asked = play.ask("keyless", "triage", certificateRequest=agent.request)
    serial = agent.with_certificate(certificate(play, "keyless")).serial
    word = {"reason": "the agent was taken over", "by": play.admin.name}
    play.admin.patch(play.grants("keyless"), {"spec": {"revoke": word}})
    play.phase("keyless", "Revoked", seconds=60)
    closed = next(
        line for line in play.trail().of(asked["metadata"]["uid"]) if line.kind is EntryType.GRANT_CLOSED
    )
    assert closed.entry.data["withdrawn"]["serial"] == serial


WEAK = {
    "RSA 1024": ("rsa:1024",),
    "RSA with exponent 3": ("rsa:2048", "-pkeyopt", "rsa_keygen_pubexp:3"),
    "P-521": ("ec", "-pkeyopt", "ec_paramgen_curve:P-521"),
    "Ed25519": ("ed25519",),
}


@pytest.mark.parametrize("kind", WEAK.values(), ids=WEAK)
def test_a_weak_key_is_refused(play: Play, tmp_path: Path, kind: tuple[str, ...]) -> None:
    """For good, with the rule as the message; no certificate is made."""
    play.ready_pilot("triage")
    play.ask("weak", "triage", certificateRequest=Agent(tmp_path, kind).request)
    status = play.phase("weak", "Denied")["status"]
    assert status["decision"]["reason"] == "CertificateRequestInvalid"
    assert "key must" in status["decision"]["message"]
    assert "credential" not in status


def test_a_request_that_another_key_signed_is_refused(play: Play, tmp_path: Path) -> None:
    """Nobody gets a certificate over a key that he cannot show to have."""
    play.ready_pilot("triage")
    lines = Agent(tmp_path, KINDS["P-256"]).request.splitlines()
    # The last octets are the signature's.
    changed = lines[-2].translate(str.maketrans("ABCDEFGHIJKLMabcdefghijklm", "BCDEFGHIJKLMNbcdefghijklmn"))
    play.ask("stolen", "triage", certificateRequest="\n".join([*lines[:-2], changed, lines[-1], ""]))
    status = play.phase("stolen", "Denied")["status"]
    assert status["decision"]["reason"] == "CertificateRequestInvalid"


def test_what_needs_a_secret_is_refused_beside_a_request(play: Play, tmp_path: Path) -> None:
    """Nothing that is asked for is left out silently."""
    agent = Agent(tmp_path, KINDS["P-256"])
    cluster = {
        "name": "cluster",
        "dataClass": "synthetic",
        "kubernetes": {"roleRef": {"kind": "ClusterRole", "name": "view"}},
    }
    play.ready_pilot("triage", access=[cluster])
    play.ask("both", "triage", certificateRequest=agent.request, access=[{"name": "cluster"}])
    status = play.phase("both", "Denied")["status"]
    assert status["decision"]["reason"] == "CertificateRequestInvalid"
    assert "needs a Secret" in status["decision"]["message"]


def test_only_the_status_changes_hands(play: Play, tmp_path: Path) -> None:
    """A grant that is asked for and ends again leaves no Secret at any time."""
    agent = Agent(tmp_path, KINDS["P-256"])
    play.ready_pilot("triage")
    with play.watch(play.secrets()) as secrets:
        play.ask("brief", "triage", certificateRequest=agent.request)
        certificate(play, "brief")
        play.admin.patch(play.grants("brief"), {"spec": {"completed": True}})
        play.phase("brief", "Completed", seconds=60)
        assert secrets.of("brief") == ()
