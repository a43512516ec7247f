from __future__ import annotations

import asyncio
import datetime as dt
import doctest
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pilot_identity.adapters.kubernetes.cluster import KubernetesCluster
from pilot_identity.control import pilot_use
from pilot_identity.control.pilot_use import STEP, step_of
from pilot_identity.ports import Conflict
from tests.fakes import manifests
from tests.fakes.clock import START, LoopClock
from tests.fakes.desk import Desk, desk
from tests.fakes.server import FakeServer
from tests.fakes.used import plant, planted, request

pytestmark = pytest.mark.looptime


@asynccontextmanager
async def opened(
    *grants: dict[str, Any], made_at: str = "2026-06-01T00:00:00Z", **status: Any
) -> AsyncIterator[Desk]:
    """A desk over a server with the pilot `triage`, made then, and these grants of it."""
    clock = LoopClock()
    server = FakeServer(clock)
    pilot = manifests.pilot()
    pilot["metadata"] |= {"uid": "pilot", "creationTimestamp": made_at}
    server.plant(("pilotidentities", manifests.NAMESPACE, "triage"), {**pilot, "status": status})
    plant(server, *grants)
    async with desk(server, clock) as here:
        yield here


def last_used(here: Desk) -> str:
    """What the pilot's status says; empty where it says nothing."""
    found = here.server.find("pilotidentities", "triage")
    assert found is not None
    return str(found.get("status", {}).get("lastUsed", ""))


def writes(here: Desk) -> int:
    """How often the pilot's status was written."""
    asked = [str(each) for each in here.server.requests if each.is_status]
    return asked.count("PATCH pilotidentities/triage/status")


async def test_a_pilot_was_used_when_one_of_its_grants_was() -> None:
    """Rounded down; what else its status says stays."""
    async with opened(planted(), stage="sandbox") as here:
        here.sightings.take([request(here.grant(), 605)])
        await asyncio.sleep(1)
        assert last_used(here) == "2026-06-01T12:10:00Z"
        found = here.server.find("pilotidentities", "triage")
        assert found is not None
        assert found["status"]["stage"] == "sandbox"


async def test_use_all_the_time_is_written_once_in_ten_minutes() -> None:
    """However many grants are busy."""
    async with opened(*(planted(f"task-{number}") for number in range(5))) as here:
        for minute in range(30):
            at = (here.server.clock() - START).total_seconds()
            here.sightings.take(request(here.grant(f"task-{number}"), at) for number in range(5))
            await asyncio.sleep(60 if minute < 29 else 3)
        assert last_used(here) == "2026-06-01T12:20:00Z"
        assert writes(here) == 3


async def test_what_agents_report_is_use() -> None:
    """Of the grant's pilot."""
    async with opened(planted()) as here:
        here.sightings.reported(here.grant(), 1, START + dt.timedelta(minutes=25))
        await asyncio.sleep(1)
        assert last_used(here) == "2026-06-01T12:20:00Z"


async def test_an_earlier_use_that_is_told_late_changes_nothing() -> None:
    """The API server tells in batches, and sends again what nobody took."""
    async with opened(planted(), lastUsed="2026-06-01T12:20:00Z") as here:
        here.sightings.take([request(here.grant(), 605)])
        await asyncio.sleep(1)
        assert (last_used(here), writes(here)) == ("2026-06-01T12:20:00Z", 0)


async def test_a_namesake_that_was_made_later_was_not_used() -> None:
    """What its predecessor's grants did is not its own."""
    async with opened(planted(), made_at="2026-06-01T13:00:00Z") as here:
        here.sightings.take([request(here.grant(), 605)])
        await asyncio.sleep(1)
        assert (last_used(here), writes(here)) == ("", 0)


async def test_a_pilot_that_is_gone_is_passed_over() -> None:
    """Its grants tell what they did nevertheless."""
    async with opened(planted()) as here:
        here.server.lose("pilotidentities", "triage")
        here.sightings.take([request(here.grant(), 1)])
        await asyncio.sleep(1)
        assert here.usage()["requests"] == 1


async def test_what_did_not_go_through_is_written_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without another use to remind of it."""
    write, failed = KubernetesCluster.write_status, asyncio.Event()

    async def late_once(cluster: Any, resource: Any, *statuses: Any) -> Any:
        if resource.key.kind == "PilotIdentity" and not failed.is_set():
            failed.set()
            raise Conflict("changed since")
        return await write(cluster, resource, *statuses)

    monkeypatch.setattr(KubernetesCluster, "write_status", late_once)
    async with opened(planted()) as here:
        here.sightings.take([request(here.grant(), 1)])
        await asyncio.sleep(1)
        assert failed.is_set()
        assert last_used(here) == ""
        await asyncio.sleep(60)
        assert last_used(here) == "2026-06-01T12:00:00Z"


@pytest.mark.parametrize("minutes", [0, 9.99, 10, 1439.99])
def test_a_step_is_the_last_one_before(minutes: float) -> None:
    """Never after the moment, and never longer than a step before it."""
    at = START + dt.timedelta(minutes=minutes)
    assert dt.timedelta() <= at - step_of(at) < STEP
    assert step_of(step_of(at)) == step_of(at)


def test_examples_are_true() -> None:
    """Each example in a docstring does what it says."""
    assert doctest.testmod(pilot_use).failed == 0
