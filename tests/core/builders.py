"""Objects as the API server would send them; a case names only what matters to it.

Everything is built as JSON with the CRDs' defaults already in it and then parsed, so that no test rests on
an object that the border would refuse.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from pilot_identity.core.decisions.fresh import Moment
from pilot_identity.core.resources import Approval, PilotIdentity, StagePolicy, TaskGrant, parse
from pilot_identity.core.resources.metadata import FINALIZER
from pilot_identity.core.resources.timestamps import format_timestamp

NOW = dt.datetime(2026, 6, 1, 12, 0, 0, 250_000, tzinfo=dt.UTC)
"""When everything happens unless a case says otherwise; with a fraction, as clocks have."""
NAMESPACE = "team-a"
CA_END = NOW + dt.timedelta(days=365)

TOOL: Mapping[str, Any] = {
    "name": "tickets",
    "dataClass": "synthetic",
    "tool": {
        "audience": "https://tickets.example.org",
        "actions": ["read", "comment"],
        "resources": ["projects/billing/**"],
    },
}
"""The access entry that a pilot has unless a case says otherwise."""


def tool(name: str, **fields: Any) -> dict[str, Any]:
    """An access entry to a tool; `fields` replace those of `TOOL`'s tool."""
    return {**TOOL, "name": name, "tool": {**TOOL["tool"], **fields}}


def ready(reason: str = "IdentityIssued", *, generation: int = 1, is_true: bool = True) -> dict[str, Any]:
    """A Ready condition as stored."""
    return {
        "type": "Ready",
        "status": "True" if is_true else "False",
        "reason": reason,
        "lastTransitionTime": format_timestamp(NOW - dt.timedelta(hours=1)),
        "observedGeneration": generation,
    }


def metadata(name: str, **fields: Any) -> dict[str, Any]:
    """Metadata of an object that was made an hour ago and never changed."""
    return {
        "name": name,
        "uid": f"uid-of-{name}",
        "namespace": NAMESPACE,
        "resourceVersion": "1",
        "generation": 1,
        "creationTimestamp": format_timestamp(NOW - dt.timedelta(hours=1)),
        **fields,
    }


def deleting(at: dt.datetime = NOW, *, held: bool = True) -> dict[str, Any]:
    """The metadata of an object that someone deleted; ours holds it, or somebody else's finalizer."""
    return {
        "deletionTimestamp": format_timestamp(at),
        "finalizers": [FINALIZER if held else "example.org/other"],
    }


def stage(
    name: str = "sandbox",
    rank: int = 0,
    *,
    meta: Mapping[str, Any] | None = None,
    status: Mapping[str, Any] | None = None,
    **spec: Any,
) -> StagePolicy:
    """A stage that is ready unless `status` says otherwise."""
    meta = metadata(name, namespace="", **(meta or {}))
    standing = {
        "observedGeneration": meta["generation"],
        "jwtKeyID": f"key-of-{name}",
        "conditions": [ready("KeysReady", generation=meta["generation"])],
    }
    body = {
        "kind": "StagePolicy",
        "metadata": meta,
        "spec": {
            "rank": rank,
            "trustDomain": f"{name}.example.org",
            "dataClasses": ["synthetic"] if name == "sandbox" else [f"of-{name}", "synthetic"],
            "retention": "168h",
            "credentials": {"x509TTL": "1h", "jwtTTL": "5m", "kubernetesTTL": "10m", "maxTaskDuration": "1h"},
            **spec,
        },
        "status": standing if status is None else status,
    }
    parsed = parse(body)
    assert isinstance(parsed, StagePolicy)
    return parsed


def pilot(
    name: str = "triage",
    *,
    meta: Mapping[str, Any] | None = None,
    status: Mapping[str, Any] | None = None,
    **spec: Any,
) -> PilotIdentity:
    """A pilot that asks for the lowest stage and was never looked at, unless `status` says otherwise."""
    body = {
        "kind": "PilotIdentity",
        "metadata": metadata(name, **(meta or {})),
        "spec": {
            "workflow": "invoice-triage",
            "purpose": "sorts invoices",
            "owners": {"business": "ana", "technical": "tom"},
            "stage": "sandbox",
            "access": [dict(TOOL)],
            **spec,
        },
        "status": dict(status or {}),
    }
    parsed = parse(body)
    assert isinstance(parsed, PilotIdentity)
    return parsed


def credential_status(**fields: Any) -> dict[str, Any]:
    """A credential as the status tells it: issued half an hour ago, to be renewed in a minute."""
    return {
        "id": "credential-1",
        "issuance": 1,
        "spiffeID": "spiffe://sandbox.example.org/ns/team-a/pilot/triage",
        "serial": "2a",
        "notBefore": format_timestamp(NOW - dt.timedelta(minutes=30)),
        "notAfter": format_timestamp(NOW + dt.timedelta(minutes=30)),
        "renewAt": format_timestamp(NOW + dt.timedelta(minutes=1)),
        "secretName": "pilot-svid-triage",
        "secretUID": "uid-of-secret",
        "auditIndex": 1,
        **fields,
    }


def ready_pilot(
    name: str = "triage",
    *,
    stage: str = "sandbox",
    meta: Mapping[str, Any] | None = None,
    status: Mapping[str, Any] | None = None,
    **spec: Any,
) -> PilotIdentity:
    """A pilot that has its identity in `stage`."""
    generation = (meta or {}).get("generation", 1)
    standing = {
        "observedGeneration": generation,
        "stage": stage,
        "stageSince": format_timestamp(NOW - dt.timedelta(days=1)),
        "spiffeID": f"spiffe://{stage}.example.org/ns/team-a/pilot/{name}",
        "serviceAccountName": f"pilot-workload-{name}",
        "credential": credential_status(),
        "issuances": 1,
        "bundle": {"stage": stage, "configMapName": f"pilot-bundle-{stage}", "sequence": 1},
        "conditions": [ready(generation=generation)],
        **(status or {}),
    }
    held = {"finalizers": [FINALIZER], **(meta or {})}
    return pilot(name, meta=held, status=standing, stage=spec.pop("asks_for", stage), **spec)


def grant(
    name: str = "task-1",
    *,
    meta: Mapping[str, Any] | None = None,
    status: Mapping[str, Any] | None = None,
    **spec: Any,
) -> TaskGrant:
    """A grant for all of the pilot's one access entry, never looked at unless `status` says otherwise."""
    body = {
        "kind": "TaskGrant",
        "metadata": metadata(name, **(meta or {})),
        "spec": {
            "pilot": "triage",
            "task": {"id": "TICKET-42"},
            "requestedBy": "ana",
            "access": [{"name": "tickets"}],
            "duration": "15m",
            **spec,
        },
        "status": dict(status or {}),
    }
    parsed = parse(body)
    assert isinstance(parsed, TaskGrant)
    return parsed


def active_grant(
    name: str = "task-1",
    *,
    meta: Mapping[str, Any] | None = None,
    status: Mapping[str, Any] | None = None,
    **spec: Any,
) -> TaskGrant:
    """A grant that was issued five minutes ago in `sandbox` and has ten to go; nothing is due."""
    standing = {
        "observedGeneration": 1,
        "phase": "Active",
        "stage": "sandbox",
        "issuedAt": format_timestamp(NOW - dt.timedelta(minutes=5)),
        "expiresAt": format_timestamp(NOW + dt.timedelta(minutes=10)),
        "credential": credential_status(
            spiffeID=f"spiffe://sandbox.example.org/ns/team-a/pilot/triage/task/{name}",
            secretName=name,
            notAfter=format_timestamp(NOW + dt.timedelta(minutes=5)),
        ),
        "issuances": 1,
        "conditions": [ready("Issued")],
        **(status or {}),
    }
    return grant(name, meta={"finalizers": [FINALIZER], **(meta or {})}, status=standing, **spec)


def approval(
    name: str = "yes",
    *,
    of: TaskGrant | PilotIdentity,
    meta: Mapping[str, Any] | None = None,
    status: Mapping[str, Any] | None = None,
    **spec: Any,
) -> Approval:
    """Bob's yes to a grant or pilot, made now; the digest is the case's."""
    body = {
        "kind": "Approval",
        "metadata": metadata(name, **{"creationTimestamp": format_timestamp(NOW), **(meta or {})}),
        "spec": {
            "subject": {"kind": of.key.kind, "name": of.metadata.name, "uid": of.metadata.uid},
            "purpose": "Grant" if isinstance(of, TaskGrant) else "Review",
            "digest": "sha256:" + "0" * 64,
            "decision": "Approve",
            "approver": "bob",
            "approverGroups": ["system:authenticated"],
            "reason": "looked at it",
            **spec,
        },
        "status": dict(status or {}),
    }
    parsed = parse(body)
    assert isinstance(parsed, Approval)
    return parsed


def moment(now: dt.datetime = NOW, number: int = 1, *, jitter: float = 0.5) -> Moment:
    """A moment whose randomness is told by `number`."""
    return Moment(now=now, nonce=f"nonce-{number}", serial=number, jitter=jitter)
