"""The tree over the entries: RFC 6962 §2.1, SHA-256, grown at its right edge."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(entry: bytes) -> bytes:
    """Hash an entry as a leaf; the prefix 0x00 keeps leaves and nodes apart (RFC 6962 §2.1)."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash two subtrees into their parent; the prefix is 0x01."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """The right edge of a tree: enough to append and to know the root, and no more.

    It holds one hash for each set bit of the size, the roots of the perfect subtrees from left to right, so
    that a log of a million entries is extended with twenty hashes in memory.
    """

    def __init__(self, size: int = 0, subtrees: Iterable[bytes] = ()) -> None:
        self._size = size
        self._subtrees = list(subtrees)
        if len(self._subtrees) != size.bit_count():
            raise ValueError(
                f"a tree of size {size} has {size.bit_count()} perfect subtrees, got {len(self._subtrees)}"
            )

    @property
    def size(self) -> int:
        """How many entries the tree has."""
        return self._size

    @property
    def subtrees(self) -> tuple[bytes, ...]:
        """The roots of its perfect subtrees, left to right."""
        return tuple(self._subtrees)

    def copy(self) -> Frontier:
        """Return a frontier that grows apart from this one."""
        return Frontier(self._size, self._subtrees)

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash at the right.

        Each trailing one of the size's bits is a perfect subtree as large as what is being added, so the
        two merge; that is binary addition's carry.
        """
        node, size = leaf, self._size
        while size & 1:
            node = node_hash(self._subtrees.pop(), node)
            size >>= 1
        self._subtrees.append(node)
        self._size += 1

    def root(self) -> bytes:
        """The tree's root: subtrees joined from the right, as RFC 6962 splits at the largest power of two."""
        if not self._subtrees:
            return EMPTY_ROOT
        *rest, node = self._subtrees
        for subtree in reversed(rest):
            node = node_hash(subtree, node)
        return node
