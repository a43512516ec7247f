"""Names by their digests: where each stands, in 40 bytes or so, however long the name is.

A name is known by the first 16 bytes of its SHA-256. The same name has the same digest, so one that was added
is never taken for new. The other way round two names would have to share 128 bits: whoever wants that must
make 2^64 names first, and then has one of his own two taken for the other.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator
from itertools import islice

DIGEST_BYTES = 16
_SMALL = 64
"""So many are kept in a dict: most who name something name little."""
_LARGEST = 16_384
_HALF = 64
_MASK = (1 << _HALF) - 1


def digest_of(name: str) -> int:
    """By what a name is known."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:DIGEST_BYTES], "big")


class _Table:
    """A hash table of fixed size, open addressing: both halves of a digest and the index, 8 bytes each."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._cells = array("Q", bytes(24 * places))
        self._room = places * 2 // 3

    @property
    def is_full(self) -> bool:
        """Whether one more would make looking slow."""
        return not self._room

    def find(self, digest: int) -> int | None:
        """Where the name of this digest stands."""
        at = self._cell(digest)
        return self._cells[at + 2] - 1 if self._cells[at + 2] else None

    def add(self, digest: int, index: int) -> None:
        """Take in a name that is not there."""
        at = self._cell(digest)
        self._cells[at], self._cells[at + 1] = digest >> _HALF, digest & _MASK
        self._cells[at + 2] = index + 1  # nothing is 0
        self._room -= 1

    def items(self) -> Iterator[tuple[int, int]]:
        """Each digest with its index."""
        for at in range(0, 3 * self._places, 3):
            if self._cells[at + 2]:
                yield self._cells[at] << _HALF | self._cells[at + 1], self._cells[at + 2] - 1

    def _cell(self, digest: int) -> int:
        """Where a digest is, or else the free cell where it would be."""
        high, low, cells, end = digest >> _HALF, digest & _MASK, self._cells, 3 * self._places
        at = 3 * (digest % self._places)
        while cells[at + 2] and (cells[at + 1] != low or cells[at] != high):
            at = (at + 3) % end
        return at


class Digested:
    """Where names stand. A table that is full stays, and another follows, so that none is ever moved."""

    __slots__ = ("_count", "_small", "_tables")

    def __init__(self) -> None:
        self._small: dict[int, int] = {}
        self._tables: list[_Table] = []
        self._count = 0

    def __len__(self) -> int:
        """How many names are known."""
        return self._count

    def find(self, digest: int) -> int | None:
        """Where the name of this digest stands; `None` where it is not known."""
        found = self._small.get(digest)
        if found is not None:
            return found
        for table in reversed(self._tables):
            found = table.find(digest)
            if found is not None:
                return found
        return None

    def add(self, digest: int, index: int) -> None:
        """Take in where a name stands; one that is known stays where it was found first."""
        if self.find(digest) is not None:
            return
        self._count += 1
        if len(self._small) < _SMALL:
            self._small[digest] = index
            return
        if not self._tables or self._tables[-1].is_full:
            self._tables.append(_Table(min(_SMALL << 2 * (len(self._tables) + 1), _LARGEST)))
        self._tables[-1].add(digest, index)

    def items(self) -> Iterator[tuple[int, int]]:
        """Each digest with its index."""
        yield from self._small.items()
        for table in self._tables:
            yield from table.items()

    def newest(self, count: int) -> list[tuple[int, int]]:
        """The digests of the largest indices, the largest first."""
        return list(islice(sorted(self.items(), key=lambda item: -item[1]), count))
