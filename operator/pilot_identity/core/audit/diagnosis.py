"""Finds out in which way a part of a log is broken, once it is known that it is."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from pilot_identity.core.audit.checkpoint import CheckpointError, LogVerifier, signatures_by, split_note
from pilot_identity.core.audit.findings import Flaw
from pilot_identity.core.audit.merkle import Frontier

_MOST_TRIES = 4_000
"""All pairs of a group of 89 entries, or neighbours in the largest; about a second."""


def why_not_ours(note: str, verifier: LogVerifier) -> Flaw:
    """Tell why `verifier` does not open a note: another log's, another key's, or spoilt."""
    try:
        body, lines = split_note(note)
    except CheckpointError:
        return Flaw.UNREADABLE
    if body.split("\n", 1)[0] != verifier.name:
        return Flaw.WRONG_ORIGIN
    identifier = bytes.fromhex(str(verifier).split("+", 2)[1])
    return Flaw.BAD_SIGNATURE if signatures_by(lines, verifier.name, identifier) else Flaw.FOREIGN_KEY


def swapped(before: Frontier, leaves: Sequence[bytes], root: bytes) -> tuple[int, int] | None:
    """The two positions whose exchange makes the tree have `root`, if that is all that is wrong.

    Tries neighbours first, then pairs further apart, within a bound: a group's head is the only witness of
    its order until a tile stands over it.
    """
    pairs = sorted(combinations(range(len(leaves)), 2), key=lambda pair: pair[1] - pair[0])
    for left, right in pairs[: max(_MOST_TRIES, 1)]:
        tried = list(leaves)
        tried[left], tried[right] = leaves[right], leaves[left]
        frontier = before.copy()
        for leaf in tried:
            frontier.append(leaf)
        if frontier.root() == root:
            return left, right
    return None
