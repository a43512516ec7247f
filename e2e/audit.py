"""The audit trail: the stored log, read and verified from scratch as an outsider would."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from e2e import places
from e2e.admin import Admin
from pilot_identity.core.audit.checkpoint import LogVerifier
from pilot_identity.core.audit.entries import EntryType, RecordedEntry, decode_entry
from pilot_identity.core.audit.groups import NAME_PREFIX, Group, follow
from pilot_identity.core.audit.merkle import Frontier

ISSUING = frozenset(
    {
        EntryType.PILOT_REGISTERED,
        EntryType.PILOT_ADMITTED,
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
        revision: etcd's, when the entry's group was created; a group never changes.
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


def read_trail(admin: Admin) -> Trail:
    """Read the whole log.

    Raises:
        BrokenLogError, CheckpointError: it does not verify.
    """
    verifier = LogVerifier.parse(admin.get(places.core("configmaps", name="audit-verifier"))["data"]["vkey"])
    listed = admin.get(places.core("configmaps") + "?labelSelector=pilotidentity.dev/audit%3Dgroup")
    stored = sorted(listed["items"], key=lambda item: str(item["metadata"]["name"]))
    frontier, lines = Frontier(), list[Line]()
    for item in stored:
        name, revision = item["metadata"]["name"], int(item["metadata"]["resourceVersion"])
        assert name.startswith(NAME_PREFIX)
        assert item["immutable"], f"{name} could be changed"
        group = Group.from_data(name, item["data"])
        frontier = follow(frontier, group, verifier)
        lines += (
            Line(group.extends + offset, revision, decode_entry(encoded))
            for offset, encoded in enumerate(group.entries)
        )
    return Trail(lines)
