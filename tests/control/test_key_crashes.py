"""A crash at any request of a rotation changes nothing that was decided, and nobody notices it.

A stage has a pilot and a grant that is renewed, and is told to rotate its keys. Each time something goes
wrong at another request after that. Meanwhile whoever verifies holds what is out against the bundle in the
namespace.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography import x509

from pilot_identity.core.audit.entries import EntryType
from tests.fakes import manifests
from tests.fakes.clock import LoopClock
from tests.fakes.replica import world
from tests.fakes.server import HOME, FakeServer, Fault, Object, Place
from tests.fakes.witness import Witness

pytestmark = [
    pytest.mark.looptime(noop_cycles=1),
    pytest.mark.no_cover,  # hundreds of runs over lines that other tests run once
]

HINT = dt.timedelta(seconds=1)
SHORT = {"x509TTL": "10s", "jwtTTL": "10s", "maxTaskDuration": "1h"}
MOST_REQUESTS = 200
DOWN_SECONDS = 0.5

FAULTS = [
    pytest.param(False, True, id="the process dies before the effect"),
    pytest.param(True, True, id="the process dies after the effect"),
    pytest.param(True, False, id="the answer is lost"),
]


@dataclass
class Verifier:
    """Holds every credential that is out against the bundle, at each change of either.

    Attributes:
        known: since when each CA is in the bundle.
        broken: what it would have refused, or was told wrongly.
    """

    server: FakeServer
    witness: Witness
    known: dict[str, dt.datetime] = field(default_factory=dict)
    out: dict[str, x509.Certificate] = field(default_factory=dict)
    sequences: list[int] = field(default_factory=list)
    signers: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Watch."""
        self.server.watchers.append(self._see)

    def _see(self, place: Place, before: Object | None, after: Object | None) -> None:
        if after is None:
            if place.name == "stage-keys-sandbox" and not self._is_recorded(EntryType.STAGE_KEYS_RETIRED):
                self.broken.append("keys were deleted before the log said so")
            return
        if before is not None and before.get("data") == after.get("data"):
            return
        if place.name == "pilot-bundle-sandbox":
            self._see_bundle(after["data"])
        elif place.plural == "secrets" and place.namespace != HOME:
            self._see_credential(place.name, after)

    def _see_bundle(self, data: dict[str, Any]) -> None:
        now = self.server.clock()
        subjects = {
            one.subject.rfc4514_string()
            for one in x509.load_pem_x509_certificates(data["bundle.pem"].encode())
        }
        for subject in subjects:
            self.known.setdefault(subject, now)
        self.sequences.append(json.loads(data["bundle.json"])["spiffe_sequence"])
        for name, leaf in self.out.items():
            if leaf.not_valid_after_utc > now and leaf.issuer.rfc4514_string() not in subjects:
                self.broken.append(f"{name}: what is out verifies with the bundle no more")

    def _see_credential(self, name: str, secret: Object) -> None:
        leaf = x509.load_pem_x509_certificate(base64.b64decode(secret["data"]["tls.crt"]))
        signer, now = leaf.issuer.rfc4514_string(), self.server.clock()
        self.out[name] = leaf
        if signer not in self.signers:
            self.signers.append(signer)
            if len(self.signers) > 1 and not self._is_recorded(EntryType.STAGE_KEYS_ROTATED):
                self.broken.append(f"{name}: signed by other keys before the log said so")
            if signer not in self.known or (len(self.signers) > 1 and now - self.known[signer] < 5 * HINT):
                self.broken.append(f"{name}: signed by a key that is not in the bundle long enough")

    def _is_recorded(self, kind: EntryType) -> bool:
        return kind in {entry.type for entry in self.witness.entries()}


async def run(fault: Fault | None) -> tuple[int, int]:
    """Tell the story with a fault in it and check it; returns where the rotation begins and ends."""
    server = FakeServer(LoopClock())
    witness = Witness(server)
    verifier = Verifier(server, witness)
    if fault is not None:
        server.faults.append(fault)
    stage = manifests.stage(credentials=SHORT, keys={"refreshHint": "1s"})
    async with world(server, down_seconds=DOWN_SECONDS) as here:
        server.apply(stage)
        server.apply(manifests.pilot())
        server.apply(manifests.grant("long", duration="10m"))
        server.apply(manifests.grant("ended", duration="10m"))
        await here.pass_time(8)
        server.apply(manifests.grant("ended", duration="10m", revoke={"reason": "leak", "by": "ann"}))
        await here.pass_time(1)
        first = len(server.requests)
        stage["spec"]["keys"]["rotate"] = "word"
        server.apply(stage)
        await here.pass_time(35)
        server.apply(stage)
        await here.pass_time(2)
        last = len(server.requests)
        # What a fault of the last moment left is found by then.
        await here.pass_time(8)
    witness.verify_log()
    witness.account_for_announcements()
    assert not witness.broken, "; ".join(witness.broken)
    assert not verifier.broken, "; ".join(verifier.broken)
    assert verifier.sequences == sorted(verifier.sequences)
    assert verifier.sequences[-1] == 3
    assert len(verifier.signers) == 2
    told = [
        (entry.type, entry.data["generation"])
        for entry in witness.entries()
        if entry.type.startswith("dev.pilotidentity.stage.keys")
    ]
    # Keys that were announced and not stored are announced anew.
    assert list(dict.fromkeys(told)) == [
        (EntryType.STAGE_KEYS_MADE, 1),
        (EntryType.STAGE_KEYS_MADE, 2),
        (EntryType.STAGE_KEYS_ROTATED, 2),
        (EntryType.STAGE_KEYS_RETIRED, 1),
    ]
    assert told.count((EntryType.STAGE_KEYS_ROTATED, 2)) == told.count((EntryType.STAGE_KEYS_RETIRED, 1)) == 1
    stored = [
        body["metadata"]["name"] for body in server.all("secrets") if body["metadata"]["namespace"] == HOME
    ]
    assert stored == ["audit-log-key", "stage-keys-sandbox.b"]
    return first, last


async def test_the_story_holds_where_nothing_goes_wrong() -> None:
    """It is a rotation of many requests, and fits into the number of tries below."""
    first, last = await run(None)
    assert 50 < last - first < MOST_REQUESTS


@pytest.mark.parametrize("after_effect, kills", FAULTS)
async def test_no_request_is_one_at_which_a_fault_shows(*, after_effect: bool, kills: bool) -> None:
    """Each step once, in order, whichever request is hit."""
    failures: list[str] = []
    for number in range(*await run(None)):
        fault = Fault(number, after_effect=after_effect, kills=kills)
        try:
            await run(fault)
        except Exception as error:  # noqa: BLE001 - all are gathered, so that one run shows every weak place
            failures.append(f"request {number} ({fault.struck}): {error!r}")
    assert not failures, "\n".join(failures)
