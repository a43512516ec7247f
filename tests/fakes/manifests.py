"""Manifests as users write them; a test says only what matters to it."""

from __future__ import annotations

from typing import Any

from pilot_identity.core.resources.metadata import API_VERSION

NAMESPACE = "team-a"


def stage(name: str = "sandbox", *, rank: int = 0, **spec: Any) -> dict[str, Any]:
    """A stage whose credentials live 40 s and 20 s, so that a task of minutes is renewed."""
    return {
        "apiVersion": API_VERSION,
        "kind": "StagePolicy",
        "metadata": {"name": name},
        "spec": {
            "rank": rank,
            "trustDomain": f"{name}.example.org",
            "dataClasses": [f"{name}-data"],
            "credentials": {"x509TTL": "40s", "jwtTTL": "20s", "maxTaskDuration": "1h"},
            **spec,
        },
    }


def pilot(name: str = "triage", **spec: Any) -> dict[str, Any]:
    """A pilot in the sandbox with one tool."""
    return {
        "apiVersion": API_VERSION,
        "kind": "PilotIdentity",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "workflow": "triage",
            "purpose": "sorts tickets",
            "owners": {"business": "bea", "technical": "tom"},
            "stage": "sandbox",
            "access": [
                {
                    "name": "tickets",
                    "dataClass": "sandbox-data",
                    "tool": {
                        "audience": "https://tickets.example.org",
                        "actions": ["read"],
                        "resources": ["tickets/**"],
                    },
                }
            ],
            **spec,
        },
    }


def grant(name: str = "task-1", **spec: Any) -> dict[str, Any]:
    """A grant of the pilot `triage` for a minute."""
    return {
        "apiVersion": API_VERSION,
        "kind": "TaskGrant",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "pilot": "triage",
            "task": {"id": "T-1"},
            "requestedBy": "ann",
            "access": [{"name": "tickets"}],
            "duration": "60s",
            **spec,
        },
    }


def approval(
    name: str = "yes", *, of: str = "task-1", kind: str = "TaskGrant", **spec: Any
) -> dict[str, Any]:
    """Bob's approval of a grant, or his review of a pilot, whose UID is `uid-<name>`."""
    return {
        "apiVersion": API_VERSION,
        "kind": "Approval",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "subject": {"kind": kind, "name": of, "uid": f"uid-{of}"},
            "purpose": "Grant" if kind == "TaskGrant" else "Review",
            "digest": "sha256:" + "0" * 64,
            "decision": "Approve",
            "approver": "bob",
            "reason": "looked at it",
            **spec,
        },
    }
