"""Grants that are used: as they stand after their issue, and what their accounts ask for."""

from __future__ import annotations

import datetime as dt
from typing import Any

from pilot_identity.core.audit.access import Account, Sighting, Target
from pilot_identity.core.decisions.kubernetes_access import account_name
from pilot_identity.core.resources import TaskGrant
from tests.fakes import manifests
from tests.fakes.clock import START
from tests.fakes.server import FakeServer

_numbers = iter(range(1_000_000))


def planted(name: str = "task-1", *, phase: str = "Active", **status: Any) -> dict[str, Any]:
    """A grant as it stands after its issue."""
    number = next(_numbers)
    credential = {
        "id": name,
        "issuance": 1,
        "spiffeID": f"spiffe://sandbox.example.org/ns/team-a/pilot/triage/task/{name}",
        "serial": "1",
        "notBefore": "2026-06-01T11:00:00Z",
        "notAfter": "2026-06-01T13:00:00Z",
        "renewAt": "2026-06-01T12:30:00Z",
        "secretName": name,
        "secretUID": "s",
        "auditIndex": 1,
        "kubernetes": {
            "serviceAccountName": "x",
            "credentialID": "token-1",
            "notAfter": "2026-06-01T13:00:00Z",
            "bindings": [],
        },
    }
    body = manifests.grant(name)
    body["metadata"]["uid"] = f"{number:08x}-0000-4000-8000-{number:012x}"
    body["status"] = {"phase": phase, "stage": "sandbox", "credential": credential, **status}
    return body


def plant(server: FakeServer, *bodies: dict[str, Any]) -> None:
    """Put grants there."""
    for body in bodies:
        server.plant(("taskgrants", manifests.NAMESPACE, body["metadata"]["name"]), body)


def request(grant: TaskGrant, at: float = 0, **fields: Any) -> Sighting:
    """A request by a grant's account; each is another one."""
    told = {
        "account": Account(grant.metadata.namespace, account_name(grant)),
        "account_uid": "account-uid",
        "credential_id": "token-1",
        "target": Target("get", "pods", "team-a"),
        "name": "web-0",
        "at": START + dt.timedelta(seconds=at),
        "code": 200,
        "mark": str(next(_numbers)).encode(),
    }
    return Sighting(**{**told, **fields})
