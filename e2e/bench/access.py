"""Kubernetes access: how fast it stops, and what a grant of it costs.

The clock of a revocation starts before the owner's write is sent and stops when the first request with the
grant's own token was refused, so the write's own time is in it. The token asks from the write's answer on,
one request after another: asking earlier would only take the API server's time away from the write.
"""

from __future__ import annotations

import asyncio
import base64
import time
from typing import Any

import yaml

from e2e.bench.client import GRANTS, Arrivals, Client
from e2e.bench.measure import milliseconds, requests, writes
from e2e.bench.results import Results, many, say, settle
from e2e.controlplane.cluster import Cluster
from e2e.installation import Installation

NAMESPACE = "bench-access"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods?resourceVersion=0"
"""From the API server's cache. A list of the newest waits, once authorized, up to 100 ms until the cache has
caught up with etcd: that would measure how long a request takes that was let in before."""
REVOKED = 200
SUSPENDED = 1000
COUNTED = 200
CONCURRENCY = 16
REFUSED = {401, 403}
OBJECTS = ("secrets", "serviceaccounts", "rolebindings", "taskgrants")
"""The objects of a grant; what only asks, such as a SubjectAccessReview, is stored nowhere."""


def pilot(name: str) -> dict[str, Any]:
    """A pilot that may list Pods."""
    return {
        "apiVersion": "pilotidentity.dev/v1alpha1",
        "kind": "PilotIdentity",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "workflow": "bench",
            "purpose": "Is measured",
            "owners": {"business": "bea@example.org", "technical": "ted@example.org"},
            "stage": "sandbox",
            "access": [
                {
                    "name": "pods",
                    "dataClass": "synthetic",
                    "kubernetes": {"roleRef": {"kind": "ClusterRole", "name": "view"}},
                }
            ],
        },
    }


def _grant(name: str, of: str) -> dict[str, Any]:
    return {
        "apiVersion": "pilotidentity.dev/v1alpha1",
        "kind": "TaskGrant",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"pilot": of, "task": {"id": name}, "access": [{"name": "pods"}], "duration": "2h"},
    }


class Bench:
    """The measurements, in the namespace that they have to themselves."""

    def __init__(
        self, cluster: Cluster, client: Client, arrivals: Arrivals, installation: Installation
    ) -> None:
        self._cluster = cluster
        self._client = client
        self._arrivals = arrivals
        self._installation = installation

    async def prepare(self) -> None:
        """Make the namespace and its pilots; the one that was suspended meanwhile may stay so."""
        self._cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        for name in ("revoked", "suspended"):
            self._cluster.apply(pilot(name))
        ready = ("--for=condition=Ready", "--timeout=60s")
        self._cluster.kubectl("-n", NAMESPACE, "wait", "pilot/revoked", *ready)

    async def revocations(self, results: Results, label: str) -> None:
        """From an owner's revoke to the first refused request, one grant after another."""
        say(f"revocations {label}: {REVOKED} grants with Kubernetes access, one after another")
        taken = [await self._revoke(f"{label.replace('_', '-')}-{number}") for number in range(REVOKED)]
        results.figures.setdefault("revoke_to_refused_ms", {})[label] = milliseconds(taken)

    async def revocations_beside(self, flood: asyncio.Task[None], results: Results) -> None:
        """The same while another namespace asks for more than the operator can do; and what requests take."""
        say("  revocations beside it, one after another")
        asked: list[float] = []
        taken: list[float] = []
        while not flood.done():
            name = f"beside-{len(taken)}"
            started = time.perf_counter()
            token = await self._issue(name, "revoked")
            asked.append(self._arrivals.seen[name] - started)
            await self._answers(token)
            taken.append(await self._refusal(name, token))
        await flood
        results.figures["beside_10000_asked"] = {
            "rounds": len(taken),
            "create_to_secret_ms": milliseconds(asked),
            "revoke_to_refused_ms": milliseconds(taken),
        }

    async def _revoke(self, name: str) -> float:
        token = await self._issue(name, "revoked")
        await self._answers(token)
        return await self._refusal(name, token)

    async def _refusal(self, name: str, token: str) -> float:
        """Revoke; returns the seconds until the token was refused."""
        started = time.perf_counter()
        revoke = {"spec": {"revoke": {"reason": "is measured"}}}
        await self._client.patch(f"{GRANTS.format(namespace=NAMESPACE)}/{name}", revoke)
        return await self._refused(token) - started

    async def _issue(self, name: str, of: str) -> str:
        await self._client.create(GRANTS.format(namespace=NAMESPACE), _grant(name, of))
        await self._arrivals.until({name})
        secret = await self._client.get(f"/api/v1/namespaces/{NAMESPACE}/secrets/{name}")
        config = yaml.safe_load(base64.b64decode(secret["data"]["kubeconfig"]))
        return str(config["users"][0]["user"]["token"])

    async def _answers(self, token: str) -> None:
        """Wait until the token works: the API server's own authorizer learns of a binding by a watch."""
        async with asyncio.timeout(10):
            while await self._client.status_as(token, PODS) != 200:
                pass

    async def _refused(self, token: str) -> float:
        """Ask with the token until it is refused; returns when the refusal came."""
        async with asyncio.timeout(60):
            while await self._client.status_as(token, PODS) not in REFUSED:
                pass
        return time.perf_counter()

    async def _closed(self) -> None:
        """Wait until every end is proven: the API server believes a token for ten seconds more."""
        path = GRANTS.format(namespace=NAMESPACE)
        async with asyncio.timeout(120):
            while True:
                grants = (await self._client.get(path))["items"]
                if not any(grant.get("status", {}).get("phase") == "Closing" for grant in grants):
                    break
                await asyncio.sleep(0.5)  # between two looks
        await settle(self._installation)

    async def writes(self, results: Results) -> None:
        """How many objects are written for one such grant."""
        say(f"writes of {COUNTED} grants with Kubernetes access")
        names = [f"counted-{number}" for number in range(COUNTED)]
        await self._closed()
        before = requests(self._cluster.metrics())
        await many([self._making(name, "revoked") for name in names], CONCURRENCY)
        await settle(self._installation)
        issued = requests(self._cluster.metrics())
        await many([self._completing(name) for name in names], CONCURRENCY)
        await self._arrivals.until(set(names), gone=True)
        await self._closed()
        ended = requests(self._cluster.metrics())
        own = COUNTED  # the benchmark's own write to each grant: made, then completed
        results.figures["object_writes_per_kubernetes_grant"] = {
            step: round(
                (
                    sum(
                        count
                        for one, count in writes(counted).items()
                        if one.resource in OBJECTS and one.subresource in {"", "status"}
                    )
                    - own
                )
                / COUNTED,
                3,
            )
            for step, counted in (("issue", issued - before), ("end", ended - issued))
        }

    def _making(self, name: str, of: str) -> Any:
        async def make() -> None:
            await self._issue(name, of)

        return make

    def _completing(self, name: str) -> Any:
        path = f"{GRANTS.format(namespace=NAMESPACE)}/{name}"
        return lambda: self._client.patch(path, {"spec": {"completed": True}})

    async def suspension(self, results: Results) -> None:
        """From suspending a pilot to the last of its grants' tokens being refused."""
        say(f"suspends a pilot with {SUSPENDED} active grants")
        tokens: list[str] = []

        def job(number: int) -> Any:
            async def make() -> None:
                tokens.append(await self._issue(f"suspended-{number}", "suspended"))

            return make

        await many([job(number) for number in range(SUSPENDED)], CONCURRENCY)
        await settle(self._installation)
        await self._answers(tokens[-1])
        path = f"/apis/pilotidentity.dev/v1alpha1/namespaces/{NAMESPACE}/pilotidentities/suspended"
        started = time.perf_counter()
        await self._client.patch(path, {"spec": {"suspend": True}})
        last = 0.0

        def asking(token: str) -> Any:
            async def ask() -> None:
                nonlocal last
                last = max(last, await self._refused(token))

            return ask

        await many([asking(token) for token in tokens], CONCURRENCY)
        results.figures["suspend_1000_refused_s"] = round(last - started, 2)
        await settle(self._installation)
