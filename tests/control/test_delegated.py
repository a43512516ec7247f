"""A tree of grants, one of them over a workload's own key, through crashes at every request.

A parent, its child with a certificate request, and a grandchild, applied leaf first; the parent is revoked.
The process dies at a request, before or after its effect, or an answer is lost: still each is issued after
its parent, each credential once, and all end with the parent.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pilot_identity.core.audit.entries import EntryType
from pilot_identity.core.spiffe.keys import spki_sha256
from tests.fakes import manifests
from tests.fakes.clock import LoopClock
from tests.fakes.replica import World, world
from tests.fakes.server import CREDENTIAL_TYPE, FakeServer, Fault
from tests.fakes.witness import Witness

pytestmark = [
    pytest.mark.looptime(noop_cycles=1),
    pytest.mark.no_cover,  # hundreds of runs over lines that other tests run once
]
"""Nothing comes from outside the loop, so that there is nothing to wait for before its time moves on."""

KEY = ec.generate_private_key(ec.SECP256R1())
REQUEST = (
    x509.CertificateSigningRequestBuilder()
    .subject_name(x509.Name([]))
    .sign(KEY, hashes.SHA256())
    .public_bytes(serialization.Encoding.PEM)
    .decode()
)
PARENTS = {"parent": None, "child": "parent", "grandchild": "child"}
MORE_REQUESTS_THAN_THE_STORY_HAS = 300

FAULTS = [
    pytest.param(False, True, id="the process dies before the effect"),
    pytest.param(True, True, id="the process dies after the effect"),
    pytest.param(True, False, id="the answer is lost"),
]


def asked(name: str, **spec: Any) -> dict[str, Any]:
    """A grant of the tree."""
    parent = PARENTS[name]
    return manifests.grant(name, **({"parent": parent} if parent else {}), **spec)


async def tell(here: World) -> None:
    """Live through the story."""
    server = here.server
    server.apply(manifests.stage())
    server.apply(manifests.pilot(delegation={"maxDepth": 2}))
    server.apply(asked("grandchild", duration="80s"))
    server.apply(asked("child", duration="100s", certificateRequest=REQUEST))
    await here.pass_time(3)
    server.apply(asked("parent", duration="200s"))
    await here.pass_time(30)
    server.apply(asked("parent", duration="200s", revoke={"reason": "leaked"}))
    await here.pass_time(15)


def check(server: FakeServer, witness: Witness) -> None:
    """Assert every promise about a world in which the story is over."""
    witness.verify_log()
    witness.account_for_announcements()
    assert not witness.broken, "; ".join(witness.broken)
    left = [body["metadata"]["name"] for body in server.all("secrets") if body["type"] == CREDENTIAL_TYPE]
    assert left == ["pilot-svid-triage"]
    entries = witness.entries()
    for name, parent in PARENTS.items():
        grant = witness.grants[name]
        status = grant["status"]
        told = [entry for entry in entries if entry.subject_uid == grant["metadata"]["uid"]]
        assert status["phase"] in {"Revoked", "Expired"}
        assert len([entry for entry in told if entry.type == EntryType.GRANT_CLOSED]) == 1
        if parent is not None:
            above = witness.grants[parent]
            assert status["parentUID"] == above["metadata"]["uid"]
            assert status["expiresAt"] <= above["status"]["expiresAt"]
            assert first(entries, parent, EntryType.GRANT_ISSUED) < first(
                entries, name, EntryType.GRANT_ISSUED
            )
            if status["closure"]["reason"] == "ParentEnded":
                assert first(entries, parent, EntryType.GRANT_CLOSED) < first(
                    entries, name, EntryType.GRANT_CLOSED
                )


def first(entries: list[Any], name: str, kind: EntryType) -> int:
    """The index of a grant's first entry of a type."""
    subject = f"TaskGrant team-a/{name}"
    return next(at for at, entry in enumerate(entries) if (entry.subject, entry.type) == (subject, kind))


async def run(fault: Fault | None) -> tuple[FakeServer, Witness]:
    """Tell the story with a fault in it, and check it."""
    server = FakeServer(LoopClock())
    witness = Witness(server)
    if fault is not None:
        server.faults.append(fault)
    async with world(server) as here:
        await tell(here)
        assert here.restarts <= 1
    check(server, witness)
    return server, witness


async def test_the_tree_is_issued_from_the_top_and_ends_with_it() -> None:
    """Without faults the child is renewed over its own key, without a Secret."""
    server, witness = await run(None)
    assert len(server.requests) < MORE_REQUESTS_THAN_THE_STORY_HAS
    assert not [request for request in server.requests if "secrets/child" in str(request)]
    status = witness.grants["child"]["status"]
    certificate = x509.load_pem_x509_certificate(status["credential"]["certificate"].encode())
    assert spki_sha256(certificate.public_key()) == spki_sha256(KEY.public_key())  # type: ignore[arg-type]
    assert status["issuances"] > 1
    for name in ("child", "grandchild"):
        closure = witness.grants[name]["status"]["closure"]
        assert closure["reason"] == "ParentEnded"
        asked_at = dt.datetime.fromisoformat(closure["requestedAt"])
        assert dt.datetime.fromisoformat(closure["withdrawnAt"]) - asked_at < dt.timedelta(seconds=1)


@pytest.mark.parametrize("after_effect, kills", FAULTS)
async def test_no_request_is_one_at_which_a_fault_breaks_a_promise(
    *, after_effect: bool, kills: bool
) -> None:
    """Whichever request is hit."""
    failures: list[str] = []
    for number in range(MORE_REQUESTS_THAN_THE_STORY_HAS):
        fault = Fault(number, after_effect=after_effect, kills=kills)
        try:
            await run(fault)
        except Exception as error:  # noqa: BLE001 - all are gathered, so that one run shows every weak place
            failures.append(f"request {number} ({fault.struck}): {error!r}")
        if fault.struck is None:
            break
    else:
        failures.append("the story is longer than the number of tries")
    assert not failures, "\n".join(failures)
