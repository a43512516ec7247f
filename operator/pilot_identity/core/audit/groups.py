"""Groups: how entries reach etcd, many with one write, and in one order.

A group's name is the size of the tree that it extends. A ConfigMap's name is unique, so for every size at
most one group exists: the API server itself orders the writers.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pilot_identity.core.audit.checkpoint import Checkpoint, LogSigner, LogVerifier
from pilot_identity.core.audit.merkle import Frontier, leaf_hash
from pilot_identity.core.audit.tiles import WIDTH

NAME_PREFIX = "audit-group-"
MAX_ENTRIES = 256
"""As many as a full entry bundle (C2SP tlog-tiles) has."""
MAX_BYTES = 786_432
"""Of entries: leaves room in a ConfigMap's 1 MiB for its metadata and checkpoint."""
_NAME = re.compile(rf"{NAME_PREFIX}(\d{{16}})")


class BrokenLogError(Exception):
    """The stored log contradicts itself; the message names the group and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Group:
    """Entries that were committed with one write, and the signed head over the log up to them."""

    extends: int
    entries: tuple[bytes, ...]
    note: str

    @property
    def name(self) -> str:
        """The ConfigMap's name; sixteen digits, so that names sort as sizes do."""
        return group_name(self.extends)

    @property
    def size(self) -> int:
        """The tree's size after this group."""
        return self.extends + len(self.entries)

    def digest(self) -> bytes:
        """SHA-256 of all that is stored of it: its head is signed, so no two are alike but in all."""
        stored = self.data()
        return hashlib.sha256("\n\n".join((self.name, *stored.values())).encode()).digest()

    def data(self) -> Mapping[str, str]:
        """The ConfigMap's data: entries one a line, and the checkpoint."""
        return {"entries": b"\n".join(self.entries).decode(), "checkpoint": self.note}

    @classmethod
    def from_data(cls, name: str, data: Mapping[str, str]) -> Group:
        """Read a group back from its ConfigMap.

        Raises:
            BrokenLogError: the name or the data is not a group's.
        """
        match = _NAME.fullmatch(name)
        if match is None or not data.get("entries") or not data.get("checkpoint"):
            raise BrokenLogError(f"{name}: a group has a size in its name, entries and a checkpoint")
        return cls(int(match[1]), tuple(data["entries"].encode().split(b"\n")), data["checkpoint"])


def group_name(size: int) -> str:
    """The name of the group that extends a tree of this size.

    >>> group_name(42)
    'audit-group-0000000000000042'
    """
    return f"{NAME_PREFIX}{size:016d}"


def bundle_of(groups: Iterable[Group], first: int) -> Sequence[bytes]:
    """The entries of the bundle from `first` on, out of groups that follow each other.

    Raises:
        BrokenLogError: the groups have not just these entries.
    """
    entries: list[bytes] = []
    for group in groups:
        entries += group.entries[max(0, first - group.extends) : max(0, first + WIDTH - group.extends)]
    if len(entries) != WIDTH:
        raise BrokenLogError(f"the groups from {first} on have {len(entries)} entries of {WIDTH}")
    return entries


def extended_by(name: str) -> int:
    """The size that the group of this name extends; the inverse of `group_name`.

    Raises:
        BrokenLogError: it is no group's name.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise BrokenLogError(f"{name}: a group has a size in its name")
    return int(match[1])


def take(waiting: Sequence[bytes]) -> int:
    """How many of the waiting entries fit into one group; at least one where any waits."""
    total = 0
    for count, entry in enumerate(waiting[:MAX_ENTRIES]):
        total += len(entry) + 1
        if count and total > MAX_BYTES:
            return count
    return min(len(waiting), MAX_ENTRIES)


def extend(frontier: Frontier, entries: Iterable[bytes], signer: LogSigner) -> tuple[Group, Frontier]:
    """Make the group that adds `entries` to the tree of `frontier`, and the frontier after it."""
    entries = tuple(entries)
    after = frontier.copy()
    for entry in entries:
        after.append(leaf_hash(entry))
    note = signer.sign(Checkpoint(signer.name, after.size, after.root()))
    return Group(frontier.size, entries, note), after


def follow(frontier: Frontier, group: Group, verifier: LogVerifier) -> Frontier:
    """Check that `group` extends the tree of `frontier` as its checkpoint says; return what follows.

    Raises:
        BrokenLogError: it extends another size, or its signed root is not that of the entries.
        CheckpointError: its checkpoint is not signed by the log's key.
    """
    if group.extends != frontier.size:
        raise BrokenLogError(f"{group.name}: the log goes on at size {frontier.size}; a group is missing")
    after = frontier.copy()
    for entry in group.entries:
        after.append(leaf_hash(entry))
    checkpoint = verifier.open(group.note)
    if (checkpoint.size, checkpoint.root) != (after.size, after.root()):
        raise BrokenLogError(
            f"{group.name}: its checkpoint says size {checkpoint.size} with root {checkpoint.root.hex()}; "
            f"its entries make size {after.size} with root {after.root().hex()}"
        )
    return after
