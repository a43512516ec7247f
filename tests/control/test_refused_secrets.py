"""A Secret that the API server refuses costs the log two entries, not a flood, and comes once it may."""

from __future__ import annotations

from collections import Counter

import pytest

from pilot_identity.core.audit.entries import EntryType, decode_entry
from pilot_identity.core.decisions.hindrance import MOST_ABANDONED
from pilot_identity.ports import Refused
from tests.fakes import manifests
from tests.fakes.clock import LoopClock
from tests.fakes.replica import World, world
from tests.fakes.server import HOME, FakeServer, Object, Request

pytestmark = pytest.mark.looptime

WORD = "exceeded quota: q, requested: count/secrets=1"


class QuotaServer(FakeServer):
    """Creates no Secret outside the operator's own namespace while the quota is full."""

    is_full = False
    tells_dry_runs = True

    def answer(self, request: Request) -> Object:
        """Refuse as the quota's admission does."""
        is_new = request.method == "POST" and request.place.plural == "secrets"
        is_told = self.tells_dry_runs or not request.is_dry
        if is_new and is_told and self.is_full and request.place.namespace != HOME:
            raise Refused(f"{request}: 403: {WORD}")
        return super().answer(request)


def counted(server: FakeServer, subject: str) -> Counter[str]:
    """How many entries of each type tell of an object."""
    groups = [body for body in server.all("configmaps") if "entries" in body.get("data", {})]
    entries = [decode_entry(line) for body in groups for line in body["data"]["entries"].split("\n")]
    return Counter(entry.type for entry in entries if entry.subject == subject)


def ready(here: World, plural: str, name: str) -> Object:
    """An object's Ready condition."""
    found = here.server.find(plural, name)
    assert found is not None
    condition: Object = next(one for one in found["status"]["conditions"] if one["type"] == "Ready")
    return condition


async def start(here: World) -> None:
    """A pilot that is ready."""
    here.server.apply(manifests.stage())
    here.server.apply(manifests.pilot())
    await here.pass_time(3)


async def test_a_grant_waits_for_its_secret_and_says_so_once() -> None:
    """Three entries in an hour, the API server's word in a condition, one Event; then issued."""
    server = QuotaServer(LoopClock())
    async with world(server) as here:
        await start(here)
        server.is_full = True
        server.apply(manifests.grant())
        await here.pass_time(15)
        told = ready(here, "taskgrants", "task-1")
        assert (told["status"], told["reason"]) == ("False", "SecretRefused")
        assert WORD in told["message"]
        since = len(server.requests)
        await here.pass_time(3600)
        tries = [one for one in server.requests[since:] if one.place.plural == "secrets" and one.is_dry]
        tries = [one for one in tries if one.method == "POST"]
        assert 12 <= len(tries) <= 30
        assert counted(server, "TaskGrant team-a/task-1") == {
            EntryType.GRANT_REQUESTED: 1,
            EntryType.GRANT_ISSUED: 1,
            EntryType.CREDENTIAL_ABANDONED: 1,
        }
        assert len([one for one in server.all("events") if one["reason"] == "SecretRefused"]) == 1
        server.is_full = False
        await here.pass_time(310)
        assert counted(server, "TaskGrant team-a/task-1")[EntryType.GRANT_ISSUED] == 2


async def test_a_grant_that_waits_for_its_secret_can_be_ended() -> None:
    """By its own word, at once."""
    server = QuotaServer(LoopClock())
    async with world(server) as here:
        await start(here)
        server.is_full = True
        server.apply(manifests.grant())
        await here.pass_time(15)
        server.apply(manifests.grant(completed=True))
        await here.pass_time(3)
        found = server.find("taskgrants", "task-1")
        assert found is not None
        assert found["status"]["phase"] == "Completed"


async def test_a_grant_is_denied_where_a_dry_run_says_yes_and_the_write_no() -> None:
    """The log is owed an end: so many tries are bounded."""
    server = QuotaServer(LoopClock())
    server.tells_dry_runs = False
    async with world(server) as here:
        await start(here)
        server.is_full = True
        server.apply(manifests.grant())
        await here.pass_time(600)
        found = server.find("taskgrants", "task-1")
        assert found is not None
        assert found["status"]["phase"] == "Denied"
        assert found["status"]["decision"]["reason"] == "SecretRefused"
    assert counted(server, "TaskGrant team-a/task-1") == {
        EntryType.GRANT_REQUESTED: 1,
        EntryType.GRANT_ISSUED: MOST_ABANDONED,
        EntryType.CREDENTIAL_ABANDONED: MOST_ABANDONED,
        EntryType.GRANT_DENIED: 1,
    }


@pytest.mark.parametrize("tells_dry_runs", [True, False])
async def test_a_renewal_whose_secret_was_deleted_and_is_refused_is_put_off(*, tells_dry_runs: bool) -> None:
    """The task ends on time, with few entries more."""
    server = QuotaServer(LoopClock())
    server.tells_dry_runs = tells_dry_runs
    async with world(server) as here:
        await start(here)
        server.apply(manifests.grant(duration="10m"))
        await here.pass_time(3)
        server.is_full = True
        server.lose("secrets", "task-1")
        await here.pass_time(300)
        told = ready(here, "taskgrants", "task-1")
        assert (told["status"], told["reason"]) == ("False", "SecretRefused")
        await here.pass_time(310)
        found = server.find("taskgrants", "task-1")
        assert found is not None
        assert found["status"]["phase"] == "Expired"
    abandoned = counted(server, "TaskGrant team-a/task-1")[EntryType.CREDENTIAL_ABANDONED]
    assert abandoned == (1 if tells_dry_runs else MOST_ABANDONED)


async def test_a_pilot_waits_for_its_secret_and_says_so_once() -> None:
    """As a grant does; it gets its identity once it may, within the longest time between two questions."""
    server = QuotaServer(LoopClock())
    server.is_full = True
    async with world(server) as here:
        await start(here)
        await here.pass_time(3600)
        told = ready(here, "pilotidentities", "triage")
        assert (told["status"], told["reason"]) == ("False", "SecretRefused")
        assert WORD in told["message"]
        assert counted(server, "PilotIdentity team-a/triage") == {
            EntryType.PILOT_DEFINED: 1,
            EntryType.PILOT_REGISTERED: 1,
            EntryType.CREDENTIAL_ABANDONED: 1,
        }
        assert len([one for one in server.all("events") if one["reason"] == "SecretRefused"]) == 1
        server.is_full = False
        await here.pass_time(310)
        assert ready(here, "pilotidentities", "triage")["status"] == "True"


async def test_where_nothing_is_refused_nothing_more_is_asked() -> None:
    """An issue costs no dry run of a Secret's creation."""
    server = QuotaServer(LoopClock())
    async with world(server) as here:
        await start(here)
        server.apply(manifests.grant())
        await here.pass_time(3)
    asked = [one for one in server.requests if one.is_dry and one.method == "POST"]
    assert [str(one) for one in asked if one.place.plural == "secrets"] == []
