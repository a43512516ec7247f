"""The audit log's figures: 64 writers at once, compaction behind them, then verifying and starting anew.

The writer is the operator's own log with the operator's own account under the chart's admission policies;
only what would decide on entries is left out, since the log is what is measured.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from e2e.bench.client import admin
from e2e.bench.measure import milliseconds, peak_rss_mb
from e2e.bench.results import Results, many, say
from e2e.controlplane.cluster import Cluster
from e2e.installation import NAMESPACE, ROOT, Installation
from pilot_identity.adapters.audit_log import ConfigMapLog
from pilot_identity.adapters.keys import log_signer
from pilot_identity.adapters.kubernetes import paths
from pilot_identity.adapters.kubernetes.api import Api
from pilot_identity.adapters.kubernetes.login import Login
from pilot_identity.clocks import utc_now
from pilot_identity.core.audit.chain import GRACE_SECONDS
from pilot_identity.core.audit.checkpoint import LogSigner
from pilot_identity.core.audit.entries import Entry, EntryType, encode_entry

CONCURRENCY = 64
SIZE = 100_000
STEADY_S = GRACE_SECONDS + 5.0
"""From then on compaction goes on behind the writers."""
CHECKS = 14
COMPACTED_SECONDS = 300.0
PROTOBUF = "application/vnd.kubernetes.protobuf"
"""What etcd stores is this encoding, so its length is what an object takes there."""


async def measure(cluster: Cluster, installation: Installation, results: Results) -> None:
    """Measure all of it, on a log that an operator began; no operator runs meanwhile."""
    empty = await asyncio.to_thread(_ready_after, installation)
    peak = round(peak_rss_mb(installation.operator.pid), 1)
    await asyncio.to_thread(installation.stop)
    figures: dict[str, Any] = {"operator_ready_s": empty, "operator_peak_mb": peak}
    results.figures["audit"] = figures
    api = Api(_login(cluster, installation))
    try:
        signer = await log_signer(api, NAMESPACE, "bench")
        log = ConfigMapLog(api, NAMESPACE, signer, on_read=lambda _: None)
        await log.open()
        # Tasks in their own right: `run` and `compact` never end.
        tasks = [asyncio.create_task(log.run()), asyncio.create_task(log.compaction.run())]
        try:
            await _load(log, signer, figures)
            await _until_compacted(log, figures)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        figures["etcd_bytes_per_entry_byte"] = await _size_in_etcd(cluster, log, signer)
        figures["start_with_100000_s"] = await _start(api, signer)
    finally:
        await api.close()
    figures["verify_100000_s"] = await asyncio.to_thread(_verify, cluster)
    say("the operator starts with this log")
    figures["operator_ready_with_100000_s"] = await asyncio.to_thread(_ready_after, installation)
    figures["operator_peak_mb_with_100000"] = round(peak_rss_mb(installation.operator.pid), 1)


def entry(number: int) -> Entry:
    """An entry as large as that of a grant's issue, and as little like its neighbours."""
    seed = hashlib.sha256(str(number).encode()).hexdigest()
    uid = f"{seed[:8]}-{seed[8:12]}-4{seed[13:16]}-8{seed[17:20]}-{seed[20:32]}"
    checks = [
        {"name": f"check-{at}", "passed": True, "message": "what was looked at is as it must be"}
        for at in range(CHECKS)
    ]
    data = {
        "requestedBy": f"person-{number % 97}@example.org",
        "task": {"id": f"TASK-{number}", "description": "Answers what came in over night"},
        "stage": "sandbox",
        "decision": {"allowed": True, "checks": checks, "policyDigest": f"sha256:{seed}"},
        "revokes": {"serial": seed[:40], "jti": seed[24:]},
    }
    subject = f"TaskGrant bench/load-{number}"
    return Entry(f"{uid}/issued/1", EntryType.GRANT_ISSUED, subject, uid, utc_now(), data)


@dataclass(frozen=True)
class Count:
    """What was written until a moment."""

    at: float
    entries: int
    groups: int
    bundles: int
    deleted: int

    @classmethod
    def now(cls, log: ConfigMapLog) -> Count:
        """As it is."""
        groups, standing = log.groups_written, log.groups_standing
        return cls(time.perf_counter(), log.size, groups, log.compaction.bundles_written, groups - standing)


async def _load(log: ConfigMapLog, signer: LogSigner, figures: dict[str, Any]) -> None:
    count = SIZE - log.size
    say(f"audit log: {count} entries, {CONCURRENCY} writers")
    waited: list[float] = []

    def job(made: Entry) -> Callable[[], Awaitable[None]]:
        async def commit() -> None:
            started = time.perf_counter()
            await log.commit([made])
            waited.append(time.perf_counter() - started)

        return commit

    entries = [entry(number) for number in range(log.size, SIZE)]
    cpu, counts = time.process_time(), list[Count]()
    sampler = asyncio.get_running_loop().call_later(STEADY_S, lambda: counts.append(Count.now(log)))
    seconds = await many((job(one) for one in entries), CONCURRENCY)
    sampler.cancel()
    if not counts:
        raise RuntimeError(f"{count} entries took only {seconds:.0f} s: compaction was not measured")
    steady, end = counts[0], Count.now(log)
    say(f"  {seconds:.1f} s; in the last {end.at - steady.at:.1f} s compaction went on behind them")
    written = end.groups + end.bundles - steady.groups - steady.bundles
    figures["entries_per_s"] = round(count / seconds, 1)
    figures["entries_per_s_with_compaction"] = round((end.entries - steady.entries) / (end.at - steady.at), 1)
    figures["entries_per_cpu_s"] = round(count / (time.process_time() - cpu), 1)
    figures["configmap_writes_per_s"] = round(written / (end.at - steady.at), 1)
    figures["configmap_writes_per_entry"] = round(written / (end.entries - steady.entries), 4)
    figures["configmap_deletes_per_s"] = round((end.deleted - steady.deleted) / (end.at - steady.at), 1)
    figures["bundles_per_s"] = round((end.bundles - steady.bundles) / (end.at - steady.at), 1)
    figures["commit_ms"] = milliseconds(waited)
    figures["entry_bytes"] = round(sum(len(encode_entry(one, signer.name)) for one in entries[:1000]) / 1000)


async def _until_compacted(log: ConfigMapLog, figures: dict[str, Any]) -> None:
    """Wait until nothing that is old enough is left; half a minute of that is until it is."""
    say("waits until it is compacted")
    figures["groups_standing"] = log.groups_standing
    started = time.perf_counter()
    async with asyncio.timeout(COMPACTED_SECONDS):
        while log.sealed + 256 <= log.size or log.groups_standing > log.size - log.sealed + 1:  # noqa: ASYNC110 - between two looks
            await asyncio.sleep(0.5)
    figures["compacted_after_s"] = round(time.perf_counter() - started, 1)
    say(f"  {log.sealed} of {log.size} entries are, after {figures['compacted_after_s']:.0f} s")


async def _size_in_etcd(cluster: Cluster, log: ConfigMapLog, signer: LogSigner) -> float:
    """The bundles' bytes in etcd by those of the entries that are in them."""
    stored = 0
    async with admin(cluster) as client:
        token = ""
        while True:
            query = f"labelSelector=pilotidentity.dev/audit%3Dtile&limit=50&continue={token}"
            path = f"{paths.core(NAMESPACE, 'configmaps')}?{query}"
            page = await client.get(path)
            stored += len(await client.raw(path, PROTOBUF))
            token = page["metadata"].get("continue", "")
            if not token:
                break
    # Those of the first entries, which the operator itself wrote, are left out; they are few.
    own = sum(len(encode_entry(entry(number), signer.name)) for number in range(0, log.sealed, 100)) * 100
    return round(stored / own, 3)


async def _start(api: Api, signer: LogSigner) -> float:
    """From nothing to a log that takes entries, with the subjects of a cluster that has moved on."""
    fresh = ConfigMapLog(api, NAMESPACE, signer, on_read=lambda _: None)
    started = time.perf_counter()
    await fresh.open()
    fresh.retain(frozenset(entry(number).subject_uid for number in range(1000)))
    seconds = round(time.perf_counter() - started, 2)
    say(f"a log of {fresh.size} entries was ready after {seconds} s")
    return seconds


def _verify(cluster: Cluster) -> float:
    """`kubectl pilot audit verify`, the whole process."""
    say("kubectl pilot audit verify")
    with tempfile.TemporaryDirectory() as state:
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "pilot_identity.cli", "audit", "verify", "-n", NAMESPACE],
            env=cluster.environment(cluster.kubeconfig)
            | {"PYTHONPATH": f"{ROOT / 'operator'}{os.pathsep}{ROOT}", "XDG_STATE_HOME": state},
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"the log does not verify: {done.stdout}{done.stderr}")
    return round(seconds, 2)


def _ready_after(installation: Installation) -> float:
    """How long the operator's process takes until it works."""
    with suppress(IndexError):
        installation.operator.stop()
    started = time.perf_counter()
    installation.start_operator()
    return round(time.perf_counter() - started, 2)


def _login(cluster: Cluster, installation: Installation) -> Login:
    """The operator's own account."""
    account = installation.account
    return Login(cluster.server, str(account / "ca.crt"), token_file=str(account / "token"))
