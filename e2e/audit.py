"""The audit trail: the stored log, read and verified from scratch as an outsider would."""

from __future__ import annotations

import http.client
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from e2e import places
from e2e.admin import Admin, Document
from e2e.sightings import Sightings
from pilot_identity.core.audit.checkpoint import LogVerifier
from pilot_identity.core.audit.entries import EntryType, RecordedEntry, decode_entry
from pilot_identity.core.audit.groups import NAME_PREFIX, Group
from pilot_identity.core.audit.reader import ConfigMapLog
from pilot_identity.core.audit.verify import verify

LATE = sys.maxsize
SELECTOR = "pilotidentity.dev/audit%%20in%%20(%s)"
ISSUING = frozenset(
    {
        EntryType.PILOT_REGISTERED,
        EntryType.PILOT_ADMITTED,
        EntryType.PILOT_RESUMED,
        EntryType.PILOT_RENEWED,
        EntryType.GRANT_ISSUED,
        EntryType.GRANT_RENEWED,
    }
)
"""The entries that announce a credential."""


@dataclass(frozen=True, slots=True)
class Line:
    """One entry of the log.

    Attributes:
        revision: etcd's, when the entry's group was created; `LATE` where it was compacted unseen.
    """

    index: int
    revision: int
    entry: RecordedEntry

    @property
    def kind(self) -> EntryType:
        """What it tells."""
        return EntryType(self.entry.type)

    @property
    def credential_id(self) -> str:
        """The id of the credential that it announces; empty where it announces none."""
        return str(self.entry.data["credential"]["id"]) if self.kind in ISSUING else ""

    @property
    def issuance(self) -> int:
        """The number of the credential that it announces or abandons."""
        section = "abandoned" if self.kind is EntryType.CREDENTIAL_ABANDONED else "credential"
        return int(self.entry.data[section]["issuance"])


class Trail:
    """Every entry of a log that verified."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.lines = tuple(lines)
        self._by_subject: dict[str, list[Line]] = defaultdict(list)
        self._by_credential: dict[str, Line] = {}
        for line in lines:
            self._by_subject[line.entry.subject_uid].append(line)
            if line.credential_id:
                self._by_credential[line.credential_id] = line

    def __len__(self) -> int:
        """How many entries there are."""
        return len(self.lines)

    def __iter__(self) -> Iterator[Line]:
        """Every entry, in order."""
        return iter(self.lines)

    def of(self, subject_uid: str) -> tuple[Line, ...]:
        """The entries about one object, in order."""
        return tuple(self._by_subject.get(subject_uid, ()))

    def kinds(self, subject_uid: str) -> list[EntryType]:
        """What the entries about one object tell, in order."""
        return [line.kind for line in self.of(subject_uid)]

    def announcing(self, credential_id: str) -> Line | None:
        """The entry that announces a credential."""
        return self._by_credential.get(credential_id)


def watch_groups(admin: Admin) -> Sightings:
    """Watch the log's groups, as a context manager: of those that are compacted only this knows revisions."""
    return Sightings(admin, f"{places.core('configmaps')}?labelSelector={SELECTOR % 'group'}")


def read_trail(admin: Admin, groups: Sightings | None = None) -> Trail:
    """Read the whole log, groups and bundles, and verify it as `kubectl pilot audit verify` does.

    Args:
        admin: who reads.
        groups: has watched them since before any was compacted that matters.
    """
    stored = _stored(admin)
    entries = _verified(admin, stored)
    revisions = _revisions([*stored, *(seen.object for seen in groups.all())] if groups else stored)
    return Trail(
        [Line(index, revisions.get(index, LATE), decode_entry(entry)) for index, entry in enumerate(entries)]
    )


def _revisions(items: Iterable[Document]) -> dict[int, int]:
    """When each entry's group was created, of all groups that were ever seen."""
    revisions: dict[int, int] = {}
    for item in items:
        name, revision = str(item["metadata"]["name"]), int(item["metadata"]["resourceVersion"])
        if name.startswith(NAME_PREFIX):
            group = Group.from_data(name, item["data"])
            for index in range(group.extends, group.size):
                # A deletion is told with a later one.
                revisions[index] = min(revision, revisions.get(index, revision))
    return revisions


def read_entries(admin: Admin) -> list[bytes]:
    """Every entry of the log, which verified, as it stands there."""
    return _verified(admin, _stored(admin))


def _stored(admin: Admin) -> list[Document]:
    path = f"{places.core('configmaps')}?labelSelector={SELECTOR % 'group,tile'}"
    try:
        listed = admin.get(path)["items"]
    except (OSError, http.client.HTTPException):
        # The server was killed, or closed a connection that was idle for long: the next one is new.
        listed = admin.get(path)["items"]
    stored = sorted(listed, key=lambda item: str(item["metadata"]["name"]))
    for item in stored:
        assert item["immutable"], f"{item['metadata']['name']} could be changed"
    return stored


def _verified(admin: Admin, stored: list[Document]) -> list[bytes]:
    verifier = LogVerifier.parse(admin.get(places.core("configmaps", name="audit-verifier"))["data"]["vkey"])
    entries: list[bytes] = []
    report, _ = verify(ConfigMapLog(lambda: stored), verifier, observe=lambda _, entry: entries.append(entry))
    assert report.is_sound, report.findings
    assert report.unproven_from == len(entries)
    return entries
