"""The run: raw rate, latency alone, load, end, ten thousand active grants, idle, restart."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from e2e.bench import access
from e2e.bench.approvals import approvals
from e2e.bench.client import GRANTS, Arrivals, Client, admin
from e2e.bench.measure import Request, cpu_seconds, milliseconds, requests, rss_mb, writes
from e2e.bench.renewals import renewals
from e2e.bench.results import Results, many, say, settle
from e2e.controlplane.cluster import Cluster
from e2e.installation import NAMESPACE, Installation

RAW_WRITES = 2000
RAW_CONCURRENCY = 32
ALONE = 200
LOAD = 1000
LOAD_CONCURRENCY = 16
FILL_CONCURRENCY = 32
GRANTS_EACH = 1000
IDLE_SECONDS = 60.0
OPERATOR = f"system:serviceaccount:{NAMESPACE}:pilot-identity"


async def run(
    cluster: Cluster, installation: Installation, *, active: int, with_renewals: bool = True
) -> Results:
    """Run the whole benchmark; `active` is how many grants are kept active for the big figures."""
    results = Results()
    async with admin(cluster) as client:
        await _raw(cluster, client, results)
        for number in range(max(1, active // GRANTS_EACH) + 1):
            cluster.apply(_pilot(number))
        cluster.kubectl("-n", "bench", "wait", "pilot", "--all", "--for=condition=Ready", "--timeout=60s")
        arrivals = Arrivals()
        async with _following(client, arrivals, "bench"):
            await _alone(client, arrivals, results)
            await approvals(cluster, client, arrivals, results, _grant("", 0, "15m"))
            async with _access(cluster, client, installation) as bench:
                await bench.revocations(results, "alone")
                await bench.writes(results)
                await bench.suspension(results)
            await _load_and_end(cluster, client, arrivals, installation, results)
            async with _access(cluster, client, installation) as bench:
                flood = asyncio.create_task(_fill(client, arrivals, results, active))
                await bench.revocations_beside(flood, results)
            await settle(installation)
            results.figures["rss_mb_at_10000"] = round(rss_mb(installation.operator.pid), 1)
            await _idle(cluster, results)
            await _restart(client, arrivals, installation, results)
            async with _access(cluster, client, installation) as bench:
                await bench.revocations(results, "at_10000")
            if with_renewals:
                await renewals(client, arrivals, results, {f"active-{number}" for number in range(active)})
    return results


@asynccontextmanager
async def _access(
    cluster: Cluster, client: Client, installation: Installation
) -> AsyncIterator[access.Bench]:
    arrivals = Arrivals()
    bench = access.Bench(cluster, client, arrivals, installation)
    await bench.prepare()
    async with _following(client, arrivals, access.NAMESPACE):
        yield bench


@asynccontextmanager
async def _following(client: Client, arrivals: Arrivals, namespace: str) -> AsyncIterator[None]:
    task = asyncio.create_task(arrivals.follow(client, namespace))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _raw(cluster: Cluster, client: Client, results: Results) -> None:
    """How many objects of a Secret's size this machine can write at all."""
    say(f"raw writes: {RAW_WRITES} ConfigMaps, {RAW_CONCURRENCY} in flight")
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench-raw"}})
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench"}})
    path = "/api/v1/namespaces/bench-raw/configmaps"

    def job(number: int) -> Callable[[], Awaitable[None]]:
        body = {"metadata": {"name": f"raw-{number}"}, "data": {"filler": "x" * 4096}}
        return lambda: client.create(path, body)

    seconds = await many((job(number) for number in range(RAW_WRITES)), RAW_CONCURRENCY)
    results.figures["raw_writes_per_s"] = round(RAW_WRITES / seconds, 1)


def _pilot(number: int) -> dict[str, Any]:
    return {
        "apiVersion": "pilotidentity.dev/v1alpha1",
        "kind": "PilotIdentity",
        "metadata": {"name": f"pilot-{number}", "namespace": "bench"},
        "spec": {
            "workflow": "bench",
            "purpose": "Is measured",
            "owners": {"business": "bea@example.org", "technical": "ted@example.org"},
            "stage": "sandbox",
            "access": [
                {
                    "name": "tickets",
                    "dataClass": "synthetic",
                    "tool": {
                        "audience": "https://tickets.example",
                        "actions": ["read", "comment"],
                        "resources": ["projects/*/issues/**"],
                    },
                }
            ],
        },
    }


def _grant(name: str, pilot: int, duration: str) -> dict[str, Any]:
    return {
        "apiVersion": "pilotidentity.dev/v1alpha1",
        "kind": "TaskGrant",
        "metadata": {"name": name, "namespace": "bench"},
        "spec": {
            "pilot": f"pilot-{pilot}",
            "task": {"id": name},
            "access": [{"name": "tickets", "actions": ["read"]}],
            "duration": duration,
        },
    }


async def _alone(client: Client, arrivals: Arrivals, results: Results) -> None:
    """From the create call to the Secret, one grant at a time."""
    say(f"latency alone: {ALONE} grants, one after another")
    latencies = []
    for number in range(ALONE):
        name = f"alone-{number}"
        started = time.perf_counter()
        await client.create(GRANTS.format(namespace="bench"), _grant(name, 0, "15m"))
        await arrivals.until({name})
        latencies.append(arrivals.seen[name] - started)
        # Alone: the next one starts when this one's status and Event are written too.
        await _until_active(client, name)
    results.figures["create_to_secret_ms"] = {"alone": milliseconds(latencies)}


async def _until_active(client: Client, name: str) -> None:
    path = f"{GRANTS.format(namespace='bench')}/{name}"
    while True:
        grant = await client.get(path)
        if grant.get("status", {}).get("phase") == "Active":
            return
        await asyncio.sleep(0.01)  # between two looks


async def _load_and_end(
    cluster: Cluster, client: Client, arrivals: Arrivals, installation: Installation, results: Results
) -> None:
    """A thousand grants at once, until the last Secret is there; then until the last is gone."""
    say(f"load: {LOAD} grants, {LOAD_CONCURRENCY} in flight, each for 60 s")
    names = {f"load-{number}" for number in range(LOAD)}
    started: dict[str, float] = {}

    def job(name: str) -> Callable[[], Awaitable[None]]:
        async def create() -> None:
            started[name] = time.perf_counter()
            await client.create(GRANTS.format(namespace="bench"), _grant(name, 0, "60s"))

        return create

    pid = installation.operator.pid
    before, cpu = requests(cluster.metrics()), cpu_seconds(pid)
    await many((job(name) for name in sorted(names)), LOAD_CONCURRENCY)
    await arrivals.until(names)
    last = max(arrivals.seen[name] for name in names)
    await settle(installation)
    issued, cpu_issued = requests(cluster.metrics()), cpu_seconds(pid)
    say("their end: waits until the last Secret is gone")
    await arrivals.until(names, gone=True)
    await settle(installation)
    ended, cpu_ended = requests(cluster.metrics()), cpu_seconds(pid)

    figures = results.figures
    figures["grants_per_s"] = round(LOAD / (last - min(started.values())), 1)
    figures["create_to_secret_ms"]["load"] = milliseconds(
        [arrivals.seen[name] - started[name] for name in names]
    )
    issue, end = writes(issued - before), writes(ended - issued)
    issue[Request("POST", "taskgrants", "")] -= LOAD  # the benchmark's own
    _per_grant(results, issue, end)
    figures["operator_cpu_s_per_grant"] = {
        "issue": round((cpu_issued - cpu) / LOAD, 5),
        "end": round((cpu_ended - cpu_issued) / LOAD, 5),
    }


def _per_grant(results: Results, issue: Counter[Request], end: Counter[Request]) -> None:
    """Split the writes into objects, Events and the audit log's groups."""
    figures = results.figures
    for step, counted in (("issue", issue), ("end", end)):
        shares = {
            str(request): round(count / LOAD, 3) for request, count in sorted(counted.items()) if count > 0
        }
        results.writes[step] = {
            request: share for request, share in shares.items() if not request.endswith("leases")
        }
    objects = {"taskgrants/status", "secrets", "taskgrants"}
    figures["object_writes_per_grant"] = {
        step: round(sum(share for name, share in shares.items() if name.split(" ")[1] in objects), 3)
        for step, shares in results.writes.items()
    }
    figures["events_per_grant"] = {
        step: shares.get("POST events", 0.0) for step, shares in results.writes.items()
    }
    figures["audit_writes_per_grant"] = {
        step: shares.get("POST configmaps", 0.0) for step, shares in results.writes.items()
    }


async def _fill(client: Client, arrivals: Arrivals, results: Results, active: int) -> None:
    """Ask for many grants as fast as the API server takes them; wait until all are issued."""
    say(f"{active} active grants")
    names = [f"active-{number}" for number in range(active)]

    def job(number: int) -> Callable[[], Awaitable[None]]:
        grant = _grant(names[number], 1 + number // GRANTS_EACH, "4h")
        return lambda: client.create(GRANTS.format(namespace="bench"), grant)

    started = time.perf_counter()
    await many((job(number) for number in range(active)), FILL_CONCURRENCY)
    await arrivals.until(set(names))
    say(f"  all issued in {time.perf_counter() - started:.0f} s")
    results.figures["active_grants"] = active


async def _idle(cluster: Cluster, results: Results) -> None:
    """What the operator asks of the API server while nothing happens, from the server's audit log."""
    if cluster.audit_log is None:
        results.notes.append("idle requests were not measured: the cluster's audit log is not ours to read")
        return
    say(f"idle for {IDLE_SECONDS:.0f} s")
    position = cluster.audit_log.stat().st_size
    await asyncio.sleep(IDLE_SECONDS)
    counted: Counter[str] = Counter()
    with cluster.audit_log.open() as log:
        log.seek(position)
        for line in log:
            event = json.loads(line)
            if event["user"]["username"] == OPERATOR:
                counted[f"{event['verb']} {event['objectRef']['resource']}"] += 1
    results.figures["idle_requests_per_minute"] = round(sum(counted.values()) * 60 / IDLE_SECONDS, 1)
    results.figures["idle_requests"] = dict(sorted(counted.items()))


async def _restart(client: Client, arrivals: Arrivals, installation: Installation, results: Results) -> None:
    """From the start of a killed operator to the Secret of a grant that waits for it."""
    say("restart after SIGKILL")
    operator = installation.operator
    operator.kill()
    await client.create(GRANTS.format(namespace="bench"), _grant("after-restart", 0, "15m"))
    started = time.perf_counter()
    operator.start()
    await arrivals.until({"after-restart"})
    results.figures["restart_ready_s_at_10000"] = round(arrivals.seen["after-restart"] - started, 2)
    await asyncio.to_thread(installation.wait_ready, operator)
    await settle(installation)
    results.figures["rss_mb_after_restart"] = round(rss_mb(operator.pid), 1)
