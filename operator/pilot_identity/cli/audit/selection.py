"""Selection: which entries are about a grant, a pilot, or the pilots of an owner."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from pilot_identity.core.audit.entries import RecordedEntry
from pilot_identity.core.resources.metadata import Key


class About(StrEnum):
    """What can be asked for."""

    GRANT = "grant"
    PILOT = "pilot"
    OWNER = "owner"


class Selection:
    """Takes every entry of a log in its order and tells which ones are asked for.

    Whose a pilot is changes over time, and an entry is its owner's if the pilot was so when it was written.

    Attributes:
        hidden: pilots whose definition is too big for an entry, so that only its digest is there; whose they
            were cannot be told from the log.
    """

    def __init__(self, about: About, name: str, namespace: str = "") -> None:
        """Take `name` in `namespace`, or in any where that is empty; an owner is in none."""
        self._about = about
        self._name = name
        self._namespace = namespace
        self._owners: dict[tuple[str, str], frozenset[str]] = {}
        self.hidden: set[str] = set()

    def takes(self, entry: RecordedEntry) -> bool:
        """Whether the entry is about what was asked for."""
        kind, namespace, name = Key.parse(entry.subject)
        if kind == "PilotIdentity":
            self._learn_owners(namespace, name, entry.data)
        pilot = name if kind == "PilotIdentity" else _text(entry.data.get("pilot"))
        match self._about:
            case About.GRANT:
                return kind == "TaskGrant" and self._is_named(namespace, name)
            case About.PILOT:
                return kind in {"PilotIdentity", "TaskGrant"} and self._is_named(namespace, pilot)
            case About.OWNER:
                return self._name in self._owners.get((namespace, pilot), frozenset())

    def _is_named(self, namespace: str, name: str) -> bool:
        return name == self._name and (not self._namespace or namespace == self._namespace)

    def _learn_owners(self, namespace: str, name: str, data: Mapping[str, Any]) -> None:
        definition = data.get("definition")
        if not isinstance(definition, Mapping):
            return
        owners = definition.get("owners")
        if isinstance(owners, Mapping):
            self._owners[namespace, name] = frozenset(_text(owner) for owner in owners.values())
        elif "sha256" in definition:
            self.hidden.add(f"{namespace}/{name}")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
