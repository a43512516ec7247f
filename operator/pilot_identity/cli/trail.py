"""The operator's audit log, searched for a credential whose grant no longer shows it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from pilot_identity.cli.failures import AnswerError
from pilot_identity.cli.session import Session, core
from pilot_identity.core.audit.entries import RecordedEntry, decode_entry
from pilot_identity.core.audit.groups import NAME_PREFIX, BrokenLogError, Group
from pilot_identity.core.resources.metadata import GROUP, Key

LABEL = f"{GROUP}/audit=group"
PAGE = 20
"""A group may be as large as a ConfigMap, 1 MiB."""


@dataclass(frozen=True, slots=True)
class Found:
    """One entry that speaks of what is searched, and its index in the log."""

    index: int
    entry: RecordedEntry

    @property
    def place(self) -> tuple[str, str]:
        """Namespace and name of the entry's subject; empty where it is no grant."""
        kind, namespace, name = Key.parse(self.entry.subject)
        return (namespace, name) if kind == "TaskGrant" else ("", "")

    def names(self, identifiers: frozenset[str]) -> bool:
        """Whether the entry is about a credential of one of these identifiers."""
        return not identifiers.isdisjoint(_identifiers(self.entry.data))

    def data(self) -> dict[str, Any]:
        """The entry for programs."""
        return {
            "index": self.index,
            "time": self.entry.time.isoformat(),
            "type": self.entry.type,
            "subject": self.entry.subject,
            "subjectUID": self.entry.subject_uid,
            "data": self.entry.data,
        }


@dataclass(frozen=True, slots=True)
class Search:
    """What the log had; `refused` says why it could not be read, empty where it could."""

    found: tuple[Found, ...] = ()
    refused: str = ""


def search(session: Session, namespace: str, wanted: frozenset[str], subject_uid: str = "") -> Search:
    """Look for entries that name one of `wanted`, or are about the object of that UID, and what came after.

    The log is read as it stands; whether it is whole and signed is for a verifier to say.
    """
    try:
        return Search(tuple(_found(session, namespace, wanted, subject_uid)))
    except AnswerError as error:
        if error.status not in {HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND}:
            raise
        return Search(refused=str(error))


def _found(session: Session, namespace: str, wanted: frozenset[str], subject_uid: str) -> Iterator[Found]:
    subjects = {subject_uid} if subject_uid else set()
    needles = [each.encode() for each in (*wanted, *subjects)]
    if not needles:
        return
    for index, encoded in _entries(session, namespace):
        # Most lines are dismissed without taking them apart.
        if not any(needle in encoded for needle in needles):
            continue
        entry = decode_entry(encoded)
        if entry.subject_uid not in subjects:
            if wanted.isdisjoint(_identifiers(entry.data)):
                continue
            # How it went on is told by later entries of the same subject, under other identifiers.
            subjects.add(entry.subject_uid)
            needles.append(entry.subject_uid.encode())
        yield Found(index, entry)


def _entries(session: Session, namespace: str) -> Iterator[tuple[int, bytes]]:
    for page in session.pages(core(namespace, "configmaps"), labels=LABEL, size=PAGE):
        for item in page:
            group = _group(item)
            if group is not None:
                yield from enumerate(group.entries, group.extends)


def _group(item: dict[str, Any]) -> Group | None:
    name = item["metadata"]["name"]
    if not name.startswith(NAME_PREFIX):
        return None  # anyone who may make a ConfigMap may set a label
    try:
        return Group.from_data(name, item.get("data") or {})
    except BrokenLogError:
        return None


_NAMES = frozenset({"serial", "jti", "credentialID", "publicKeySHA256", "secretName", "secret"})
"""Under which an entry's data names a credential; other texts, such as a task's, may look the same."""


def _identifiers(data: Any) -> Iterator[str]:
    """Every identifier of a credential in an entry's data, however deep."""
    if isinstance(data, dict):
        for name, value in data.items():
            if name in _NAMES and isinstance(value, str):
                yield value
            else:
                yield from _identifiers(value)
    elif isinstance(data, list):
        for value in data:
            yield from _identifiers(value)
