"""What can be wrong with a stored log, each way by its name, and what a verification says in the end."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pilot_identity.core.audit.checkpoint import Checkpoint


class Flaw(StrEnum):
    """A way in which a log is broken. The docstring below each is its meaning in plain words."""

    ENTRY_CHANGED = "entry-changed"
    """An entry is not what was hashed and signed: some byte of it is another."""
    ENTRY_DROPPED = "entry-dropped"
    """Entries that the signed head or the tile counts are missing inside a group or bundle."""
    ENTRY_ADDED = "entry-added"
    """A group or bundle has more entries than the signed head or the tile counts."""
    ENTRIES_SWAPPED = "entries-swapped"
    """The entries are the ones that were signed, in another order."""
    ENTRY_REPEATED = "entry-repeated"
    """Two entries have one id; the log takes an id once."""
    ENTRY_MALFORMED = "entry-malformed"
    """An entry is no canonical JSON CloudEvent of this log."""
    GAP = "gap"
    """A whole group or bundle is missing in the middle."""
    TAIL_TRUNCATED = "tail-truncated"
    """The log ends before a head that its key signed: the newest entries are gone."""
    HEAD_FORKED = "head-forked"
    """The log's key signed two histories: two different trees of one size, or two entries at one index."""
    WRONG_ORIGIN = "wrong-origin"
    """A head is of another log."""
    FOREIGN_KEY = "foreign-key"
    """A head is not signed by this log's key, but by others only."""
    BAD_SIGNATURE = "bad-signature"
    """A head carries a signature in the name of the log's key that does not verify."""
    TILE_REPLACED = "tile-replaced"
    """A tile's hashes are not those of the entries, or of the tiles, that it stands over."""
    ROOT_MISMATCH = "root-mismatch"
    """What is stored agrees with itself, but the signed head is of other entries."""
    HEAD_MISPLACED = "head-misplaced"
    """The signed head that stands with a bundle or with the record of what is archived is of another size."""
    EDGE_REPLACED = "edge-replaced"
    """The right edge of the tree that stands there, from which the log goes on, is not that of its head."""
    RECOLLECTION_REPLACED = "recollection-replaced"
    """What is kept of old entries for the operator's start is not what they say, or not what was signed."""
    STRAY_GROUP = "stray-group"
    """A group stands where all is archived: it can be compared with the archive alone."""
    UNLISTED = "unlisted"
    """A group goes on from the log's end, hidden: it lacks the label by which readers list the log."""
    COPY_DIFFERS = "copy-differs"
    """The copy of the entries that is made to be searched, `entries.ndjson`, is not the entries."""
    UNREADABLE = "unreadable"
    """A stored part cannot be read as what its name says that it is."""
    NO_LOG = "no-log"
    """There is not one entry."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        flaw: what it is.
        where: the ConfigMap or file.
        index: the entry, or the first of those that it may be; -1 where it is about no entry.
        message: what was found, with both sides.
    """

    flaw: Flaw
    where: str
    index: int
    message: str

    def __str__(self) -> str:
        """As a person reads it."""
        return f"{self.flaw}: {self.where}: {self.message}"


@dataclass(frozen=True, slots=True)
class Report:
    """What a verification found, and how far it got.

    Attributes:
        entries: how many the log has.
        first: the first entry that was read; those before are archived and were not asked for.
        parts: how many groups, bundles and tiles were read.
        signatures: how many signed heads verified.
        head: the newest head that is signed and is the head of exactly these entries, if any.
        note: that head as signed.
        unproven_from: the first entry that no signed head was found to cover; `entries` where all are.
        seen: the head that an earlier verification saw, and whether this log goes on from it; `None` for
            the second where that could not be told.
    """

    findings: tuple[Finding, ...]
    entries: int
    first: int
    parts: int
    signatures: int
    head: Checkpoint | None
    note: str
    unproven_from: int
    seen: Checkpoint | None
    goes_on: bool | None

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong with what was read, and every entry is under a signed head."""
        return not self.findings and self.unproven_from == self.entries

    @property
    def is_older(self) -> bool:
        """Whether this is a copy that was made before what was seen."""
        return self.seen is not None and self.seen.size > self.entries

    @property
    def is_whole(self) -> bool:
        """Whether the log was read from its first entry on."""
        return self.first == 0
