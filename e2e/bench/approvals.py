"""Approvals: what it adds to a grant's latency that a person is asked, beside the time the person takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from e2e.admin import Admin
from e2e.bench.client import GRANTS, Arrivals, Client, person
from e2e.bench.measure import milliseconds
from e2e.bench.results import Results, say
from e2e.controlplane.cluster import Cluster
from e2e.person import Person, Right, bind

APPROVED = 100
NAMESPACE = "bench"
APPROVALS = f"/apis/pilotidentity.dev/v1alpha1/namespaces/{NAMESPACE}/approvals"
MARK = "approved"
"""Only tasks of that name need somebody's word, so that no other grant of the benchmark changes its way."""


async def approvals(
    cluster: Cluster, client: Client, arrivals: Arrivals, results: Results, grant: dict[str, Any]
) -> None:
    """One grant after another: asked for, seen to wait, approved at once by another user, issued.

    `grant` is what is asked for each time; its name and task are filled in.
    """
    say(f"approvals: {APPROVED} grants that each need one, one after another")
    approver = Person(cluster, NAMESPACE, "apra@example.org")
    with closing(Admin(cluster)) as admin:
        bind(admin, NAMESPACE, "pilot-identity-approver", approver)
        approver.await_right(admin, Right("approve", "taskgrants", namespace=NAMESPACE))
    asked_to_waiting, word_to_secret = [], []
    async with person(cluster, approver.name) as other:
        with _one_approval(cluster):
            for number in range(APPROVED):
                name = f"{MARK}-{number}"
                started = time.perf_counter()
                named = {**grant, "metadata": {"name": name, "namespace": NAMESPACE}}
                named["spec"] = {**grant["spec"], "task": {"id": MARK}}
                await client.create(GRANTS.format(namespace=NAMESPACE), named)
                waiting = await _waiting(client, name)
                asked_to_waiting.append(time.perf_counter() - started)
                started = time.perf_counter()
                await other.create(APPROVALS, _word(waiting, approver.name))
                await arrivals.until({name})
                word_to_secret.append(arrivals.seen[name] - started)
    results.figures["approval_ms"] = {
        "asked_to_waiting": milliseconds(asked_to_waiting),
        "approved_to_secret": milliseconds(word_to_secret),
    }


@contextmanager
def _one_approval(cluster: Cluster) -> Iterator[None]:
    path = ("stagepolicy", "sandbox")
    rule = f"grant.spec.task.id == '{MARK}'"
    try:
        cluster.kubectl("patch", *path, "--type=merge", "-p", _asking(1, f'"{rule}"'))
        cluster.kubectl("wait", *path, "--for=condition=Ready", "--timeout=30s")
        yield
    finally:
        cluster.kubectl("patch", *path, "--type=merge", "-p", _asking(0, "null"))
        cluster.kubectl("wait", *path, "--for=condition=Ready", "--timeout=30s")


def _asking(required: int, when: str) -> str:
    return f'{{"spec": {{"approvals": {{"grant": {{"required": {required}, "when": {when}}}}}}}}}'


async def _waiting(client: Client, name: str) -> dict[str, Any]:
    """Wait until the grant says to what digest people may say yes."""
    path = f"{GRANTS.format(namespace=NAMESPACE)}/{name}"
    async with asyncio.timeout(30):
        while True:
            grant: dict[str, Any] = await client.get(path)
            if grant.get("status", {}).get("phase") == "AwaitingApproval":
                return grant
            await asyncio.sleep(0.002)  # between two looks


def _word(grant: dict[str, Any], approver: str) -> dict[str, Any]:
    metadata = grant["metadata"]
    return {
        "apiVersion": "pilotidentity.dev/v1alpha1",
        "kind": "Approval",
        "metadata": {"name": metadata["name"]},
        "spec": {
            "subject": {"kind": "TaskGrant", "name": metadata["name"], "uid": metadata["uid"]},
            "purpose": "Grant",
            "digest": grant["status"]["approval"]["digest"],
            "decision": "Approve",
            "approver": approver,
            "approverGroups": [],
            "reason": "is measured",
        },
    }
