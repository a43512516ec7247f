"""The parts that take use in, over a `FakeServer`: what is left of a replica without its loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

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
from pilot_identity.control.sightings import Sightings
from pilot_identity.control.store import Store
from pilot_identity.core.audit.entries import EntryType, RecordedEntry, decode_entry
from pilot_identity.core.resources import TaskGrant
from pilot_identity.core.resources.metadata import Key
from pilot_identity.core.resources.parsing import parse
from pilot_identity.ports import Clock
from tests.fakes import manifests
from tests.fakes.server import CUSTOM, HOME, FakeApi, FakeServer, Object, Place

LONG_LIVED = {"x509TTL": "1h", "jwtTTL": "1h", "maxTaskDuration": "1h"}
"""Credentials that need no renewal during a test."""


@dataclass(slots=True)
class Desk:
    """What takes use in, and what it makes of it."""

    server: FakeServer
    store: Store
    issuer: SecretIssuer
    log: ConfigMapLog
    sightings: Sightings
    marked: list[Key] = field(default_factory=list)

    def grant(self, name: str = "task-1") -> TaskGrant:
        """A grant as the store has it."""
        grant = self.store.grant(Key("TaskGrant", manifests.NAMESPACE, name))
        assert grant is not None
        return grant

    def secret(self, name: str = "task-1") -> Object:
        """A grant's Secret."""
        found = self.server.find("secrets", name)
        assert found is not None
        return found

    def usage(self, name: str = "task-1") -> Object:
        """What a grant's status says of its use."""
        found = self.server.find("taskgrants", name)
        assert found is not None
        usage: Object = found["status"].get("usage", {})
        return usage

    def entries(self, kind: EntryType) -> list[RecordedEntry]:
        """The log's entries of one type."""
        groups = [body for body in self.server.all("configmaps") if "entries" in body.get("data", {})]
        lines = [line for body in groups for line in body["data"]["entries"].split("\n")]
        return [entry for entry in map(decode_entry, lines) if entry.type == kind]

    async def load(self) -> None:
        """Take in all that is there, as a sweep does."""
        for place, body in sorted(self.server.objects.items()):
            self.hear(place, None, body)
        for name in self.store.stages:
            await self.issuer.facts(name)

    def hear(self, place: Place, before: Object | None, after: Object | None) -> None:
        """Hear of a change, as a watch does."""
        if place.plural not in CUSTOM:
            return
        if after is not None:
            resource = parse(after)
            self.sightings.note(resource)
            self.store.put(resource)
        elif before is not None:
            key = Key(CUSTOM[place.plural], place.namespace, place.name)
            self.sightings.forget(key)
            self.store.drop(key, version=int(before["metadata"]["resourceVersion"]))


async def issue(server: FakeServer, *grants: Object) -> None:
    """Issue grants on a server, with the real loop; nothing of it is left running."""
    clock, api, store = server.clock, FakeApi(server), Store()
    issuer = SecretIssuer(KeySecrets(api, HOME), clock)
    log = ConfigMapLog(api, HOME, await log_signer(api, HOME, "0123456789abcdef"), on_read=lambda _: None)
    cluster = KubernetesCluster(api)
    revocations = ConfigMapRevocations(api, issuer, clock, signing=store.signing)
    recorder = EventRecorder(api, clock, "replica-0")
    deadlines = Deadlines(clock, lambda key: reconciler.mark([key]))
    reconciler = Reconciler(
        store,
        WorkQueue(),
        deadlines,
        Gatherer(store, cluster, issuer, log, revocations),
        Applier(store, cluster, issuer, log, recorder, revocations, clock),
        clock,
    )

    def hear(place: Place, _: Object | None, after: Object | None) -> None:
        if place.plural in CUSTOM and after is not None:
            reconciler.mark(store.put(parse(after)))

    server.watchers.append(hear)
    tasks = [asyncio.create_task(log.run()), *(asyncio.create_task(reconciler.work()) for _ in range(4))]
    try:
        server.apply(manifests.stage(credentials=LONG_LIVED))
        server.apply(manifests.pilot(delegation={"to": ["triage"], "maxDepth": 3}))
        async with asyncio.timeout(20):
            for body in grants:
                server.apply(body)
                while not _is_active(server, body["metadata"]["name"]):
                    deadlines.pop_due()
                    await asyncio.sleep(0.01)
    finally:
        server.watchers.remove(hear)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def _is_active(server: FakeServer, name: str) -> bool:
    found = server.find("taskgrants", name)
    return found is not None and found.get("status", {}).get("phase") == "Active"


@asynccontextmanager
async def desk(server: FakeServer, clock: Clock, *, receiver: str = "r1") -> AsyncIterator[Desk]:
    """Take use in while the context is open."""
    api, store = FakeApi(server), Store()
    log = ConfigMapLog(api, HOME, await log_signer(api, HOME, "0123456789abcdef"), on_read=lambda _: None)
    await log.open()
    marked: list[Key] = []
    recorder = EventRecorder(api, clock, "replica-1")
    sightings = Sightings(store, KubernetesCluster(api), log, clock, receiver, marked.extend, recorder)
    made = Desk(server, store, SecretIssuer(KeySecrets(api, HOME), clock), log, sightings, marked)
    await made.load()
    server.watchers.append(made.hear)
    tasks = [asyncio.create_task(part.run()) for part in (log, sightings, recorder)]
    try:
        yield made
    finally:
        server.watchers.remove(made.hear)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
