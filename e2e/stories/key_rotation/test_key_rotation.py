"""A stage's CA and JWT key are rotated, and nobody notices.

An admin writes another word into the stage. The next keys are in the bundle before they sign, the old ones
until what they signed has lapsed; then their private keys are deleted. A verifier that fetches the bundle as
often as it is told to, and a workload whose credentials are renewed, see nothing of it, though the operator
is killed in the middle. The log has each step, older than what follows from it.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from spiffe.errors import PySpiffeError

from e2e import foreign, manifests, places
from e2e.admin import Admin, Document
from e2e.controlplane.cluster import Cluster
from e2e.credential import Credential
from e2e.installation import Installation
from e2e.patience import LOOK_S, until
from e2e.stories.play import Play
from pilot_identity.core.audit.entries import EntryType

STAGE = "rotating"
PATH = places.stages(STAGE)
HINT_S = 1.0
SHORT = {"x509TTL": "6s", "jwtTTL": "6s", "maxTaskDuration": "1h"}
AUDIENCE = manifests.tool()["tool"]["audience"]
WORD = "2026-11-21-story"
STEP_S = 60.0
"""Some times what one step of a rotation takes here."""
OF_KEYS = (EntryType.STAGE_KEYS_MADE, EntryType.STAGE_KEYS_ROTATED, EntryType.STAGE_KEYS_RETIRED)


class Verifier:
    """A tool that fetches the bundle once in a refresh hint, and judges what a workload has at any time.

    Attributes:
        failures: what it would have refused.
        signers: the serial numbers of the CAs whose certificates it saw, in order.
        sequences: of the bundles that it fetched, in order.
    """

    def __init__(self, cluster: Cluster, namespace: str, secret: str) -> None:
        self._admin = Admin(cluster)
        self._namespace = namespace
        self._secret = places.secrets(namespace, secret)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.failures: list[str] = []
        self.signers: list[str] = []
        self.sequences: list[int] = []

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Let it be."""
        self._stop.set()
        self._thread.join(10)
        self._admin.close()

    def _run(self) -> None:
        bundle: dict[str, str] = {}
        fetched = -HINT_S
        while not self._stop.wait(LOOK_S):
            # The workload's credential is read first: it is older than what it is held against.
            secret = self._admin.find(self._secret)
            if time.monotonic() - fetched >= HINT_S:
                path = places.core("configmaps", self._namespace, f"pilot-bundle-{STAGE}")
                bundle, fetched = self._admin.get(path)["data"], time.monotonic()
                sequence = json.loads(bundle["bundle.json"])["spiffe_sequence"]
                self.sequences += [sequence] if self.sequences[-1:] != [sequence] else []
            if secret is not None:
                self._judge(Credential.of(secret), bundle)

    def _judge(self, credential: Credential, bundle: dict[str, str]) -> None:
        authorities = x509.load_pem_x509_certificates(bundle["bundle.pem"].encode())
        signer = next((one for one in authorities if one.subject == credential.certificate.issuer), None)
        if signer is None:
            self.failures.append(f"{credential.id}: signed by a CA that is in no bundle yet, or not any more")
            return
        credential.certificate.verify_directly_issued_by(signer)
        serial = f"{signer.serial_number:x}"
        self.signers += [serial] if serial not in self.signers else []
        header = jwt.get_unverified_header(credential.token())
        found = [key for key in json.loads(bundle["bundle.json"])["keys"] if key.get("kid") == header["kid"]]
        if not found:
            self.failures.append(f"{credential.id}: a token by {header['kid']}, which is in no bundle")
            return
        jwt.decode(
            credential.token(),
            jwt.PyJWK(found[0]).key,
            algorithms=["ES256"],
            options={"verify_exp": False, "verify_aud": False},
        )


@pytest.fixture
def stage(play: Play) -> Iterator[str]:
    """A stage of the story's own, in which pilots begin: the sandbox makes room below it."""
    sandbox = places.stages("sandbox")
    play.admin.patch(sandbox, {"spec": {"rank": 1}})
    play.condition(sandbox, "Ready", reason="KeysReady")
    play.make_stage(
        STAGE, rank=0, data_classes=["rotating-data"], credentials=SHORT, keys={"refreshHint": "1s"}
    )
    yield STAGE
    # The elder of two with one rank is the one that stays.
    play.admin.patch(sandbox, {"spec": {"rank": 0}})
    play.condition(sandbox, "Ready", reason="KeysReady")


def phases(play: Play, path: str = PATH) -> dict[int, str]:
    """Which generations stand, and what each does."""
    return {one["generation"]: one["phase"] for one in play.status(path).get("keys", ())}


def await_phases(play: Play, wanted: dict[int, str], path: str = PATH) -> Document:
    """Wait until exactly these stand; returns the stage's status."""
    until(
        lambda: phases(play, path) == wanted,
        f"keys are {wanted};",
        seconds=STEP_S,
        instead=lambda: play.status(path),
    )
    return play.status(path)


def openssl(credential: Credential, bundle: str, crl: str, scratch: Path) -> str:
    """Let openssl verify a leaf against bundle and CRLs, whatever the time; returns what it says."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is not on this machine")
    files = {"bundle.pem": bundle.encode(), "tls.crt": credential.files["tls.crt"], "crl.pem": crl.encode()}
    for name, content in files.items():
        (scratch / name).write_bytes(content)
    command = [program, "verify", "-x509_strict", "-no_check_time", "-CAfile", str(scratch / "bundle.pem")]
    command += ["-crl_check", "-CRLfile", str(scratch / "crl.pem")] if crl else []
    done = subprocess.run([*command, str(scratch / "tls.crt")], capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip()


def lists(play: Play) -> dict[str, str]:
    """The stage's revocation lists, as published in the namespace."""
    path = places.core("configmaps", play.namespace, f"pilot-revoked-{STAGE}")
    data: dict[str, str] = until(lambda: play.admin.find(path), "the lists are there")["data"]
    return data


def printed(cluster: Cluster, column: str) -> str:
    """What `kubectl get stage` prints in a column; another may be empty."""
    header, row = cluster.kubectl("get", "stage", STAGE).strip().splitlines()
    (place,) = re.finditer(rf"\b{column}\b", header)
    return row[place.start() :].split(maxsplit=1)[0]


def signer_of_list(published: dict[str, str]) -> str:
    """The key that a deny list names."""
    return str(jwt.get_unverified_header(published["revoked-tokens.jws"])["kid"])


def read_token(play: Play, domain: str, bundle: Mapping[str, str]) -> str:
    """The SPIFFE ID that py-spiffe reads in the task's token; empty where it just lapsed."""
    try:
        return foreign.read_jwt_svid(play.credential("task").token(), domain, bundle["bundle.json"], AUDIENCE)
    except PySpiffeError:
        return ""


def authority(play: Play, slot: str = "") -> x509.Certificate:
    """The CA in a stored generation of keys."""
    secret = play.admin.get(places.core("secrets", name=f"stage-keys-{STAGE}{slot}"))
    return x509.load_pem_x509_certificate(base64.b64decode(secret["data"]["ca.crt"]))


def assert_recorded(play: Play, uid: str, first: str, new: Credential) -> None:
    """Each step is in the log, in order, and before the first credential by the new keys."""
    told = [line for line in play.trail().of(uid) if line.kind in OF_KEYS]
    assert [(line.kind.split(".")[-2], line.entry.data["generation"]) for line in told] == [
        ("keys-made", 1),
        ("keys-made", 2),
        ("keys-rotated", 2),
        ("keys-retired", 1),
    ]
    assert told[1].entry.data["rotate"] == WORD
    assert (told[2].entry.data["why"], told[2].entry.data["before"]["jwtKeyID"]) == ("asked", first)
    assert told[2].revision < new.revision, "recorded before it signed"


def test_a_rotation_is_noticed_by_nobody(
    play: Play, stage: str, operator: Installation, cluster: Cluster, tmp_path: Path
) -> None:
    """Old and new verify with the bundle of their time, and the old keys leave; a kill changes nothing."""
    reach = [manifests.tool() | {"dataClass": "rotating-data"}]
    play.ready_pilot("steady", stage=stage, access=reach)
    play.ask("task", "steady", duration="30m")
    play.ask("leaked", "steady", duration="30m")
    play.phase("task", "Active")
    play.phase("leaked", "Active")
    first = play.status(PATH)["jwtKeyID"]
    uid = play.admin.get(PATH)["metadata"]["uid"]
    old_ca = authority(play)
    with Verifier(cluster, play.namespace, "task") as verifier:
        play.admin.patch(PATH, {"spec": {"keys": {"rotate": WORD}}})
        status = await_phases(play, {1: "Active", 2: "Prepared"})
        assert status["jwtKeyID"] == first, "it signs nothing yet"
        assert printed(cluster, "KEY") == "1"
        old, leaked = play.credential("task"), play.credential("leaked")
        word = {"reason": "it leaked", "by": play.admin.name}
        play.admin.patch(play.grants("leaked"), {"spec": {"revoke": word}})
        play.phase("leaked", "Revoked")

        status = await_phases(play, {1: "Old", 2: "Active"})
        until(lambda: signer_of_list(lists(play)) == status["jwtKeyID"], "lists by the new keys")
        assert printed(cluster, "KEY") == "2"
        operator.operator.kill()
        operator.operator.start()
        play.admin.patch(PATH, {"spec": {"keys": {"rotate": WORD}}})
        new_ca, bundle, published = authority(play, ".b"), play.bundle(STAGE), lists(play)
        until(
            lambda: play.credential("task").certificate.issuer == new_ca.subject,
            "the task's credential is renewed with the new keys",
        )
        new = play.credential("task")
        for credential in (old, new):
            said = openssl(credential, bundle["bundle.pem"], published["revoked.crl"], tmp_path)
            assert said.endswith("tls.crt: OK"), said
            foreign.read_x509_svid(credential, bundle["bundle.pem"])
        said = openssl(leaked, bundle["bundle.pem"], published["revoked.crl"], tmp_path)
        assert "certificate revoked" in said
        domain = play.admin.get(PATH)["spec"]["trustDomain"]
        spiffe_id = f"spiffe://{domain}/ns/{play.namespace}/pilot/steady/task/task"
        until(lambda: read_token(play, domain, bundle) == spiffe_id, "py-spiffe accepts the new token")

        await_phases(play, {2: "Active"})
        play.condition(PATH, "Rotating", reason="KeysSteady")
        until(
            lambda: json.loads(play.bundle(STAGE)["bundle.json"])["spiffe_sequence"] == 3, "the last bundle"
        )
        bundle = play.bundle(STAGE)
    assert verifier.failures == []
    assert verifier.signers == [f"{ca.serial_number:x}" for ca in (old_ca, new_ca)]
    assert verifier.sequences[:2] == [1, 2]
    assert bundle["bundle.pem"] == new_ca.public_bytes(Encoding.PEM).decode()
    assert "unable to get local issuer certificate" in openssl(old, bundle["bundle.pem"], "", tmp_path)
    assert play.admin.find(places.core("secrets", name=f"stage-keys-{STAGE}")) is None, "its keys are deleted"

    assert_recorded(play, uid, first, new)


def test_a_distrusted_generation_goes_at_once(play: Play) -> None:
    """Somebody else may have its keys: it is replaced and deleted without waiting for anything."""
    name = "distrusted"
    path, secret = places.stages(name), places.core("secrets", name=f"stage-keys-{name}")
    play.make_stage(name, rank=60, data_classes=["distrusted-data"])
    until(lambda: play.admin.find(secret), "the first keys are there")
    play.admin.patch(path, {"spec": {"keys": {"distrusted": [1]}}})
    await_phases(play, {2: "Active"}, path)
    assert play.admin.find(secret) is None
    told = [line for line in play.trail().of(play.admin.get(path)["metadata"]["uid"]) if line.kind in OF_KEYS]
    assert [line.entry.data["why"] for line in told] == ["first", "distrusted", "distrusted", "distrusted"]
