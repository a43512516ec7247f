"""The cast of a story in which people ask each other: real users in the chart's roles, and what they say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from e2e import manifests, places
from e2e.admin import Admin, Document
from e2e.controlplane.cluster import Cluster
from e2e.patience import WITHIN_S, until
from e2e.person import Person, Right, bind, made
from e2e.stories.play import Play
from pilot_identity.core.resources.metadata import API_VERSION

OWNER = "pilot-identity-owner"
REQUESTER = "pilot-identity-requester"
APPROVER = "pilot-identity-approver"
EMERGENCY = "pilot-identity-emergency"

PROVES = {
    OWNER: Right("revoke", "taskgrants"),
    REQUESTER: Right("request", "pilotidentities"),
    APPROVER: Right("approve", "taskgrants"),
    EMERGENCY: Right("request-emergency", "pilotidentities"),
}
"""Of each role the verb by which one sees that the API server knows of its binding."""


class Cast:
    """Lets people enter a play, and speak in it."""

    def __init__(self, play: Play, cluster: Cluster) -> None:
        self.play = play
        self.cluster = cluster

    def enter(self, name: str, *roles: str, groups: tuple[str, ...] = ()) -> Person:
        """Someone in these roles in the story's namespace."""
        person = Person(self.cluster, self.play.namespace, f"{name}@example.org", *groups)
        for role in roles:
            bind(self.play.admin, self.play.namespace, role, person)
            right = PROVES[role]
            person.await_right(
                self.play.admin, Right(right.verb, right.resource, namespace=self.play.namespace)
            )
        return person

    def ask(self, person: Person, name: str, pilot: str, **spec: Any) -> Document:
        """Ask for a grant as that person."""
        return made(person.create(manifests.grant(name, pilot, requested_by=person.name, **spec)))

    def awaiting(self, name: str, *, other_than: str = "") -> Document:
        """Wait until a grant says what it asks people, and that with another digest than `other_than`."""

        def look() -> Document | None:
            found = self.play.admin.find(self.play.grants(name)) or {}
            status = found.get("status", {})
            asks = status.get("phase") == "AwaitingApproval" and status["approval"]["digest"] != other_than
            return found if asks else None

        told = f"grant {name} awaits approval;"
        return until(look, told, instead=lambda: self.play.status(self.play.grants(name)))

    def say(self, person: Person, grant: Document, name: str = "", **spec: Any) -> Document:
        """Approve a grant as that person, as it asks for it; `spec` says what is said otherwise."""
        return made(person.create(approval(person, grant, name or _named(person, grant), **spec)))

    def told(self, approval_name: str, reason: str, *, seconds: float = WITHIN_S) -> Document:
        """Wait until an approval is told something; returns the condition."""
        path = places.approvals(self.play.namespace, approval_name)
        return self.play.condition(path, "Ready", reason=reason, seconds=seconds)


def approval(person: Person, grant: Document, name: str, **spec: Any) -> Document:
    """A person's word on a grant, as the grant asks for it."""
    digest = grant.get("status", {}).get("approval", {}).get("digest", "")
    return {
        "apiVersion": API_VERSION,
        "kind": "Approval",
        "metadata": {"name": name},
        "spec": {
            "subject": {
                "kind": "TaskGrant",
                "name": grant["metadata"]["name"],
                "uid": grant["metadata"]["uid"],
            },
            "purpose": "Grant",
            "digest": digest,
            "decision": "Approve",
            "approver": person.name,
            "approverGroups": list(person.groups),
            "reason": "looked at it",
            **spec,
        },
    }


def _named(person: Person, grant: Document) -> str:
    return f"{grant['metadata']['name']}-{person.name.partition('@')[0]}"


NOTHING_ASKED: Mapping[str, Any] = {
    "approvals": {"grant": {"required": 0, "when": None, "within": None}, "groups": None},
    "emergency": None,
    "rules": None,
    "freeze": False,
}


@contextmanager
def policy(admin: Admin, play: Play, **spec: Any) -> Iterator[None]:
    """The sandbox under other rules for the time of a story: a pilot first appears in the lowest stage."""
    change(admin, play, **spec)
    try:
        yield
    finally:
        change(admin, play, **NOTHING_ASKED)


def change(admin: Admin, play: Play, *, reason: str = "KeysReady", **spec: Any) -> None:
    """Change the sandbox's rules, and wait until the operator says what it makes of them."""
    admin.patch(places.stages("sandbox"), {"spec": spec})
    play.condition(places.stages("sandbox"), "Ready", reason=reason)
