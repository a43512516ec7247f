"""Proofs over the tree: that an entry is in it, and that a later tree is an earlier one with more behind.

Making them follows RFC 6962 §2.1.1 and §2.1.2 as they are defined. Verifying them follows RFC 9162 §2.1.3.2
and §2.1.4.2, which walk the proof from the leaf up and need nothing but the proof; so the two halves are
written from different texts, and a mistake in one does not hide in the other.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence

from pilot_identity.core.audit.merkle import EMPTY_ROOT, Frontier, node_hash


class ProofError(ValueError):
    """A proof does not prove what it claims, or was asked of a tree that has no such proof."""


class Tree:
    """A tree in memory, grown at its right edge: 64 bytes for each entry.

    `_levels[k][i]` is the root of the perfect subtree over the entries from `i·2^k` to `(i+1)·2^k`. A tree
    that begins at its right edge has at level k only what lies from `(start >> k) & ~1` on. That is enough
    for every root, proof and further entry from `start` on: the node to the left of a path there ends either
    beyond `start` or exactly where a bit of `start` is set, and then it is part of the edge.
    """

    def __init__(self, leaves: Iterable[bytes] = (), *, start: int = 0, edge: Sequence[bytes] = ()) -> None:
        """Grow a tree from `leaves`, behind `start` entries of which only the right edge is known.

        Args:
            leaves: the hashes of the entries from `start` on.
            start: how many entries are before them.
            edge: the roots of the perfect subtrees over those, the largest first.

        Raises:
            ProofError: that many entries have another number of perfect subtrees.
        """
        if len(edge) != start.bit_count():
            raise ProofError(
                f"a tree of {start} entries has {start.bit_count()} perfect subtrees, got {len(edge)}"
            )
        self.start = start
        roots = list(edge)
        self._levels: list[list[bytes]] = [
            [roots.pop()] if start >> level & 1 else [] for level in range(max(start.bit_length(), 1))
        ]
        for leaf in leaves:
            self.append(leaf)

    @classmethod
    def beginning(cls, start: int, edge: Sequence[bytes]) -> Tree:
        """The tree of `start` entries of which only the right edge is known."""
        return cls(start=start, edge=edge)

    @property
    def size(self) -> int:
        """How many entries the tree has."""
        return self._absent(0) + len(self._levels[0])

    def leaf(self, index: int) -> bytes:
        """The hash of one entry."""
        return self._node(0, index)

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash at the right, and every perfect subtree that it completes."""
        level, node = 0, leaf
        while True:
            nodes = self._levels[level]
            nodes.append(node)
            if len(nodes) & 1:
                return
            node = node_hash(nodes[-2], nodes[-1])
            level += 1
            if level == len(self._levels):
                self._levels.append([])

    def perfect(self, level: int, index: int) -> bytes:
        """The root of the `index`-th perfect subtree over `2^level` entries."""
        return self._node(level, index)

    def frontier(self) -> Frontier:
        """The right edge as it is; it grows apart from this tree."""
        return Frontier(self.size, self.subtrees(0, self.size))

    def truncate(self, size: int) -> None:
        """Forget every entry from `size` on."""
        self._require(size)
        for level, nodes in enumerate(self._levels):
            del nodes[(size >> level) - self._absent(level) :]

    def root(self, size: int | None = None) -> bytes:
        """The root of the tree as it was at `size`, by default as it is.

        Raises:
            ProofError: it never had that size.
        """
        size = self.size if size is None else size
        self._require(size)
        return join(self.subtrees(0, size))

    def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        """The audit path of an entry in the tree at `size`, from its sibling up (RFC 6962 §2.1.1).

        Raises:
            ProofError: the tree at that size has no such entry.
        """
        self._require(size)
        if not 0 <= index < size:
            raise ProofError(f"a tree of size {size} has no entry {index}")
        path: list[bytes] = []
        start, end = 0, size
        while end - start > 1:
            split = start + _split(end - start)
            if index < split:
                path.append(self._range(split, end))
                end = split
            else:
                path.append(self._range(start, split))
                start = split
        return tuple(reversed(path))

    def consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        """The proof that the tree at `new` begins with the tree at `old` (RFC 6962 §2.1.2).

        Raises:
            ProofError: the sizes are not 0 < old ≤ new ≤ the tree's.
        """
        self._require(new)
        if not 0 < old <= new:
            raise ProofError(f"a consistency proof goes from a size in 1…{new} to {new}, got {old}")
        path: list[bytes] = []
        start, end, is_whole = 0, new, True
        while old != end:
            split = start + _split(end - start)
            if old <= split:
                path.append(self._range(split, end))
                end = split
            else:
                path.append(self._range(start, split))
                start, is_whole = split, False
        if not is_whole:  # otherwise the verifier has this hash: it is the old root
            path.append(self._range(start, end))
        return tuple(reversed(path))

    def subtrees(self, start: int, end: int) -> list[bytes]:
        """The roots of the perfect subtrees that make up a range of entries, left to right.

        `start` is a multiple of the power of two at or above the range's length. That holds for every range
        that the definition splits off, so each perfect subtree inside lies on its own level's grid.
        """
        roots: list[bytes] = []
        while start < end:
            level = (end - start).bit_length() - 1
            roots.append(self._node(level, start >> level))
            start += 1 << level
        return roots

    def _range(self, start: int, end: int) -> bytes:
        """The RFC's MTH(D[start:end])."""
        return join(self.subtrees(start, end))

    def _absent(self, level: int) -> int:
        """How many nodes of a level lie before what is known; even, so that siblings stay siblings."""
        return self.start >> level & ~1

    def _node(self, level: int, index: int) -> bytes:
        at = index - self._absent(level)
        if at < 0:
            raise ProofError(f"what lies before entry {self.start} is not known but for its right edge")
        return self._levels[level][at]

    def _require(self, size: int) -> None:
        if not 0 <= size <= self.size:
            raise ProofError(f"the tree has {self.size} entries, it was never of size {size}")


def join(subtrees: Sequence[bytes]) -> bytes:
    """The root over perfect subtrees of falling size, joined from the right as the RFC splits."""
    if not subtrees:
        return EMPTY_ROOT
    *rest, node = subtrees
    for subtree in reversed(rest):
        node = node_hash(subtree, node)
    return node


def _split(size: int) -> int:
    """The largest power of two below `size`, where the RFC splits."""
    return 1 << ((size - 1).bit_length() - 1)


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Check that the entry with this leaf hash is number `index` of the tree (RFC 9162 §2.1.3.2).

    Raises:
        ProofError: it is not shown to be.
    """
    if not 0 <= index < size:
        raise ProofError(f"a tree of size {size} has no entry {index}")
    position, last, node = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            raise ProofError(f"the path of entry {index} in a tree of size {size} is too long")
        if position & 1 or position == last:
            node = node_hash(sibling, node)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        position, last = position >> 1, last >> 1
    if last:
        raise ProofError(f"the path of entry {index} in a tree of size {size} is too short")
    if not hmac.compare_digest(node, root):
        raise ProofError(f"the path of entry {index} leads to root {node.hex()}, not {root.hex()}")


def verify_consistency(old: int, new: int, path: Sequence[bytes], old_root: bytes, new_root: bytes) -> None:
    """Check that the tree of `new_root` begins with all of the tree of `old_root` (RFC 9162 §2.1.4.2).

    Every tree begins with the empty one, and a tree with itself; these two have an empty proof.

    Raises:
        ProofError: it is not shown to.
    """
    if not 0 <= old <= new:
        raise ProofError(f"a log only grows, got size {old} and then {new}")
    if old in {0, new}:
        _require_empty(old, new, path)
        _require_same(old_root, EMPTY_ROOT if old == 0 else new_root, f"the root at size {old}")
        return
    position, last = old - 1, new - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    hashes = list(path)
    # Where the old tree is one perfect subtree, its root is where the walk begins and is not in the proof.
    begin = old_root if old & (old - 1) == 0 else (hashes.pop(0) if hashes else b"")
    old_node = new_node = begin
    for sibling in hashes:
        if last == 0:
            raise ProofError(f"the proof from size {old} to {new} is too long")
        if position & 1 or position == last:
            old_node, new_node = node_hash(sibling, old_node), node_hash(sibling, new_node)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            new_node = node_hash(new_node, sibling)
        position, last = position >> 1, last >> 1
    if last:
        raise ProofError(f"the proof from size {old} to {new} is too short")
    _require_same(old_node, old_root, f"the old root, at size {old},")
    _require_same(new_node, new_root, f"the new root, at size {new},")


def _require_empty(old: int, new: int, path: Sequence[bytes]) -> None:
    if path:
        raise ProofError(f"the proof from size {old} to {new} is empty, got {len(path)} hashes")


def _require_same(proven: bytes, claimed: bytes, what: str) -> None:
    if not hmac.compare_digest(proven, claimed):
        raise ProofError(f"{what} is proven to be {proven.hex()}, not {claimed.hex()}")
