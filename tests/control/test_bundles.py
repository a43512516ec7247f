"""Nobody takes a bundle away that another pilot of the namespace needs, or is about to need."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pilot_identity.control.apply import Applier
from pilot_identity.control.bundles import Bundles
from pilot_identity.control.gather import Gatherer
from pilot_identity.control.store import Store
from pilot_identity.core.audit.entries import RecordedEntry
from pilot_identity.core.decisions.plan import Owner, Plan, PublishBundle, RemoveBundle
from pilot_identity.core.resources import PilotIdentity
from pilot_identity.ports import Conflict, PortError, Unavailable
from tests.core.builders import NOW, deleting, pilot, ready_pilot

PLACE = ("team-a", "sandbox")
LEAVING = ready_pilot(meta=deleting())
REMOVE = Plan(withdraw=(RemoveBundle(Owner(LEAVING.key, LEAVING.metadata.uid), "sandbox"),))
HELPER = ready_pilot("helper", meta={"resourceVersion": "2"})
PUBLISH = Plan(prepare=(PublishBundle(*PLACE),), status=lambda _: HELPER.status)


@dataclass
class Cluster:
    """Says what reached the API server, which answers when the case lets it."""

    answers: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    done: list[str] = field(default_factory=list)
    fails: bool = False

    async def publish_bundle(self, _: str, __: str, ___: Mapping[str, str]) -> None:
        """Write it."""
        await self._do("publish")

    async def remove_bundle(self, _: str, __: str) -> None:
        """Delete it."""
        await self._do("remove")

    async def write_status(self, _: object, __: object, ___: object) -> PilotIdentity:
        """Write what the helper's pass writes, and nobody else does."""
        return HELPER

    async def _do(self, what: str) -> None:
        self.asked.set()
        await self.answers.wait()
        if self.fails:
            raise Unavailable("no answer")
        self.done.append(what)


def applier(cluster: Cluster, *pilots: PilotIdentity) -> Applier:
    """An applier whose store knows these."""
    store = Store()
    for one in pilots:
        store.put(one)
    none, issuer = cast("Any", SimpleNamespace()), cast("Any", SimpleNamespace(bundle=lambda _: {}))
    log = cast("Any", SimpleNamespace(settle=lambda *_: None))
    return Applier(store, cast("Any", cluster), issuer, log, none, none, lambda: NOW)


@pytest.mark.parametrize("neighbour", [None, pilot("helper"), ready_pilot("helper", stage="pilot")])
async def test_a_bundle_that_nobody_else_needs_goes(neighbour: PilotIdentity | None) -> None:
    """Neither a pilot without an identity nor one of another stage keeps it."""
    cluster = Cluster()
    cluster.answers.set()
    await applier(cluster, LEAVING, *filter(None, (neighbour,))).apply(LEAVING, REMOVE)
    assert cluster.done == ["remove"]


async def test_a_bundle_stays_that_a_neighbour_came_to_name_since_that_was_decided() -> None:
    """The pass is made again, and decides on what is there now."""
    cluster = Cluster()
    cluster.answers.set()
    with pytest.raises(Conflict, match="needed again"):
        await applier(cluster, LEAVING, ready_pilot("helper")).apply(LEAVING, REMOVE)
    assert cluster.done == []


async def test_a_bundle_stays_while_a_neighbours_pass_publishes_it() -> None:
    """Its status says so only at the end of the pass."""
    cluster, helper = Cluster(), pilot("helper")
    both = applier(cluster, LEAVING, helper)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(both.apply(helper, PUBLISH))
        await cluster.asked.wait()
        leaving = tasks.create_task(refused(both))
        await asyncio.sleep(0)
        cluster.answers.set()
    assert leaving.done()
    assert cluster.done == ["publish"]


async def refused(applier: Applier) -> None:
    """Try to take the bundle away."""
    with pytest.raises(Conflict, match="needed again"):
        await applier.apply(LEAVING, REMOVE)


async def test_a_bundle_that_is_just_being_deleted_is_published_after_that() -> None:
    """Not before: the API server might take the two in the other order."""
    cluster, helper = Cluster(), pilot("helper")
    both = applier(cluster, LEAVING, helper)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(both.apply(LEAVING, REMOVE))
        await cluster.asked.wait()
        tasks.create_task(both.apply(helper, PUBLISH))
        await asyncio.sleep(0)
        cluster.answers.set()
    assert cluster.done == ["remove", "publish"]


async def test_a_pass_that_failed_wants_nothing_any_more() -> None:
    """Else a bundle would stay for ever."""
    cluster, helper = Cluster(fails=True), pilot("helper")
    cluster.answers.set()
    both = applier(cluster, LEAVING, helper)
    with pytest.raises(PortError):
        await both.apply(helper, PUBLISH)
    cluster.fails = False
    await both.apply(LEAVING, REMOVE)
    assert cluster.done == ["remove"]


def test_two_who_want_a_bundle_want_it_until_the_last_is_done() -> None:
    """Passes for several pilots run side by side."""
    bundles = Bundles()
    with bundles.wanted(PUBLISH.prepare):
        with bundles.wanted(PUBLISH.prepare):
            pass
        assert bundles.is_wanted(PLACE)
    assert not bundles.is_wanted(PLACE)


class Log:
    """What was announced for the neighbour."""

    def __init__(self, stage: str, issuance: int, *, fails: bool = False) -> None:
        self.stage, self.issuance, self.fails = stage, issuance, fails

    async def announced(self, uid: str, beyond: int) -> tuple[int, RecordedEntry] | None:
        """The last announcement, of anybody but who leaves."""
        if self.fails:
            raise Unavailable("no answer")
        data = {"stage": self.stage, "credential": {"id": "c", "issuance": self.issuance}}
        entry = RecordedEntry("id", "type", "PilotIdentity team-a/helper", uid, NOW, data)
        return (7, entry) if self.issuance > beyond else None


@pytest.mark.parametrize(
    "log, expected",
    [
        pytest.param(Log("sandbox", 1), {"sandbox"}, id="announced before a crash"),
        pytest.param(Log("pilot", 1), {"pilot"}, id="announced in another stage"),
        pytest.param(Log("sandbox", 0), set(), id="announced long ago"),
        pytest.param(Log("", 0, fails=True), {"sandbox"}, id="nobody knows"),
    ],
)
async def test_who_leaves_asks_what_was_announced_for_others(log: Log, expected: set[str]) -> None:
    """After a crash a neighbour may have a credential that its status does not tell of."""
    store = Store()
    store.put(LEAVING)
    store.put(pilot("helper"))
    none = cast("Any", SimpleNamespace())
    gatherer = Gatherer(store, none, none, cast("Any", log), none)
    assert await gatherer._stages_of_neighbours(LEAVING) == expected  # noqa: SLF001 - the rest asks much more
    stays = ready_pilot(status={"reviewDue": (NOW + dt.timedelta(days=1)).isoformat()})
    assert await gatherer._stages_of_neighbours(stays) == set()  # noqa: SLF001
