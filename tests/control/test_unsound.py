"""A credential that would not be sound: denied where that can be foretold, told where it cannot."""

from __future__ import annotations

import pytest

from pilot_identity.core.audit.entries import EntryType, decode_entry
from pilot_identity.core.decisions.grants.checks import table
from pilot_identity.core.decisions.unsound import TRIED_AGAIN_AFTER
from tests.fakes import manifests
from tests.fakes.clock import LoopClock
from tests.fakes.replica import World, world
from tests.fakes.server import FakeServer, Object

pytestmark = pytest.mark.looptime

ENTRIES = 4
"""Of one audience: each may have 32 resources of 256 characters, and none alone is too large."""


def wide_pilot() -> Object:
    """A pilot with entries of which each fits into a token, and all together do not."""
    tool = {
        "audience": "https://tickets.example.org",
        "actions": ["read"],
        "resources": [f"tickets/{number:03}/{'x' * 200}" for number in range(32)],
    }
    named = [
        {"name": f"part-{number}", "dataClass": "sandbox-data", "tool": tool} for number in range(ENTRIES)
    ]
    return manifests.pilot(access=named)


async def asked(here: World, entries: int) -> Object:
    """Ask for so many of them; returns the grant after a while."""
    here.server.apply(manifests.stage())
    here.server.apply(wide_pilot())
    await here.pass_time(3)
    access = [{"name": f"part-{number}"} for number in range(entries)]
    here.server.apply(manifests.grant(access=access))
    await here.pass_time(3)
    return found(here)


def found(here: World) -> Object:
    """The grant."""
    grant = here.server.find("taskgrants", "task-1")
    assert grant is not None
    return grant


def ready(grant: Object) -> Object:
    """Its Ready condition."""
    condition: Object = next(one for one in grant["status"]["conditions"] if one["type"] == "Ready")
    return condition


def kinds(here: World) -> list[str]:
    """What the log tells of the grant."""
    groups = [body for body in here.server.all("configmaps") if "entries" in body.get("data", {})]
    entries = [decode_entry(line) for body in groups for line in body["data"]["entries"].split("\n")]
    return [entry.type for entry in entries if entry.subject == "TaskGrant team-a/task-1"]


async def test_what_fits_into_no_token_is_denied() -> None:
    """With the figures, and what to ask for instead; one entry less and it is issued."""
    async with world(FakeServer(LoopClock())) as here:
        grant = await asked(here, ENTRIES)
    assert grant["status"]["phase"] == "Denied"
    assert grant["status"]["decision"]["reason"] == "TokenTooLarge"
    assert "would have" in grant["status"]["decision"]["message"]
    assert "at most 16384; ask for fewer entries" in grant["status"]["decision"]["message"]
    assert kinds(here) == [EntryType.GRANT_REQUESTED, EntryType.GRANT_DENIED]
    async with world(FakeServer(LoopClock())) as here:
        grant = await asked(here, 1)
    assert grant["status"]["phase"] == "Active"


async def test_what_a_check_should_have_seen_is_told_and_tried_at_leisure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is announced or released; the grant says so once, an Event too, and its time still ends."""
    kept = tuple(check for check in table.BEFORE_RULES if check.name != "tokens-fit")
    assert len(kept) == len(table.BEFORE_RULES) - 1
    monkeypatch.setattr(table, "BEFORE_RULES", kept)
    server = FakeServer(LoopClock())
    async with world(server) as here:
        grant = await asked(here, ENTRIES)
        told = ready(grant)
        assert (told["status"], told["reason"]) == ("False", "CredentialUnsound")
        assert "token must not be larger than 16384 bytes [Pilot §jwt token-octets]" in told["message"]
        since = len(server.requests)
        await here.pass_time(2.5 * TRIED_AGAIN_AFTER.total_seconds())
        writes = [one for one in server.requests[since:] if one.method != "GET" and not one.is_dry]
        assert not [str(one) for one in writes if "task-1" in str(one) and "status" in str(one)]
        assert found(here)["status"].get("phase", "Pending") == "Pending"
        events = [one for one in server.all("events") if one["reason"] == "CredentialUnsound"]
        assert len(events) == 1
        server.apply(grant | {"spec": {**grant["spec"], "revoke": {"reason": "enough"}}})
        await here.pass_time(3)
        assert found(here)["status"]["phase"] == "Revoked"
    assert EntryType.GRANT_ISSUED not in kinds(here)
    assert server.find("secrets", "task-1") is None
