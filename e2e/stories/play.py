"""A play: one story's namespace, and what the people in it do and see."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from e2e import manifests, places
from e2e.admin import Admin, Document
from e2e.audit import Trail, read_trail
from e2e.credential import Credential
from e2e.patience import WITHIN_S, until
from e2e.sightings import Sightings

TERMINAL = frozenset({"Completed", "Expired", "Revoked", "Denied"})


class Play:
    """Acts as the admin in one namespace."""

    def __init__(self, admin: Admin, namespace: str, groups: Sightings | None = None) -> None:
        self.admin = admin
        self.namespace = namespace
        self._groups = groups
        self._stages: list[str] = []

    def end(self) -> None:
        """Take away what would be in the next story's way."""
        for pilot in self.admin.get(self.pilots())["items"]:
            self.admin.delete(self.pilots(pilot["metadata"]["name"]))
        until(lambda: not self.admin.get(self.pilots())["items"], "the story's pilots are gone", seconds=90)
        for stage in self._stages:
            self.admin.delete(places.stages(stage))

    # Where things are.

    def pilots(self, name: str = "") -> str:
        """Path of the namespace's pilots, or of one."""
        return places.pilots(self.namespace, name)

    def grants(self, name: str = "") -> str:
        """Path of the namespace's grants, or of one."""
        return places.grants(self.namespace, name)

    def secrets(self, name: str = "") -> str:
        """Path of the namespace's Secrets, or of one."""
        return places.secrets(self.namespace, name)

    def watch(self, path: str) -> Sightings:
        """Watch a collection, as a context manager."""
        return Sightings(self.admin, path)

    # What people do.

    def declare(self, name: str, **spec: Any) -> Document:
        """Declare a pilot; see `manifests.pilot`."""
        return self.admin.create(self.pilots(), manifests.pilot(name, **spec))

    def ask(self, name: str, pilot: str, **spec: Any) -> Document:
        """Ask for a grant; see `manifests.grant`."""
        document = manifests.grant(name, pilot, requested_by=self.admin.name, **spec)
        return self.admin.create(self.grants(), document)

    def make_stage(self, name: str, **spec: Any) -> Document:
        """Add a stage for the time of the story, and wait until it has its keys."""
        self._stages.append(name)
        self.admin.create(places.stages(), manifests.stage(name, **spec))
        return self.condition(places.stages(name), "Ready", reason="KeysReady")

    # What they see.

    def status(self, path: str) -> Document:
        """An object's status as it is now; empty where it has none or is not there."""
        found = self.admin.find(path)
        status: Document = (found or {}).get("status", {})
        return status

    def condition(self, path: str, kind: str, *, reason: str, seconds: float = WITHIN_S) -> Document:
        """Wait until a condition has a reason, for the spec as it is; returns the condition."""

        def look() -> Document | None:
            found = self.admin.find(path) or {}
            generation = found.get("metadata", {}).get("generation")
            conditions = found.get("status", {}).get("conditions", [])
            told = next((one for one in conditions if one["type"] == kind), None)
            is_told = told is not None and told["reason"] == reason
            return told if is_told and told is not None and told["observedGeneration"] == generation else None

        return until(
            look, f"{kind} of {path} is {reason};", seconds=seconds, instead=lambda: self.status(path)
        )

    def ready_pilot(self, name: str, **spec: Any) -> Document:
        """Declare a pilot and wait until it has its identity; returns it."""
        self.declare(name, **spec)
        self.condition(self.pilots(name), "Ready", reason="IdentityIssued")
        return self.admin.get(self.pilots(name))

    def phase(self, grant: str, *phases: str, seconds: float = WITHIN_S) -> Document:
        """Wait until a grant is in one of `phases`; returns the grant."""

        def look() -> Document | None:
            found = self.admin.find(self.grants(grant)) or {}
            return found if found.get("status", {}).get("phase") in phases else None

        told = f"grant {grant} is {' or '.join(phases)};"
        return until(look, told, seconds=seconds, instead=lambda: self.status(self.grants(grant)))

    def credential(self, secret: str) -> Credential:
        """Wait for a credential Secret; returns it decoded."""
        found = until(lambda: self.admin.find(self.secrets(secret)), f"Secret {secret} is there")
        return Credential.of(found)

    def gone(self, secret: str) -> None:
        """Wait until a Secret is not there."""
        until(lambda: self.admin.find(self.secrets(secret)) is None, f"Secret {secret} is gone")

    def bundle(self, stage: str = "sandbox") -> Mapping[str, str]:
        """A stage's bundle as published in the namespace."""
        path = places.core("configmaps", self.namespace, f"pilot-bundle-{stage}")
        data: Mapping[str, str] = until(lambda: self.admin.find(path), f"bundle of {stage} is there")["data"]
        return data

    def trail(self) -> Trail:
        """The whole log, verified from scratch."""
        return read_trail(self.admin, self._groups)

    def events_of(self, uid: str, reason: str) -> list[Document]:
        """Wait for Events of a reason about an object; returns them."""

        def look() -> list[Document]:
            listed = self.admin.get(places.events(self.namespace))["items"]
            return [
                event for event in listed if event["regarding"]["uid"] == uid and event["reason"] == reason
            ]

        return until(look, f"an Event {reason}")


def moment(text: str) -> float:
    """A time of the API as seconds of the wall clock."""
    return dt.datetime.fromisoformat(text).timestamp()
