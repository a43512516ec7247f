from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from pilot_identity.adapters.audit_log import ConfigMapLog
from pilot_identity.adapters.issuer import SecretIssuer
from pilot_identity.adapters.keys import KeySecrets, log_signer
from pilot_identity.adapters.kubernetes.cluster import KubernetesCluster
from pilot_identity.adapters.kubernetes.recorder import EventRecorder
from pilot_identity.adapters.revocations import ConfigMapRevocations
from pilot_identity.control.apply import Applier
from pilot_identity.control.deadlines import Deadlines
from pilot_identity.control.gather import Gatherer
from pilot_identity.control.queue import WorkQueue
from pilot_identity.control.reconcile import Reconciler
from pilot_identity.control.store import Store
from pilot_identity.control.sweep import RETRY_SECONDS, SWEEP_SECONDS, Sweeper
from pilot_identity.core.resources.metadata import Key
from pilot_identity.core.resources.parsing import parse
from tests.fakes import manifests
from tests.fakes.clock import LoopClock
from tests.fakes.server import HOME, FakeApi, FakeServer, Fault, Place

pytestmark = pytest.mark.looptime

STAGE = Key("StagePolicy", "", "sandbox")
PILOT = Key("PilotIdentity", "team-a", "triage")
GRANT = Key("TaskGrant", "team-a", "task-1")


@dataclass
class Room:
    """A sweeper and what it puts right; nobody takes from the queue, and there is no watch."""

    server: FakeServer
    store: Store
    queue: WorkQueue
    sweeper: Sweeper

    async def dirty(self) -> set[Key]:
        """What is marked; it is not any more."""
        taken: set[Key] = set()
        while len(self.queue):
            key = await self.queue.take()
            self.queue.done(key)
            taken.add(key)
        return taken

    def lists(self) -> int:
        """How often stages were listed."""
        return [str(request) for request in self.server.requests].count("GET stagepolicies")


async def furnish(*, page: int = 500) -> Room:
    """A room whose server has a stage, a pilot and a grant."""
    server = FakeServer(LoopClock(), page=page)
    for body in (manifests.stage(), manifests.pilot(), manifests.grant()):
        server.apply(body)
    api, store, queue = FakeApi(server), Store(), WorkQueue()
    log = ConfigMapLog(api, HOME, await log_signer(api, HOME, "0123456789abcdef"), on_read=lambda _: None)
    cluster, issuer = KubernetesCluster(api), SecretIssuer(KeySecrets(api, HOME), server.clock)
    revocations = ConfigMapRevocations(api, issuer, server.clock)
    reconciler = Reconciler(
        store,
        queue,
        Deadlines(server.clock, lambda _: None),
        Gatherer(store, cluster, issuer, log, revocations),
        Applier(
            store,
            cluster,
            issuer,
            log,
            EventRecorder(api, server.clock, "replica-0"),
            revocations,
            server.clock,
        ),
        server.clock,
    )
    return Room(server, store, queue, Sweeper(store, cluster, reconciler, log))


@asynccontextmanager
async def running(sweeper: Sweeper) -> AsyncIterator[None]:
    """Let it sweep while the context is open."""
    task = asyncio.create_task(sweeper.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_a_sweep_fills_the_store_and_marks_everything() -> None:
    """Page by page; what was marked before is looked at again."""
    room = await furnish(page=1)
    room.server.apply(manifests.grant("task-2"))
    await room.sweeper.sweep()
    assert len(room.store) == 4
    assert await room.dirty() == {STAGE, PILOT, GRANT, GRANT._replace(name="task-2")}
    await room.sweeper.sweep()
    assert len(await room.dirty()) == 4


async def test_what_vanished_while_the_watch_was_away_is_dropped() -> None:
    """And whoever depended on it is looked at."""
    room = await furnish()
    await room.sweeper.sweep()
    await room.dirty()
    room.server.ask_to_delete("pilotidentities", "triage")
    await room.sweeper.sweep()
    assert room.store.get(PILOT) is None
    assert await room.dirty() == {STAGE, PILOT, GRANT}


async def test_what_came_during_the_list_stays() -> None:
    """An object that the watch told after its page was read is not in the list, and is not gone."""
    room = await furnish()
    late = GRANT._replace(name="late")

    async def watch() -> None:
        await asyncio.sleep(0.0055)  # the third list, the grants', is answered and under way
        room.store.put(parse(room.server.apply(manifests.grant("late"))))

    await asyncio.gather(room.sweeper.sweep(), watch())
    assert room.store.get(late) is not None
    assert late in await room.dirty()


async def test_a_newer_version_than_the_listed_stays() -> None:
    """The watch may be ahead of the list."""
    room = await furnish()
    newer = parse(room.server.apply(manifests.grant(completed=True)))
    room.server.objects[Place("taskgrants", "team-a", "task-1")]["metadata"]["resourceVersion"] = "1"
    room.store.put(newer)
    await room.sweeper.sweep()
    assert room.store.get(GRANT) == newer


async def test_a_list_that_fails_is_read_again_from_its_beginning(caplog: pytest.LogCaptureFixture) -> None:
    """Half a list drops nothing; the sweep starts over until it went through."""
    room = await furnish()
    await room.sweeper.sweep()
    began = asyncio.get_running_loop().time()
    next_request = len(room.server.requests)
    room.server.faults = [Fault(next_request + at, after_effect=True, kills=False) for at in (2, 3)]
    with caplog.at_level(logging.WARNING):
        await room.sweeper.sweep_through()
    assert len(room.store) == 3
    assert asyncio.get_running_loop().time() - began >= 2 * RETRY_SECONDS
    assert caplog.text.count("the sweep starts over") == 2


async def test_an_object_that_does_not_parse_stops_no_sweep() -> None:
    """One object that this version does not understand leaves the others in its care."""
    room = await furnish()
    place = ("taskgrants", "team-a", "broken")
    room.server.plant(place, manifests.grant("broken") | {"status": {"phase": "Gone"}})
    room.server.apply(manifests.grant("intact"))
    await room.sweeper.sweep_through()
    assert {PILOT, GRANT, GRANT._replace(name="intact")} <= await room.dirty()
    assert room.store.get(GRANT._replace(name="broken")) is None


async def test_an_object_that_does_not_parse_any_more_is_not_taken_for_gone() -> None:
    """It stays as it was last understood: forgetting an active grant would forget its end."""
    room = await furnish()
    await room.sweeper.sweep()
    known = room.store.get(GRANT)
    kept = room.server.find("taskgrants", "task-1")
    assert kept is not None
    room.server.plant(("taskgrants", "team-a", "task-1"), kept | {"status": {"phase": "Gone"}})
    await room.sweeper.sweep_through()
    assert room.store.get(GRANT) == known


async def test_a_sweep_tells_of_a_spec_that_cannot_be_read_any_more() -> None:
    """The object as it was before does not stay in force: a suspension behind it would go unseen."""
    room = await furnish()
    await room.sweeper.sweep()
    await room.dirty()
    room.server.apply(manifests.pilot(exceptions=[{"until": "never"}]))
    await room.sweeper.sweep_through()
    assert PILOT in await room.dirty()
    found = room.store.pilot(PILOT)
    assert found is not None
    assert found.spec.suspend


async def test_a_sweep_is_made_when_asked_for() -> None:
    """Soon, and once for many that ask."""
    room = await furnish()
    async with running(room.sweeper):
        await asyncio.sleep(1)
        assert room.lists() == 0
        for _ in range(5):
            room.sweeper.ask()
        await asyncio.sleep(1)
        assert room.lists() == 1


async def test_a_sweep_is_made_now_and_then() -> None:
    """A watch that lost something and lists nothing tells nobody."""
    room = await furnish()
    async with running(room.sweeper):
        await asyncio.sleep(3 * SWEEP_SECONDS + 10)
        assert room.lists() == 3
