"""Nobody gains by a spec that this version cannot read: what has such a one is stopped, and told so."""

from __future__ import annotations

from typing import Any

import pytest

from pilot_identity.core.audit.entries import EntryType, decode_entry
from tests.fakes import manifests
from tests.fakes.clock import LoopClock
from tests.fakes.replica import World, world
from tests.fakes.server import FakeServer, Object

pytestmark = pytest.mark.looptime

UNREADABLE = [{"rule": "any", "reason": "any", "until": "0000-01-01T00:00:00Z"}]


def conditions(here: World, plural: str, name: str, namespace: str = "team-a") -> dict[str, Object]:
    """An object's conditions by type."""
    found = here.server.find(plural, name, namespace)
    assert found is not None
    return {one["type"]: one for one in found["status"]["conditions"]}


def phase(here: World, name: str = "task-1") -> str:
    """Where a grant is."""
    found = here.server.find("taskgrants", name)
    assert found is not None
    return str(found["status"]["phase"])


def change(here: World, body: Object, **spec: Any) -> None:
    """Apply a manifest with another spec."""
    here.server.apply(body | {"spec": {**body["spec"], **spec}})


async def start(here: World) -> None:
    """A pilot with a running task."""
    here.server.apply(manifests.stage())
    here.server.apply(manifests.pilot())
    await here.pass_time(3)
    here.server.apply(manifests.grant(duration="30m"))
    await here.pass_time(3)
    assert phase(here) == "Active"


@pytest.mark.parametrize("restarts", [False, True])
async def test_a_pilot_that_cannot_be_read_is_suspended(*, restarts: bool) -> None:
    """Its grants end, its SVID goes, it is told why; corrected it works again, and deletion gets through."""
    server = FakeServer(LoopClock())
    async with world(server) as here:
        await start(here)
        change(here, manifests.pilot(), exceptions=UNREADABLE)
        if restarts:
            await here.end()
    async with world(server) as here:
        await here.pass_time(5)
        assert phase(here) == "Revoked"
        assert server.find("secrets", "task-1") is None
        assert server.find("secrets", "pilot-svid-triage") is None
        told = conditions(here, "pilotidentities", "triage")
        assert (told["Ready"]["status"], told["Ready"]["reason"]) == ("False", "SpecUnreadable")
        assert told["Stalled"]["status"] == "True"
        assert "spec.exceptions[0].until" in told["Ready"]["message"]
        kept = server.find("pilotidentities", "triage")
        assert kept is not None
        assert "suspend" not in kept["spec"], "what stands in memory alone was written"
        await here.pass_time(120)
        groups = [body for body in server.all("configmaps") if "entries" in body.get("data", {})]
        entries = [decode_entry(line) for body in groups for line in body["data"]["entries"].split("\n")]
        suspended = [entry for entry in entries if entry.type == EntryType.PILOT_SUSPENDED]
        assert len(suspended) == 1
        assert "until" in suspended[0].data["unreadable"]
        change(here, manifests.pilot())
        await here.pass_time(5)
        assert conditions(here, "pilotidentities", "triage")["Ready"]["status"] == "True"
        change(here, manifests.pilot(), exceptions=UNREADABLE)
        server.ask_to_delete("pilotidentities", "triage")
        await here.pass_time(70)
        assert server.find("pilotidentities", "triage") is None


async def test_a_grant_that_cannot_be_read_is_revoked() -> None:
    """What was issued for it is withdrawn, and it can be deleted."""
    async with world(FakeServer(LoopClock())) as here:
        await start(here)
        change(here, manifests.grant(duration="30m"), duration="for ever")
        await here.pass_time(5)
        assert phase(here) == "Revoked"
        assert here.server.find("secrets", "task-1") is None
        found = here.server.find("taskgrants", "task-1")
        assert found is not None
        assert found["status"]["closure"]["reason"] == "SpecUnreadable"
        assert "spec.duration" in found["status"]["closure"]["message"]
        here.server.ask_to_delete("taskgrants", "task-1")
        await here.pass_time(5)
        assert here.server.find("taskgrants", "task-1") is None


async def test_a_stage_that_cannot_be_read_is_frozen() -> None:
    """Its tasks end, nothing is issued in it, and its condition says which field."""
    async with world(FakeServer(LoopClock())) as here:
        await start(here)
        change(here, manifests.stage(), retention="for ever")
        await here.pass_time(5)
        told = conditions(here, "stagepolicies", "sandbox", "")
        assert told["Ready"]["reason"] == told["Stalled"]["reason"] == "SpecUnreadable"
        assert "spec.retention" in told["Ready"]["message"]
        assert phase(here) == "Revoked"
        here.server.apply(manifests.grant("task-2"))
        await here.pass_time(5)
        assert here.server.find("secrets", "task-2") is None
