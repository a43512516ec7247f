"""A crash at any request lifts no rule that people did not lift, and none for longer (promises 3 and 6).

One story is told over and over: a pilot asks for an exception, one grant waits for it, two people approve,
the exception ends on time, and another grant is refused. Each time something goes wrong at another request.
"""

from __future__ import annotations

import datetime as dt

import pytest

from pilot_identity.core.audit.entries import EntryType, RecordedEntry
from tests.fakes import manifests
from tests.fakes.clock import LoopClock
from tests.fakes.replica import World, world
from tests.fakes.server import FakeServer, Fault, Object
from tests.fakes.witness import Witness

pytestmark = [
    pytest.mark.looptime(noop_cycles=1),
    pytest.mark.no_cover,  # hundreds of runs over lines that other tests run once
]
"""Nothing comes from outside the loop, so that there is nothing to wait for before its time moves on."""

MORE_REQUESTS_THAN_THE_STORY_HAS = 200
DOWN_SECONDS = 0.5
RULE = {"name": "short", "expression": "duration(grant.spec.duration) <= duration('10s')"}
CREDENTIALS = {"x509TTL": "1h", "jwtTTL": "1h", "maxTaskDuration": "1h"}
"""Long enough to need no renewal, which is another story."""
APPROVALS = {"exception": {"required": 2}}


def asked(server: FakeServer) -> Object:
    """What the pilot's status says of its exception; empty while it says nothing."""
    status = (server.find("pilotidentities", "triage") or {}).get("status", {})
    known: list[Object] = status.get("exceptions", [])
    return known[0] if known else {}


def uid_of(server: FakeServer) -> str:
    """The pilot's UID."""
    found = server.find("pilotidentities", "triage")
    assert found is not None
    uid: str = found["metadata"]["uid"]
    return uid


async def tell(here: World) -> None:
    """Live through the story."""
    server = here.server
    server.apply(manifests.stage(rules=[RULE], approvals=APPROVALS, credentials=CREDENTIALS))
    ends = server.clock().replace(microsecond=0) + dt.timedelta(seconds=30)
    wish = {"rule": "short", "reason": "large", "until": ends.isoformat(), "requestedBy": "tessa"}
    server.apply(manifests.pilot(exceptions=[wish]))
    server.apply(manifests.grant("waits", duration="10m"))
    await here.pass_time(10)
    waits = server.find("taskgrants", "waits")
    assert waits is not None
    assert "credential" not in waits["status"]
    subject = {"kind": "PilotIdentity", "name": "triage", "uid": uid_of(server)}
    for who in ("rita", "tessa", "ralf"):
        said = {"purpose": "Exception", "digest": asked(server)["digest"], "approver": who}
        server.apply(manifests.approval(who, subject=subject, **said))
    await here.pass_time(30)
    server.apply(manifests.grant("late", duration="10m"))
    await here.pass_time(15)


def check(server: FakeServer, witness: Witness) -> None:
    """Assert every promise about a world in which the story is over."""
    witness.verify_log()
    witness.account_for_announcements()
    assert not witness.broken, "; ".join(witness.broken)
    entries = witness.entries()

    def of(kind: EntryType) -> list[tuple[int, RecordedEntry]]:
        return [(index, entry) for index, entry in enumerate(entries) if entry.type == kind]

    ((opened_at, opened),) = of(EntryType.EXCEPTION_OPENED)
    ((ended_at, ended),) = of(EntryType.EXCEPTION_ENDED)
    assert sorted(one["approver"] for one in opened.data["approvals"]) == ["ralf", "rita"]
    assert (ended.data["wasInForce"], ended.data["openedBy"]) == (True, opened_at)
    known = asked(server)
    assert (known["state"], known["auditIndex"]) == ("Ended", opened_at)
    assert len(of(EntryType.APPROVAL_USED)) == len(opened.data["approvals"])
    until = dt.datetime.fromisoformat(known["until"])
    for index, issued in of(EntryType.GRANT_ISSUED):
        assert issued.subject.endswith("/waits")
        assert opened_at < index < ended_at
        assert dt.datetime.fromisoformat(issued.data["expiresAt"]) == until
    phases = {body["metadata"]["name"]: body["status"]["phase"] for body in server.all("taskgrants")}
    assert phases == {"waits": "Expired", "late": "Denied"}


async def run(fault: Fault | None) -> tuple[FakeServer, Witness]:
    """Tell the story with a fault in it, and check it."""
    server = FakeServer(LoopClock())
    witness = Witness(server)
    if fault is not None:
        server.faults.append(fault)
    async with world(server, down_seconds=DOWN_SECONDS) as here:
        await tell(here)
        assert here.restarts <= 1
    check(server, witness)
    return server, witness


async def test_the_story_holds_where_nothing_goes_wrong() -> None:
    """Without faults the grant is issued on the exception, once, and fits into the number of tries below."""
    server, witness = await run(None)
    assert len(server.requests) < MORE_REQUESTS_THAN_THE_STORY_HAS
    assert [entry.type for entry in witness.entries()].count(EntryType.GRANT_ISSUED) == 1


@pytest.mark.parametrize(
    "after_effect, kills",
    [
        pytest.param(False, True, id="the process dies before the effect"),
        pytest.param(True, True, id="the process dies after the effect"),
        pytest.param(True, False, id="the answer is lost"),
    ],
)
async def test_no_request_is_one_at_which_a_fault_lifts_a_rule(*, after_effect: bool, kills: bool) -> None:
    """Opened once and ended once, on the word of the same people, whichever request is hit."""
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
