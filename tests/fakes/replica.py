"""A replica of the operator over a `FakeServer`: the real parts, put together as `wiring` does.

It stands beside `wiring` only because Kopf needs a network to watch; a watch here is the fake server's
word, and Kopf's own part is proved in e2e.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

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
from pilot_identity.control.sweep import Sweeper
from pilot_identity.core.resources.metadata import Key
from pilot_identity.core.resources.parsing import KINDS, read_as
from pilot_identity.ports import PortError
from pilot_identity.wiring import Intake
from tests.fakes.server import CUSTOM, HOME, FakeApi, FakeServer, Object, Place, Process

WORKERS = 4


class Replica:
    """One process and all that it knows."""

    def __init__(self, server: FakeServer) -> None:
        self.process = Process()
        self.server = server
        self.api = FakeApi(server, self.process)
        self.store = Store()
        self.queue = WorkQueue()
        self._task: asyncio.Task[None] | None = None
        self._intake: Intake | None = None

    def start(self) -> asyncio.Task[None]:
        """Start the process."""
        self.server.watchers.append(self._watch)
        self._task = asyncio.create_task(self._run())
        return self._task

    async def end(self) -> None:
        """Take the process away, with everything that it had in memory."""
        self.process.died.set()
        self.server.watchers.remove(self._watch)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        clock = self.server.clock
        signer = await log_signer(self.api, HOME, "0123456789abcdef")
        issuer = SecretIssuer(KeySecrets(self.api, HOME), clock)
        revocations = ConfigMapRevocations(self.api, issuer, clock, signing=self.store.signing)
        log = ConfigMapLog(self.api, HOME, signer, on_read=revocations.remember)
        recorder = EventRecorder(self.api, clock, "replica-0")
        cluster = KubernetesCluster(self.api)
        deadlines = Deadlines(clock, lambda key: reconciler.mark([key]))
        reconciler = Reconciler(
            self.store,
            self.queue,
            deadlines,
            Gatherer(self.store, cluster, issuer, log, revocations),
            Applier(self.store, cluster, issuer, log, recorder, revocations, clock),
            clock,
        )
        sweeper = Sweeper(self.store, cluster, reconciler, log)
        self._intake = Intake(self.store, reconciler, sweeper)
        async with asyncio.TaskGroup() as tasks:
            await log.open()
            tasks.create_task(log.run())
            tasks.create_task(log.pay())
            tasks.create_task(revocations.run())
            tasks.create_task(recorder.run())
            self._intake.leads = True
            await sweeper.sweep_through()
            tasks.create_task(sweeper.run())
            tasks.create_task(deadlines.run())
            for _ in range(WORKERS):
                tasks.create_task(reconciler.work())

    def _watch(self, place: Place, before: Object | None, after: Object | None) -> None:
        """Hear of a change, a moment after it."""
        if place.plural in CUSTOM:
            asyncio.get_running_loop().call_soon(self._hear, place, before, after)

    def _hear(self, place: Place, before: Object | None, after: Object | None) -> None:
        if self._intake is None or self.process.died.is_set():
            return
        if after is not None:
            self._intake.seen(read_as(after, KINDS[CUSTOM[place.plural]]))
        elif before is not None:
            key = Key(CUSTOM[place.plural], place.namespace, place.name)
            self._intake.gone(key, int(before["metadata"]["resourceVersion"]))


class World:
    """A server, and a replica that is started again whenever it ends, as kubelet would."""

    def __init__(self, server: FakeServer, *, down_seconds: float) -> None:
        self.server = server
        self.restarts = 0
        self._down_seconds = down_seconds
        self._supervisor = asyncio.create_task(self._supervise())

    async def pass_time(self, seconds: float) -> None:
        """Let time pass, and tell if the replica ended for a reason of its own."""
        await asyncio.wait({self._supervisor}, timeout=seconds)
        if self._supervisor.done():
            self._supervisor.result()

    async def end(self) -> None:
        """Take everything down."""
        self._supervisor.cancel()
        await asyncio.wait({self._supervisor})

    async def _supervise(self) -> None:
        while True:
            replica = Replica(self.server)
            task = replica.start()
            died = asyncio.create_task(replica.process.died.wait())
            try:
                await asyncio.wait({died, task}, return_when=asyncio.FIRST_COMPLETED)
                if task.done():
                    _expect_port_error(task)
            finally:
                died.cancel()
                await replica.end()
            await asyncio.sleep(self._down_seconds)
            self.restarts += 1


def _expect_port_error(task: asyncio.Task[None]) -> None:
    """A process may end because the server did not answer, never for a reason of its own."""
    with suppress(PortError):
        try:
            task.result()
        except BaseExceptionGroup as group:
            _, rest = group.split(PortError)
            if rest is not None:
                raise rest from None


@asynccontextmanager
async def world(server: FakeServer, *, down_seconds: float = 0.5) -> AsyncIterator[World]:
    """Run a replica on a server while the context is open; one that ends stays down for a while."""
    running = World(server, down_seconds=down_seconds)
    try:
        yield running
    finally:
        await running.end()
