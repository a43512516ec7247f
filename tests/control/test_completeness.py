"""The operator's own rounds, over a real log that real passes wrote."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from pilot_identity.adapters.audit_entries import ConfigMapEntries
from pilot_identity.adapters.audit_log import ConfigMapLog
from pilot_identity.adapters.keys import log_signer
from pilot_identity.adapters.kubernetes.cluster import KubernetesCluster
from pilot_identity.adapters.kubernetes.recorder import EventRecorder
from pilot_identity.adapters.kubernetes.surroundings import KubernetesSurroundings
from pilot_identity.control import completeness as module
from pilot_identity.control.completeness import EVERY_SECONDS, FIRST_SECONDS, JITTER, Completeness
from pilot_identity.control.store import Store
from pilot_identity.control.telling import Teller
from pilot_identity.core.audit.completeness import Disagreement
from pilot_identity.core.resources import Resource, parse
from pilot_identity.core.resources.metadata import Key
from tests.fakes import access, manifests
from tests.fakes.clock import LoopClock
from tests.fakes.replica import world
from tests.fakes.server import CUSTOM, HOME, FakeApi, FakeServer, Object

pytestmark = pytest.mark.looptime

REACH = {
    "name": "here",
    "dataClass": "sandbox-data",
    "kubernetes": {"roleRef": {"kind": "ClusterRole", "name": "view"}},
}
ASKED = [{"name": "tickets"}, {"name": "here"}]
LABELS = {"app.kubernetes.io/managed-by": "pilot-identity"}
NONE = {str(kind): 0.0 for kind in Disagreement}


def tell(server: FakeServer, *grants: Object) -> None:
    """What people ask for."""
    server.apply(manifests.stage())
    pilot = manifests.pilot()
    pilot["spec"]["access"].append(REACH)
    server.apply(pilot)
    for grant in grants:
        server.apply(grant)


def resources(server: FakeServer) -> Iterable[Resource]:
    """All of our kinds, as they are."""
    for place, body in sorted(server.objects.items()):
        if place.plural in CUSTOM:
            yield parse({**body, "kind": CUSTOM[place.plural]})


@dataclass
class Room:
    """An operator that was started again, and makes its rounds."""

    server: FakeServer
    store: Store
    completeness: Completeness
    marked: list[Key]

    def load(self) -> None:
        """Take in what is there, as the watches would."""
        for one in resources(self.server):
            self.store.put(one)

    async def check(self) -> bool:
        """Make one round over what is there."""
        self.load()
        return await self.completeness.check()

    @property
    def found(self) -> set[tuple[str, str]]:
        """What stands."""
        return {(str(one.kind), str(one.key)) for one in self.completeness.found}

    def told(self, grant: str = "stays") -> Object | None:
        """What a grant is told."""
        body = self.server.find("taskgrants", grant)
        assert body is not None
        conditions = body["status"]["conditions"]
        return next((one for one in conditions if one["type"] == "RecordMismatch"), None)

    def requests(self) -> list[str]:
        """What was asked of the API server since the last time."""
        asked = [str(request) for request in self.server.requests]
        self.server.requests.clear()
        return asked

    def forge(self, grant: str, change: Callable[[Object], None]) -> None:
        """Write a status past every policy."""
        body = self.server.find("taskgrants", grant)
        assert body is not None
        change(body["status"])
        self.server.plant(("taskgrants", manifests.NAMESPACE, grant), body)

    @property
    def bound(self) -> str:
        """The name of the grant's RoleBinding."""
        (binding,) = self.server.all("rolebindings")
        return str(binding["metadata"]["name"])


@asynccontextmanager
async def restarted() -> AsyncIterator[Room]:
    """After a first process did its work, and ended."""
    server = FakeServer(LoopClock())
    access.furnish(server)
    async with world(server) as here:
        tell(
            server,
            manifests.grant("stays", duration="10m", access=ASKED),
            manifests.grant("denied", access=[{"name": "unknown"}]),
            manifests.grant("ended", duration="5s"),
        )
        await here.pass_time(8)
    api, store, marked = FakeApi(server), Store(), list[Key]()
    log = ConfigMapLog(api, HOME, await log_signer(api, HOME, "0123456789abcdef"), on_read=lambda _: None)
    await log.open()
    recorder = EventRecorder(api, server.clock, "replica-1")
    completeness = Completeness(
        Teller(store, KubernetesCluster(api), recorder, marked.extend),
        KubernetesSurroundings(api),
        log,
        ConfigMapEntries(api, HOME),
        server.clock,
    )
    events = asyncio.create_task(recorder.run())
    room = Room(server, store, completeness, marked)
    try:
        yield room
    finally:
        events.cancel()
        await asyncio.wait({events})


async def test_a_round_costs_two_lists_once_all_is_read() -> None:
    """The first reads the log's entries of what is there; the next has nothing new to read."""
    async with restarted() as room:
        room.requests()
        await room.check()
        assert room.found == set()
        assert room.completeness.figures.unread == 0
        assert room.requests() == [
            "GET serviceaccounts",
            "GET rolebindings",
            "GET configmaps/audit-tile-0000000000000000",
            "GET configmaps",
        ]
        await room.check()
        assert room.requests() == ["GET serviceaccounts", "GET rolebindings"]
        figures = room.completeness.figures
        assert figures.rounds == 2
        assert abs(figures.checked_at - room.server.clock().timestamp()) < 1


async def test_a_finding_is_told_once_and_taken_back_once() -> None:
    """On the grant that it concerns, by its condition, an Event and the metrics."""
    async with restarted() as room:
        name = room.bound
        (kept,) = room.server.all("rolebindings")
        room.server.lose("rolebindings", name)
        assert await room.check()
        assert room.found == {("missing", f"RoleBinding team-a/{name}")}
        told = room.told()
        assert told is not None
        assert (told["status"], told["reason"]) == ("True", "NotAsRecorded")
        assert told["message"].startswith(f"missing: RoleBinding team-a/{name} is not there; entry ")
        assert room.completeness.figures.found == {**NONE, "missing": 1.0}
        assert Key("TaskGrant", "team-a", "stays") in room.marked
        await asyncio.sleep(1)
        (event,) = [one for one in room.server.all("events") if one["reason"] == "NotAsRecorded"]
        assert event["regarding"]["name"] == "stays"
        room.requests()
        await room.check()
        assert not [one for one in room.requests() if one.startswith(("PATCH", "POST"))]

        room.server.plant(("rolebindings", "team-a", name), kept)
        await room.check()
        assert room.told() is None
        assert room.completeness.figures.found == NONE
        await asyncio.sleep(1)
        assert "AsRecorded" in {one["reason"] for one in room.server.all("events")}


async def test_a_condition_of_an_earlier_process_is_taken_back() -> None:
    """The status says what was told; no memory is needed."""
    async with restarted() as room:
        stale = {"type": "RecordMismatch", "status": "True", "reason": "NotAsRecorded", "message": "m"}
        room.forge("stays", lambda status: status["conditions"].append(stale))
        await room.check()
        assert room.told() is None


async def test_a_stranger_is_told_on_itself() -> None:
    """It concerns no grant, so that nobody's condition tells it."""
    async with restarted() as room:
        room.server.plant(
            ("serviceaccounts", "team-a", "helper"),
            {"metadata": {"name": "helper", "namespace": "team-a", "labels": LABELS}},
        )
        await room.check()
        assert room.found == {("stranger", "ServiceAccount team-a/helper")}
        await asyncio.sleep(1)
        (event,) = [one for one in room.server.all("events") if one["reason"] == "NotAsRecorded"]
        assert (event["regarding"]["kind"], event["regarding"]["apiVersion"]) == ("ServiceAccount", "v1")


async def test_what_is_over_when_one_looks_again_is_not_told() -> None:
    """An object that was made or ended while it was looked at is no finding."""
    async with restarted() as room:
        name = room.bound
        (kept,) = room.server.all("rolebindings")
        room.server.lose("rolebindings", name)
        check = asyncio.create_task(room.check())
        await asyncio.sleep(1)
        room.server.plant(("rolebindings", "team-a", name), kept)
        await check
        assert room.found == set()
        assert room.told() is None


def shift(status: Object) -> None:
    """Name an entry that is not there."""
    status["decision"]["auditIndex"] = 10**9


def borrow(status: Object) -> None:
    """Name an entry about somebody else."""
    status["decision"]["auditIndex"] = 0


def blame(status: Object) -> None:
    """Say that others decided."""
    status["decision"]["owners"] = ["mallory"]


@pytest.mark.parametrize("change", [shift, borrow, blame])
async def test_a_forged_status_is_told(change: Callable[[Object], None]) -> None:
    """Before it was read for the first time, and after."""
    for is_known in (False, True):
        async with restarted() as room:
            if is_known:
                await room.check()
            room.forge("stays", change)
            await room.check()
            assert room.found == {("contradicted", "TaskGrant team-a/stays")}


async def test_nothing_is_said_before_everything_of_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A round reads so much and no more; the living come first, and over the rounds all come."""
    monkeypatch.setattr(module, "BUNDLES_A_ROUND", 0)
    async with restarted() as room:
        room.forge("ended", blame)
        unread = []
        for _ in range(4):
            await room.check()
            unread.append(room.completeness.figures.unread)
        assert unread == [3, 2, 1, 0]
        assert ("contradicted", "TaskGrant team-a/ended") in room.found


async def test_what_stands_stays_while_it_cannot_be_read_again() -> None:
    """An entry that is not stored any more hides nothing that was found."""
    async with restarted() as room:
        room.server.lose("rolebindings", room.bound)
        await room.check()
        before = room.found
        room.completeness.entries = Empty()
        room.forge("stays", borrow_later)
        await room.check()
        assert room.completeness.figures.unread == 1
        assert room.found == before


def borrow_later(status: Object) -> None:
    """Name another entry."""
    status["decision"]["auditIndex"] += 1


class Empty:
    """Nothing is stored any more."""

    async def read(self, indices: Any) -> dict[int, Any]:
        """Find nothing."""
        del indices
        return {}


async def test_who_cannot_be_told_is_told_again() -> None:
    """The object changed since it was seen; the round comes back soon."""
    async with restarted() as room:
        room.server.lose("rolebindings", room.bound)
        room.load()
        room.forge("stays", lambda _: None)
        assert not await room.completeness.check()
        assert room.told() is None
        assert await room.check()
        assert room.told() is not None


async def test_rounds_come_at_start_and_then_slowly() -> None:
    """What fails is tried again soon, and takes nothing back."""
    async with restarted() as room:
        room.load()
        room.server.refused.add("rolebindings")
        rounds = asyncio.create_task(room.completeness.run())
        await asyncio.sleep(FIRST_SECONDS + 2)
        assert room.completeness.figures.rounds == 0
        room.server.refused.clear()
        await asyncio.sleep(5)
        assert room.completeness.figures.rounds == 1
        await asyncio.sleep(EVERY_SECONDS * (1 - JITTER) - 10)
        assert room.completeness.figures.rounds == 1
        await asyncio.sleep(EVERY_SECONDS * 2 * JITTER + 20)
        assert room.completeness.figures.rounds == 2
        rounds.cancel()
        await asyncio.wait({rounds})
