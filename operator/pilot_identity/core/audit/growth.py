"""Growth: what a log added since some size, and the proofs that it only added.

A consistency proof from a head to a later one needs the right edge of the tree as it was at the older head,
or before, and the hashes of what came since. The whole tree would be more than a writer keeps in memory.
"""

from __future__ import annotations

from pilot_identity.core.audit.merkle import Frontier
from pilot_identity.core.audit.proofs import ProofError, Tree


class Growth:
    """A log's tree from one size on, told leaf by leaf; about 150 bytes for each entry since."""

    def __init__(self, since: Frontier | None = None) -> None:
        self.begin(since or Frontier())

    def begin(self, since: Frontier) -> None:
        """Forget all, and know the tree from this edge on."""
        self._tree = Tree.beginning(since.size, since.subtrees)

    @property
    def start(self) -> int:
        """The size from which on it is known."""
        return self._tree.start

    @property
    def size(self) -> int:
        """How many entries the tree has."""
        return self._tree.size

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash at the right."""
        self._tree.append(leaf)

    def forget(self, size: int) -> None:
        """Forget what is known of the tree before `size`.

        Raises:
            ProofError: that is not known.
        """
        self._require(size)
        leaves = [self._tree.leaf(index) for index in range(size, self.size)]
        self.begin(Frontier(size, self._tree.subtrees(0, size)))
        for leaf in leaves:
            self.append(leaf)

    def root(self, size: int) -> bytes:
        """The tree's root as it was at `size`.

        Raises:
            ProofError: that is not known.
        """
        self._require(size)
        return self._tree.root(size)

    def consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        """The proof that the tree at `new` begins with the tree at `old` (RFC 6962 §2.1.2).

        From the empty tree, and from a tree to itself, the proof is empty.

        Raises:
            ProofError: one of the sizes is not known, or `old` is the larger.
        """
        self._require(new)
        if old == 0:
            return ()
        self._require(old)
        return self._tree.consistency(old, new)

    def _require(self, size: int) -> None:
        if not self.start <= size <= self.size:
            raise ProofError(f"the tree is known from size {self.start} to {self.size}, not at {size}")
