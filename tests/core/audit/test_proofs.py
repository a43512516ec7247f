"""Proofs against RFC 6962's recursive definitions, written down as they read."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot_identity.core.audit.merkle import EMPTY_ROOT, Frontier, leaf_hash
from pilot_identity.core.audit.proofs import (
    ProofError,
    Tree,
    verify_consistency,
    verify_inclusion,
)

MOST = 600
"""Past two tiles, so past every shape that a tile's height can make."""
ENTRIES = [number.to_bytes(2, "big") for number in range(MOST)]
TREE = Tree(leaf_hash(entry) for entry in ENTRIES)


def split(size: int) -> int:
    """The largest power of two smaller than `size`."""
    power = 1
    while power * 2 < size:
        power *= 2
    return power


def mth(entries: list[bytes]) -> bytes:
    """RFC 6962 §2.1, MTH."""
    if not entries:
        return hashlib.sha256(b"").digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    k = split(len(entries))
    return hashlib.sha256(b"\x01" + mth(entries[:k]) + mth(entries[k:])).digest()


def path(m: int, entries: list[bytes]) -> list[bytes]:
    """RFC 6962 §2.1.1, PATH."""
    if len(entries) == 1:
        return []
    k = split(len(entries))
    if m < k:
        return [*path(m, entries[:k]), mth(entries[k:])]
    return [*path(m - k, entries[k:]), mth(entries[:k])]


def subproof(m: int, entries: list[bytes], *, is_whole: bool) -> list[bytes]:
    """RFC 6962 §2.1.2, SUBPROOF."""
    if m == len(entries):
        return [] if is_whole else [mth(entries)]
    k = split(len(entries))
    if m <= k:
        return [*subproof(m, entries[:k], is_whole=is_whole), mth(entries[k:])]
    return [*subproof(m - k, entries[k:], is_whole=False), mth(entries[:k])]


sizes = st.integers(1, MOST)


@st.composite
def places(draw: st.DrawFn) -> tuple[int, int]:
    """An index, and the size of a tree that has it."""
    size = draw(sizes)
    return draw(st.integers(0, size - 1)), size


@st.composite
def growths(draw: st.DrawFn) -> tuple[int, int]:
    """A size, and one that is not smaller."""
    new = draw(sizes)
    return draw(st.integers(1, new)), new


@given(sizes)
def test_roots_are_those_of_the_definition(size: int) -> None:
    """The tree knows its root at every size that it had."""
    assert TREE.root(size) == mth(ENTRIES[:size])


def test_the_empty_tree_has_the_hash_of_nothing() -> None:
    """RFC 6962 §2.1: MTH({}) = SHA-256()."""
    assert Tree().root() == TREE.root(0) == mth([]) == EMPTY_ROOT


@given(places())
def test_inclusion_proofs_are_those_of_the_definition(place: tuple[int, int]) -> None:
    """And they verify."""
    index, size = place
    proof = TREE.inclusion(index, size)
    assert list(proof) == path(index, ENTRIES[:size])
    verify_inclusion(leaf_hash(ENTRIES[index]), index, size, proof, TREE.root(size))


@given(growths())
def test_consistency_proofs_are_those_of_the_definition(growth: tuple[int, int]) -> None:
    """And they verify."""
    old, new = growth
    proof = TREE.consistency(old, new)
    assert list(proof) == subproof(old, ENTRIES[:new], is_whole=True)
    verify_consistency(old, new, proof, TREE.root(old), TREE.root(new))


def test_every_proof_of_small_trees_is_that_of_the_definition() -> None:
    """Where hypothesis may not look: all of them, to 40 entries."""
    for size in range(1, 41):
        for at in range(size):
            verify_inclusion(leaf_hash(ENTRIES[at]), at, size, path(at, ENTRIES[:size]), mth(ENTRIES[:size]))
            proof = subproof(at + 1, ENTRIES[:size], is_whole=True)
            verify_consistency(at + 1, size, proof, mth(ENTRIES[: at + 1]), mth(ENTRIES[:size]))
            assert list(TREE.inclusion(at, size)) == path(at, ENTRIES[:size])
            assert list(TREE.consistency(at + 1, size)) == proof


@given(places(), st.data())
def test_no_other_inclusion_is_proven(place: tuple[int, int], data: st.DataObject) -> None:
    """A proof proves one entry at one place in one tree; with any part of it another, it proves nothing."""
    index, size = place
    proof, root, leaf = list(TREE.inclusion(index, size)), TREE.root(size), leaf_hash(ENTRIES[index])
    other = data.draw(st.integers(0, MOST - 1).filter(lambda it: it != index))
    with pytest.raises(ProofError):
        verify_inclusion(leaf_hash(ENTRIES[other]), index, size, proof, root)
    with pytest.raises(ProofError):
        verify_inclusion(leaf, other, size, proof, root)
    with pytest.raises(ProofError):
        verify_inclusion(leaf, index, size, [*proof, leaf], root)
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        with pytest.raises(ProofError):
            verify_inclusion(leaf, index, size, [*proof[:at], *proof[at + 1 :]], root)
        with pytest.raises(ProofError):
            verify_inclusion(leaf, index, size, [*proof[:at], leaf[::-1], *proof[at + 1 :]], root)


@given(growths(), st.data())
def test_no_other_consistency_is_proven(growth: tuple[int, int], data: st.DataObject) -> None:
    """A proof joins two trees; with any part of it another, it joins none."""
    old, new = growth
    proof, before, after = list(TREE.consistency(old, new)), TREE.root(old), TREE.root(new)
    false = leaf_hash(b"false")
    with pytest.raises(ProofError):
        verify_consistency(old, new, proof, false, after)
    with pytest.raises(ProofError):
        verify_consistency(old, new, proof, before, false)
    with pytest.raises(ProofError):
        verify_consistency(old, new, [*proof, false], before, after)
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        with pytest.raises(ProofError):
            verify_consistency(old, new, [*proof[:at], *proof[at + 1 :]], before, after)
        with pytest.raises(ProofError):
            verify_consistency(old, new, [*proof[:at], false, *proof[at + 1 :]], before, after)


def test_every_log_goes_on_from_the_empty_one() -> None:
    """Whoever saw nothing is owed nothing; but what he saw was the empty root."""
    verify_consistency(0, 5, [], EMPTY_ROOT, TREE.root(5))
    with pytest.raises(ProofError, match="at size 0"):
        verify_consistency(0, 5, [], TREE.root(1), TREE.root(5))
    with pytest.raises(ProofError, match="is empty"):
        verify_consistency(0, 5, [EMPTY_ROOT], EMPTY_ROOT, TREE.root(5))


IMPOSSIBLE = {
    "an entry that is not there": lambda: TREE.inclusion(5, 5),
    "an entry below none": lambda: TREE.inclusion(-1, 5),
    "a size that never was": lambda: TREE.inclusion(0, MOST + 1),
    "a root that never was": lambda: TREE.root(MOST + 1),
    "a log that shrank": lambda: TREE.consistency(6, 5),
    "a proof from nothing": lambda: TREE.consistency(0, 5),
    "a verified entry beyond the end": lambda: verify_inclusion(EMPTY_ROOT, 5, 5, [], EMPTY_ROOT),
    "a verified log that shrank": lambda: verify_consistency(6, 5, [], EMPTY_ROOT, EMPTY_ROOT),
    "a verified log of no size": lambda: verify_consistency(-1, 5, [], EMPTY_ROOT, EMPTY_ROOT),
}


@pytest.mark.parametrize("ask", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_what_no_tree_has_is_not_proven(ask: object) -> None:
    """The message says which size or index it is."""
    with pytest.raises(ProofError):
        ask()  # type: ignore[operator]


@given(sizes, sizes)
def test_a_truncated_tree_is_the_tree_that_it_was(size: int, more: int) -> None:
    """And it grows on as if nothing else had been."""
    tree = Tree(leaf_hash(entry) for entry in ENTRIES[:size])
    for entry in ENTRIES[:more]:
        tree.append(leaf_hash(entry))
    tree.truncate(size)
    assert tree.size == size
    for entry in ENTRIES[size:]:
        tree.append(leaf_hash(entry))
    assert tree.root() == TREE.root()


@given(st.integers(0, MOST))
def test_its_edge_is_the_frontier(size: int) -> None:
    """Both ways of keeping the tree agree."""
    tree, frontier = Tree(), Frontier()
    for entry in ENTRIES[:size]:
        tree.append(leaf_hash(entry))
        frontier.append(leaf_hash(entry))
    assert tree.frontier().root() == frontier.root() == tree.root()
