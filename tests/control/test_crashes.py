"""A crash at any request changes nothing that was decided (promise 6).

One story is told over and over: a stage, a pilot, a grant that is renewed and expires, one that is
deleted while it is active, and the pilot's own deletion. Each time something goes wrong at another request,
before or after its effect: the process dies and is started anew from what the API server has, or the
answer is lost and the process goes on.
"""

from __future__ import annotations

import datetime as dt

import pytest

from pilot_identity.core.audit.entries import EntryType
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

GRACE_SECONDS = 2.0
"""How long after its end a credential may be there, once the operator is back (promise 2)."""
SHORT, LONG = 0.5, 30.0
"""Seconds for which a process that died stays down; in the long ones the story goes on without it."""
MORE_REQUESTS_THAN_THE_STORY_HAS = 300

FAULTS = [
    pytest.param(False, True, SHORT, id="the process dies before the effect"),
    pytest.param(True, True, SHORT, id="the process dies after the effect"),
    pytest.param(False, True, LONG, id="the process dies before the effect, for long"),
    pytest.param(True, True, LONG, id="the process dies after the effect, for long"),
    pytest.param(False, False, SHORT, id="the request is lost"),
    pytest.param(True, False, SHORT, id="the answer is lost"),
]


async def tell(here: World) -> None:
    """Live through the story."""
    server = here.server
    server.apply(manifests.stage())
    server.apply(manifests.pilot())
    server.apply(manifests.grant("expires", duration="45s"))
    await here.pass_time(50)
    server.apply(manifests.grant("deleted"))
    await here.pass_time(15)
    server.ask_to_delete("taskgrants", "deleted")
    await here.pass_time(5)
    server.ask_to_delete("pilotidentities", "triage")
    await here.pass_time(100)


def check(server: FakeServer, witness: Witness, down_seconds: float) -> None:
    """Assert every promise about a world in which the story is over."""
    witness.verify_log()
    witness.account_for_announcements()
    assert not witness.broken, "; ".join(witness.broken)
    assert [body for body in server.all("secrets") if body["type"] == CREDENTIAL_TYPE] == []
    assert [body["metadata"]["name"] for body in server.all("taskgrants")] in ([], ["expires"])
    assert server.find("pilotidentities", "triage") is None
    late = dt.timedelta(seconds=GRACE_SECONDS + down_seconds)
    entries = witness.entries()
    for grant in witness.grants.values():
        uid, status = grant["metadata"]["uid"], grant.get("status", {})
        announced = [entry for entry in entries if entry.subject_uid == uid and "credential" in entry.data]
        closed = [entry for entry in entries if entry.id == f"{uid}/closed"]
        assert len(closed) <= 1
        assert closed or not announced
        if uid in witness.gone_at and "expiresAt" in status:
            assert witness.gone_at[uid] <= dt.datetime.fromisoformat(status["expiresAt"]) + late
        for entry in announced:
            assert entry.data["credential"]["notAfter"] <= status.get("expiresAt", "9")


async def run(
    fault: Fault | None, *, down_seconds: float = SHORT, stamps_finalizer: bool = False
) -> tuple[FakeServer, Witness]:
    """Tell the story with a fault in it, and check it."""
    server = FakeServer(LoopClock(), stamps_finalizer=stamps_finalizer)
    witness = Witness(server)
    if fault is not None:
        server.faults.append(fault)
    async with world(server, down_seconds=down_seconds) as here:
        await tell(here)
        assert here.restarts <= 1
    check(server, witness, down_seconds)
    return server, witness


@pytest.mark.parametrize("stamps_finalizer", [False, True])
async def test_the_story_holds_where_nothing_goes_wrong(*, stamps_finalizer: bool) -> None:
    """Without faults the grants are issued, renewed and ended, and fit into the number of tries below."""
    server, witness = await run(None, stamps_finalizer=stamps_finalizer)
    requests = [str(request) for request in server.requests]
    assert requests.count("PUT secrets/expires") >= 2
    assert len(requests) < MORE_REQUESTS_THAN_THE_STORY_HAS
    assert witness.grants["expires"]["status"]["phase"] == "Expired"
    told = [entry.type for entry in witness.entries() if entry.subject == "TaskGrant team-a/expires"]
    assert told[0] == EntryType.GRANT_REQUESTED
    after = told[told.index(EntryType.GRANT_ISSUED) + 1 :]
    assert set(after[:-1]) == {EntryType.GRANT_RENEWED}
    assert after[-1] == EntryType.GRANT_CLOSED
    assert witness.entries()[-1].type == EntryType.PILOT_RETIRED


@pytest.mark.parametrize("after_effect, kills, down_seconds", FAULTS)
async def test_no_request_is_one_at_which_a_fault_breaks_a_promise(
    *, after_effect: bool, kills: bool, down_seconds: float
) -> None:
    """One entry a step, one credential an issuance, every end on time: whichever request is hit."""
    failures: list[str] = []
    for number in range(MORE_REQUESTS_THAN_THE_STORY_HAS):
        fault = Fault(number, after_effect=after_effect, kills=kills)
        try:
            await run(fault, down_seconds=down_seconds)
        except Exception as error:  # noqa: BLE001 - all are gathered, so that one run shows every weak place
            failures.append(f"request {number} ({fault.struck}): {error!r}")
        if fault.struck is None:
            break
    else:
        failures.append("the story is longer than the number of tries")
    assert not failures, "\n".join(failures)
