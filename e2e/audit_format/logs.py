"""Logs to be judged: made with the product's own encoder and signer, of entries as large as real ones."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilot_identity.core.audit.checkpoint import LogSigner
from pilot_identity.core.audit.entries import Entry, EntryType, encode_entry
from pilot_identity.core.audit.groups import Group, extend
from pilot_identity.core.audit.merkle import Frontier
from pilot_identity.core.resources.metadata import GROUP

START = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes logs as one operator would."""

    signer: LogSigner

    @classmethod
    def new(cls) -> Writer:
        """One with a key of its own."""
        return cls(LogSigner("pilotidentity.dev/log/e2e", Ed25519PrivateKey.generate()))

    def entry(self, number: int, **data: Any) -> bytes:
        """An entry about one of a thousand grants."""
        checks = [{"name": f"check-{at}", "result": "passed"} for at in range(6)]
        told = {
            "pilot": f"pilot-{number % 10}",
            "requestedBy": "alice@example.org",
            "task": {"id": f"T-{number}", "description": "triage the ticket"},
            "decision": {"allowed": True, "checks": checks},
        }
        return encode_entry(
            Entry(
                id=f"uid-{number % 1000}/step-{number}",
                type=EntryType.GRANT_CLOSED,
                subject=f"TaskGrant team-a/task-{number % 1000}",
                subject_uid=f"uid-{number % 1000}",
                time=START + dt.timedelta(seconds=number),
                data={**told, **data},
            ),
            self.signer.name,
        )

    def groups(self, size: int, *, of: int) -> Iterator[Group]:
        """A log of `size` entries, `of` in each group."""
        frontier = Frontier()
        for at in range(0, size, of):
            entries = [self.entry(number) for number in range(at, min(at + of, size))]
            group, frontier = extend(frontier, entries, self.signer)
            yield group

    def config_map(self, group: Group, namespace: str) -> Mapping[str, Any]:
        """A group as the operator stores it."""
        labels = {f"{GROUP}/audit": "group"}
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": group.name, "namespace": namespace, "labels": labels},
            "immutable": True,
            "data": dict(group.data()),
        }

    def key_map(self, namespace: str) -> Mapping[str, Any]:
        """The published key as the operator stores it."""
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "audit-verifier", "namespace": namespace},
            "immutable": True,
            "data": {"vkey": f"{self.signer.verifier()}\n"},
        }
