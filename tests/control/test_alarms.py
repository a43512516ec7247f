"""No life of a grant alarms an auditor, whatever goes wrong in it."""

from __future__ import annotations

import datetime as dt
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest

from pilot_identity.core.audit.completeness import Discrepancy, confirmed, reconcile
from pilot_identity.core.audit.live import Listed, Live, LiveBinding
from pilot_identity.core.audit.told import Record
from pilot_identity.core.resources import PilotIdentity, Resource, TaskGrant, parse
from tests.fakes import access, manifests
from tests.fakes.clock import LoopClock
from tests.fakes.replica import world
from tests.fakes.server import CUSTOM, HOME, FakeServer, Fault
from tests.fakes.witness import Witness

pytestmark = [
    pytest.mark.looptime(noop_cycles=1),
    pytest.mark.no_cover,  # many runs over lines that other tests run once
]
"""Nothing comes from outside the loop, so that there is nothing to wait for before its time moves on."""

REACH = {
    "name": "here",
    "dataClass": "sandbox-data",
    "kubernetes": {"roleRef": {"kind": "ClusterRole", "name": "view"}},
}
ASKED = [{"name": "tickets"}, {"name": "here"}]
BETWEEN = dt.timedelta(seconds=3)


def resources(server: FakeServer) -> Iterable[Resource]:
    """All of our kinds, as they are."""
    for place, body in sorted(server.objects.items()):
        if place.plural in CUSTOM:
            yield parse({**body, "kind": CUSTOM[place.plural]})


def look(server: FakeServer, witness: Witness, now: dt.datetime) -> tuple[Discrepancy, ...]:
    """What an auditor sees who may see everything."""
    record = Record()
    for index, entry in enumerate(witness.entries()):
        record.take(index, entry)
    secrets = [one for one in server.all("secrets") if one["metadata"]["namespace"] != HOME]
    ours = list(resources(server))
    listed = Listed(
        secrets=tuple(Live.read("Secret", one) for one in secrets),
        accounts=tuple(Live.read("ServiceAccount", one) for one in server.all("serviceaccounts")),
        bindings=tuple(LiveBinding.read("RoleBinding", one) for one in server.all("rolebindings")),
        grants={one.metadata.uid: one for one in ours if isinstance(one, TaskGrant)},
        pilots={one.metadata.uid: one for one in ours if isinstance(one, PilotIdentity)},
    )
    return reconcile(record, listed, now)


@dataclass
class Auditor:
    """Looks at every change, and holds each look against the newest that is three seconds older.

    Attributes:
        alarms: what two such looks showed.
        candidates: how many looks showed anything: what was under way.
    """

    server: FakeServer
    witness: Witness
    alarms: list[str] = field(default_factory=list)
    candidates: int = 0
    looks: deque[tuple[dt.datetime, tuple[Discrepancy, ...]]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        """Begin."""
        self.server.watchers.append(lambda *_: self.see())

    def see(self) -> None:
        """Look."""
        now = self.server.clock()
        found = look(self.server, self.witness, now)
        while len(self.looks) > 1 and self.looks[1][0] <= now - BETWEEN:
            self.looks.popleft()
        if self.looks and self.looks[0][0] <= now - BETWEEN:
            self.alarms += [f"{now}: {one}" for one in confirmed(self.looks[0][1], found)]
        self.candidates += bool(found)
        self.looks.append((now, found))


async def live(fault: Fault | None) -> Auditor:
    """Grants that are renewed, expire, end early and are deleted, and a pilot that is suspended."""
    server = FakeServer(LoopClock())
    access.furnish(server)
    auditor = Auditor(server, Witness(server))
    if fault is not None:
        server.faults.append(fault)
    async with world(server) as here:
        server.apply(manifests.stage())
        pilot = manifests.pilot()
        pilot["spec"]["access"].append(REACH)
        server.apply(pilot)
        server.apply(manifests.grant("expires", duration="25s", access=ASKED))
        server.apply(manifests.grant("stays", duration="10m", access=ASKED))
        server.apply(manifests.grant("denied", access=[{"name": "unknown"}]))
        await here.pass_time(12)
        server.ask_to_delete("taskgrants", "stays")
        server.apply(manifests.grant("cut", duration="10m", access=ASKED))
        await here.pass_time(20)
        pilot["spec"]["suspend"] = True
        server.apply(pilot)
        await here.pass_time(20)
        auditor.see()
    return auditor


async def test_nothing_that_a_grant_lives_through_alarms_anybody() -> None:
    """Issued, renewed, expired, revoked, denied, suspended: two looks never show the same disagreement."""
    auditor = await live(None)
    assert auditor.alarms == []
    assert auditor.candidates > 0, "there was something to see in single looks"


@pytest.mark.parametrize(
    "after_effect, kills",
    [
        pytest.param(False, True, id="the process dies before the effect"),
        pytest.param(True, True, id="the process dies after the effect"),
        pytest.param(True, False, id="the answer is lost"),
    ],
)
async def test_no_crash_alarms_anybody(*, after_effect: bool, kills: bool) -> None:
    """What a crash leaves undone is settled by the next process before two looks show it."""
    for number in range(10, 150, 14):
        auditor = await live(Fault(number, after_effect=after_effect, kills=kills))
        assert auditor.alarms == [], f"request {number}"
