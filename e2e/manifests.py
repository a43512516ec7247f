"""Manifests: the smallest good objects; a story names only what matters to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pilot_identity.core.resources.metadata import API_VERSION

AUDIENCE = "https://tickets.example.org"
OTHER_AUDIENCE = "https://invoices.example.org"

Document = dict[str, Any]


def tool(
    name: str = "tickets",
    audience: str = AUDIENCE,
    *,
    actions: Sequence[str] = ("read", "comment"),
    resources: Sequence[str] = ("projects/billing/**",),
    data_class: str = "synthetic",
) -> Document:
    """An access entry."""
    allowed = {"audience": audience, "actions": list(actions), "resources": list(resources)}
    return {"name": name, "tool": allowed, "dataClass": data_class}


def pilot(
    name: str,
    *,
    stage: str = "sandbox",
    access: Sequence[Document] | None = None,
    **spec: Any,
) -> Document:
    """A pilot that may read and comment on tickets."""
    return {
        "apiVersion": API_VERSION,
        "kind": "PilotIdentity",
        "metadata": {"name": name},
        "spec": {
            "workflow": "story",
            "purpose": "Shows what is true of a pilot",
            "owners": {"business": "bea@example.org", "technical": "tom@example.org"},
            "stage": stage,
            "access": [tool()] if access is None else list(access),
            **spec,
        },
    }


def grant(
    name: str,
    pilot_name: str,
    *,
    requested_by: str,
    duration: str = "15m",
    access: Sequence[Mapping[str, Any]] = ({"name": "tickets"},),
    **spec: Any,
) -> Document:
    """A grant of all that the pilot may do with tickets."""
    return {
        "apiVersion": API_VERSION,
        "kind": "TaskGrant",
        "metadata": {"name": name},
        "spec": {
            "pilot": pilot_name,
            # Where the API server stamps it this is overwritten, elsewhere it must be the truth.
            "requestedBy": requested_by,
            "task": {"id": f"TASK-{name}"},
            "access": [dict(entry) for entry in access],
            "duration": duration,
            **spec,
        },
    }


def stage(name: str, *, rank: int, data_classes: Sequence[str], **spec: Any) -> Document:
    """A stage policy that asks nobody."""
    return {
        "apiVersion": API_VERSION,
        "kind": "StagePolicy",
        "metadata": {"name": name},
        "spec": {
            "rank": rank,
            "trustDomain": f"{name}.story.example.org",
            "credentials": {"x509TTL": "1h", "jwtTTL": "5m", "maxTaskDuration": "1h"},
            "dataClasses": list(data_classes),
            **spec,
        },
    }
