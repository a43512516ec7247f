from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot_identity.core.audit.growth import Growth
from pilot_identity.core.audit.merkle import EMPTY_ROOT, Frontier
from pilot_identity.core.audit.proofs import ProofError, Tree, verify_consistency

LEAVES = [hashlib.sha256(bytes([number])).digest() for number in range(80)]
TREE = Tree(LEAVES)


def grown(since: int, until: int = len(LEAVES)) -> Growth:
    """What is known from one size on."""
    growth = Growth(Frontier(since, TREE.subtrees(0, since)))
    for leaf in LEAVES[since:until]:
        growth.append(leaf)
    return growth


@given(st.lists(st.integers(0, len(LEAVES)), min_size=3, max_size=3).map(sorted))
def test_proofs_are_those_of_the_whole_tree(sizes: list[int]) -> None:
    """From any size on, between any two later ones."""
    since, old, new = sizes
    growth = grown(since)
    assert growth.root(new) == TREE.root(new)
    proof = growth.consistency(old, new)
    assert proof == (TREE.consistency(old, new) if old else ())
    verify_consistency(old, new, proof, TREE.root(old) if old else EMPTY_ROOT, TREE.root(new))


@given(st.lists(st.integers(0, len(LEAVES)), min_size=3, max_size=3).map(sorted))
def test_what_is_forgotten_is_not_needed_later(sizes: list[int]) -> None:
    """After it all is as if it had begun there."""
    since, start, old = sizes
    growth = grown(since)
    growth.forget(start)
    assert (growth.start, growth.size) == (start, len(LEAVES))
    if old:
        assert growth.consistency(old, len(LEAVES)) == TREE.consistency(old, len(LEAVES))
    growth.append(LEAVES[0])
    assert growth.root(81) == Tree([*LEAVES, LEAVES[0]]).root()


@pytest.mark.parametrize("old, new", [(9, 20), (10, 81), (30, 20)])
def test_a_proof_that_cannot_be_is_refused(old: int, new: int) -> None:
    """Before the beginning, beyond the end, backwards."""
    with pytest.raises(ProofError):
        grown(10).consistency(old, new)
