"""Wiring: puts the parts together and runs them. It alone knows everyone.

```
Kopf's watches ─► Intake ─► Store ─► WorkQueue ─► workers: gather → decide → apply ─► API server
                                        ▲                              │
                                    Deadlines ◄────────────────────────┘
```
"""

from __future__ import annotations

import asyncio
import logging
import platform
import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import kopf

from pilot_identity import __version__
from pilot_identity.adapters.audit_archiving import Archiver, Archiving
from pilot_identity.adapters.audit_entries import ConfigMapEntries
from pilot_identity.adapters.audit_log import ConfigMapLog
from pilot_identity.adapters.audit_strays import Strays
from pilot_identity.adapters.issuer import ISSUERS
from pilot_identity.adapters.keys import KeySecrets, log_signer
from pilot_identity.adapters.kubernetes.access import Endpoint
from pilot_identity.adapters.kubernetes.api import Api
from pilot_identity.adapters.kubernetes.cluster import KubernetesCluster
from pilot_identity.adapters.kubernetes.leases import KubernetesLease
from pilot_identity.adapters.kubernetes.login import Login, find_login
from pilot_identity.adapters.kubernetes.recorder import EventRecorder
from pilot_identity.adapters.kubernetes.surroundings import KubernetesSurroundings
from pilot_identity.adapters.revocations import ConfigMapRevocations
from pilot_identity.adapters.witnesses import Address, Witnesses
from pilot_identity.clocks import utc_now
from pilot_identity.control.apply import Applier
from pilot_identity.control.completeness import EVERY_SECONDS, Completeness
from pilot_identity.control.deadlines import Deadlines
from pilot_identity.control.duty import Duty
from pilot_identity.control.elector import Elector, LostLeadershipError
from pilot_identity.control.gather import Gatherer
from pilot_identity.control.queue import WorkQueue
from pilot_identity.control.reconcile import Reconciler
from pilot_identity.control.sightings import Sightings
from pilot_identity.control.store import Store
from pilot_identity.control.sweep import Sweeper
from pilot_identity.control.telling import Teller
from pilot_identity.control.tenure import Tenure
from pilot_identity.control.witnessed import Witnessed
from pilot_identity.core.audit.checkpoint import LogSigner
from pilot_identity.core.audit.entries import Entry, EntryType
from pilot_identity.core.audit.growth import Growth
from pilot_identity.core.resources import Resource
from pilot_identity.core.resources.metadata import Key
from pilot_identity.endpoints import figures, inbound, probes
from pilot_identity.endpoints.activity import Activities
from pilot_identity.handlers import watching

log = logging.getLogger(__name__)

WORKERS = 24
"""Passes side by side; below the client's slots, so that Events and the log always find one."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to run.

    Attributes:
        operator_namespace: where keys, log and Lease are.
        identity: this replica's name, the pod's.
        namespaces: which to watch; none is all.
        http_port: for probes and metrics; 0 lets the system choose.
        issuer: a row of `adapters.issuer.ISSUERS`.
        kubernetes_server: where workloads find the API server, if not where the operator finds it.
        kubernetes_ca: the certificates that it is signed by there, PEM, if not the operator's own.
        inbound: the audit webhook and the activity endpoint, where they are wanted.
        witnesses: who is to cosign the log's heads.
        archiving: where the log's old bundles go, if they leave the cluster.
        reconcile_seconds: between two rounds that hold the log against the cluster.
    """

    operator_namespace: str
    identity: str
    namespaces: tuple[str, ...] = ()
    http_port: int = 8080
    issuer: str = "secret"
    kubernetes_server: str = ""
    kubernetes_ca: bytes = b""
    inbound: inbound.Inbound | None = None
    witnesses: tuple[Address, ...] = ()
    archiving: Archiving | None = None
    reconcile_seconds: float = EVERY_SECONDS


@dataclass(slots=True)
class Intake:
    """Takes what the watches see into the store; before this replica leads, nothing is queued."""

    store: Store
    reconciler: Reconciler
    sweeper: Sweeper
    leads: bool = False
    sightings: Sightings | None = None

    def held(self, key: Key, version: int) -> Resource | None:
        """The object, where just this version is in the store."""
        resource = self.store.get(key)
        return resource if resource is not None and resource.metadata.version == version else None

    def seen(self, resource: Resource) -> None:
        """An object as it is now."""
        self._mark(self.store.put(resource))
        # What the store holds, which may be our own write's answer: so each grant is in memory once.
        held = self.store.get(resource.key)
        if self.sightings is not None and held is not None:
            self.sightings.note(held)

    def gone(self, key: Key, version: int) -> None:
        """An object was deleted."""
        if self.sightings is not None:
            self.sightings.forget(key)
        self._mark(self.store.drop(key, version=version))

    def listed_again(self) -> None:
        """A watch had to list anew."""
        if self.leads:
            self.sweeper.ask()

    def _mark(self, keys: frozenset[Key]) -> None:
        if self.leads:
            self.reconciler.mark(keys)


@dataclass(slots=True)
class Operator:
    """One replica, put together."""

    options: Options
    login: Login
    api: Api
    store: Store = field(default_factory=Store)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    watch: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Run until stopped.

        Raises:
            LostLeadershipError: another replica leads now; this process must end.
        """
        # The log's signer is needed only by the leader, but that it can be had is known at once.
        signer = await log_signer(self.api, self.options.operator_namespace, secrets.token_hex(8))
        issuer = ISSUERS[self.options.issuer](KeySecrets(self.api, self.options.operator_namespace), utc_now)
        revocations = ConfigMapRevocations(
            self.api, issuer, utc_now, self.options.namespaces, signing=self.store.signing
        )
        growth = Growth() if self.options.witnesses else None
        archiving = self.options.archiving
        recorder = EventRecorder(self.api, utc_now, self.options.identity)
        audit_log = ConfigMapLog(
            self.api,
            self.options.operator_namespace,
            signer,
            on_read=revocations.remember,
            growth=growth,
            archive=archiving.archive if archiving is not None else None,
            recorder=recorder,
        )
        strays = Strays(audit_log, self.options.operator_namespace, recorder, utc_now)
        archiver = self._archiver(audit_log, signer)
        witnesses = Witnesses(
            self.api,
            self.options.operator_namespace,
            signer,
            growth or Growth(),
            self.options.witnesses,
            utc_now,
        )
        queue = WorkQueue()
        deadlines = Deadlines(utc_now, lambda key: reconciler.mark([key]))
        cluster = KubernetesCluster(self.api, self.options.namespaces, self._endpoint())
        reconciler = Reconciler(
            self.store,
            queue,
            deadlines,
            Gatherer(self.store, cluster, issuer, audit_log, revocations),
            Applier(self.store, cluster, issuer, audit_log, recorder, revocations, utc_now),
            utc_now,
        )
        sweeper = Sweeper(self.store, cluster, reconciler, audit_log)
        receiver = secrets.token_hex(4)
        sightings = Sightings(self.store, cluster, audit_log, utc_now, receiver, reconciler.mark, recorder)
        intake = Intake(self.store, reconciler, sweeper, sightings=sightings)
        teller = Teller(self.store, cluster, recorder, reconciler.mark)
        witnessed = Witnessed(witnesses, teller, utc_now)
        completeness = Completeness(
            teller,
            KubernetesSurroundings(self.api, self.options.namespaces),
            audit_log,
            ConfigMapEntries(self.api, self.options.operator_namespace),
            utc_now,
            self.options.namespaces,
            self.options.reconcile_seconds,
        )

        duty = Duty(lambda: intake.leads and self.ready.is_set() and not leading.done())
        activities = Activities(self.store, issuer, audit_log, sightings, utc_now, duty.is_working)
        lease = KubernetesLease(self.api, self.options.operator_namespace)
        elector = Elector(lease, self.options.identity, utc_now)
        metrics = figures.collect(
            {
                "pilot_identity_leader": ("1 where this replica leads.", lambda: float(intake.leads)),
                "pilot_identity_objects": ("Objects watched.", lambda: float(len(self.store))),
                "pilot_identity_queue_length": ("Objects that wait for a pass.", lambda: float(len(queue))),
                "pilot_identity_deadlines": ("Objects with a deadline.", lambda: float(len(deadlines))),
                "pilot_identity_log_entries": ("Entries in the audit log.", lambda: float(audit_log.size)),
                "pilot_identity_log_groups_total": (
                    "Groups written to the audit log.",
                    lambda: float(audit_log.groups_written),
                ),
                "pilot_identity_log_groups": (
                    "Groups of the audit log that are stored and not yet deleted.",
                    lambda: float(audit_log.groups_standing),
                ),
                "pilot_identity_log_bundles_total": (
                    "Full bundles of the audit log that were compacted.",
                    lambda: float(audit_log.compaction.bundles_written),
                ),
                "pilot_identity_log_compacted_entries": (
                    "Entries of the audit log that are in bundles.",
                    lambda: float(audit_log.sealed),
                ),
                "pilot_identity_log_halted": (
                    "1 where the stored audit log is not what was committed, so that nothing is issued.",
                    lambda: float(audit_log.blockage.is_there),
                ),
                "pilot_identity_log_strays": (
                    "Groups that are stored and were not found in the audit log.",
                    lambda: float(len(strays)),
                ),
                "pilot_identity_log_strays_removed_total": (
                    "Those of them that were removed, after an entry said so.",
                    lambda: float(strays.removed),
                ),
                "pilot_identity_log_compaction_blocked": (
                    "1 where the audit log cannot be compacted; its own log says why.",
                    lambda: float(audit_log.compaction.blockage.is_there),
                ),
                "pilot_identity_log_archived_entries": (
                    "Entries of the audit log that left the cluster for the archive.",
                    lambda: float(archiver.size if archiver is not None else 0),
                ),
                "pilot_identity_log_archiving_blocked": (
                    "1 where the audit log cannot be archived; its own log says why.",
                    lambda: float(archiver is not None and archiver.blockage.is_there),
                ),
                "pilot_identity_log_cosigned_entries": (
                    "Entries under a head that every witness cosigned.",
                    lambda: float(witnesses.cosigned),
                ),
                "pilot_identity_log_uncosigned_entries": (
                    "Entries beyond it; 0 where no witness is configured.",
                    lambda: float(witnesses.behind),
                ),
                "pilot_identity_witness_failures_total": (
                    "Heads that a witness did not cosign, for whatever reason.",
                    lambda: float(witnesses.failures),
                ),
                "pilot_identity_witness_refusals_total": (
                    "Those of them that it refused: it saw another history, or does not know the log.",
                    lambda: float(witnesses.refusals),
                ),
                "pilot_identity_revoked": (
                    "Certificates and tokens on the revocation lists.",
                    lambda: float(len(revocations)),
                ),
                "pilot_identity_revocation_list_writes_total": (
                    "Revocation lists written.",
                    lambda: float(revocations.writes),
                ),
                "pilot_identity_record_findings": (
                    "Where cluster and audit log disagree, as far as the operator may see.",
                    lambda: completeness.figures.found,
                ),
                "pilot_identity_record_rounds_total": (
                    "Rounds that held the audit log against the cluster.",
                    lambda: float(completeness.figures.rounds),
                ),
                "pilot_identity_record_checked_timestamp_seconds": (
                    "When the last of them ended; 0 before the first.",
                    lambda: completeness.figures.checked_at,
                ),
                "pilot_identity_record_unread": (
                    "Grants and pilots of which not all entries are read, so that nothing is said of them.",
                    lambda: float(completeness.figures.unread),
                ),
                "pilot_identity_requests_seen_total": (
                    "Requests by grants' accounts that the API server told of.",
                    lambda: float(sightings.figures.requests),
                ),
                "pilot_identity_requests_unmatched_total": (
                    "Those of them by accounts of no known grant.",
                    lambda: float(sightings.figures.unmatched),
                ),
                "pilot_identity_requests_impersonated_total": (
                    "Requests that others made as grants' accounts, by impersonation.",
                    lambda: float(sightings.figures.impersonated),
                ),
                "pilot_identity_requests_unknown_token_total": (
                    "Requests by grants' accounts with tokens that are not known to be the grant's.",
                    lambda: float(sightings.figures.unknown_tokens),
                ),
                "pilot_identity_requests_allowed_late_total": (
                    "Requests that were still allowed more than 15 s after a grant's access was withdrawn.",
                    lambda: float(sightings.figures.allowed_late),
                ),
                "pilot_identity_activities_total": (
                    "Activities that agents and tools reported.",
                    lambda: float(sightings.figures.activities),
                ),
                "pilot_identity_uses_waiting": (
                    "Subjects whose use is summed up.",
                    lambda: float(len(sightings)),
                ),
                "pilot_identity_events_waiting": (
                    "Kubernetes Events that wait to be sent.",
                    lambda: float(recorder.waiting),
                ),
                "pilot_identity_events_dropped_total": (
                    "Kubernetes Events that were not sent.",
                    lambda: float(recorder.dropped),
                ),
            }
        )
        tenure = Tenure(
            secrets.token_hex(8),
            self.options.operator_namespace,
            self.options.identity,
            __version__,
            platform.python_version(),
        )
        # Made before Kopf starts: on its way out Kopf cancels every task that is younger than itself.
        leading = asyncio.create_task(
            self._lead(
                elector,
                audit_log,
                sweeper,
                intake,
                recorder,
                revocations,
                sightings,
                witnesses,
                archiver,
                strays,
                completeness,
                witnessed,
                tenure,
            ),
            name="leading",
        )
        leading.add_done_callback(lambda _: self._end())

        async def say_that_it_stops() -> None:
            await audit_log.commit([tenure.stopped("it was asked to", utc_now())])

        async def abdicate() -> None:
            """Stop working and give the Lease back, so that another replica goes on at once."""
            await duty.end(sightings.record, say_that_it_stops, sightings.drain)
            leading.cancel()
            await asyncio.gather(leading, return_exceptions=True)
            await elector.release()

        def is_ready() -> bool:
            return self.ready.is_set() and not audit_log.blockage.is_there

        async with probes.serve(self.options.http_port, is_ready=is_ready, metrics=metrics) as port:
            log.info("serves probes and metrics on port %d", port)
            async with inbound.serve(self.options.inbound, sightings, activities, utc_now, duty.is_working):
                try:
                    await self._watch(intake, abdicate)
                finally:
                    await abdicate()
        if not leading.cancelled() and (error := leading.exception()) is not None:
            raise error

    def _archiver(self, audit_log: ConfigMapLog, signer: LogSigner) -> Archiver | None:
        if self.options.archiving is None:
            return None
        return Archiver(
            self.api,
            self.options.operator_namespace,
            self.options.archiving,
            signer=signer,
            remembered=audit_log.remembered,
            clock=utc_now,
        )

    def _endpoint(self) -> Endpoint:
        """Where a grant's kubeconfig says that the API server is."""
        server = self.options.kubernetes_server or self.login.server
        return Endpoint(server, self.login.ca_file, self.options.kubernetes_ca)

    def _stand_by(self) -> None:
        self.ready.set()
        self.watch.set()

    def _end(self) -> None:
        self.stop.set()
        self.watch.set()

    async def _watch(self, intake: Intake, on_stop: Callable[[], Awaitable[None]]) -> None:
        # A leader sweeps first: two listings of ten thousand objects at once would double the wait for both.
        await self.watch.wait()
        namespaces = self.options.namespaces
        await kopf.operator(
            registry=watching.registry(intake, self._kopf_login, on_stop),
            settings=watching.settings(),
            clusterwide=not namespaces,
            namespaces=namespaces,
            stop_flag=self.stop,
            standalone=True,
        )

    def _kopf_login(self) -> kopf.ConnectionInfo:
        return kopf.ConnectionInfo(
            server=self.login.server,
            ca_path=self.login.ca_file or None,
            token=self.login.token() or None,
            certificate_path=self.login.certificate_file or None,
            private_key_path=self.login.key_file or None,
            expiration=watching.expiration(),
        )

    async def _lead(  # noqa: PLR0913, PLR0917 - the parts that work only while this replica leads
        self,
        elector: Elector,
        audit_log: ConfigMapLog,
        sweeper: Sweeper,
        intake: Intake,
        recorder: EventRecorder,
        revocations: ConfigMapRevocations,
        sightings: Sightings,
        witnesses: Witnesses,
        archiver: Archiver | None,
        strays: Strays,
        completeness: Completeness,
        witnessed: Witnessed,
        tenure: Tenure,
    ) -> None:
        """Wait for the lease, read the log, sweep, then work until the lease is lost."""
        reconciler = sweeper.reconciler
        # A replica that waits for another is as ready as it can be.
        await elector.acquire(on_wait=self._stand_by)
        self.ready.clear()
        with _first_error():
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(elector.keep(), name="lease")
                await audit_log.open()
                tasks.create_task(audit_log.run(), name="audit log")
                tasks.create_task(audit_log.pay(), name="owed entries")
                tasks.create_task(audit_log.compaction.run(), name="compaction")
                tasks.create_task(witnesses.run(), name="witnesses")
                tasks.create_task(revocations.run(), name="revocation lists")
                tasks.create_task(recorder.run(), name="events")
                started = tenure.started(utc_now())
                if audit_log.size == 0:
                    await audit_log.commit([_log_started(self.options), started])
                else:
                    audit_log.owe([started])  # access is cut whether or not the log takes entries
                intake.leads = True
                await sweeper.sweep_through()
                self.ready.set()
                self.watch.set()
                log.info("works on %d objects", len(self.store))
                tasks.create_task(sweeper.run(), name="sweep")
                tasks.create_task(reconciler.deadlines.run(), name="deadlines")
                tasks.create_task(sightings.run(), name="sightings")
                if archiver is not None:  # after the sweep: it keeps what is remembered of objects that exist
                    tasks.create_task(archiver.run(), name="archiving")
                tasks.create_task(strays.run(), name="strays")
                tasks.create_task(completeness.run(), name="completeness")
                tasks.create_task(witnessed.run(), name="how it stands with the witnesses")
                for number in range(WORKERS):
                    tasks.create_task(reconciler.work(), name=f"worker {number}")


@contextmanager
def _first_error() -> Iterator[None]:
    """Raise the first error of a group by itself: what ended the process is one thing."""
    try:
        yield
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from group


def _log_started(options: Options) -> Entry:
    return Entry(
        id="log/started",
        type=EntryType.LOG_STARTED,
        subject=f"Namespace {options.operator_namespace}",
        subject_uid="log",
        time=utc_now(),
        data={"operator": options.identity},
    )


async def run(options: Options) -> None:
    """Run one replica until it is stopped.

    Raises:
        LoginError: there is no API server to talk to.
        LostLeadershipError: another replica leads now.
    """
    login = find_login()
    api = Api(login)
    try:
        await Operator(options, login, api).run()
    finally:
        await api.close()


__all__ = ["LostLeadershipError", "Options", "run"]
