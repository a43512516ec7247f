"""The tree against RFC 6962: its definition, written down as it reads, and answers that others computed."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilot_identity.core.audit.merkle import EMPTY_ROOT, Frontier, leaf_hash, node_hash

LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
"""Certificate Transparency's reference answers for the first 0 to 8 of `LEAVES`."""


def tree_hash(entries: list[bytes]) -> bytes:
    """RFC 6962 §2.1, as it is defined: split at the largest power of two below the size."""
    match entries:
        case []:
            return hashlib.sha256(b"").digest()
        case [entry]:
            return hashlib.sha256(b"\x00" + entry).digest()
    split = 1 << ((len(entries) - 1).bit_length() - 1)
    left, right = tree_hash(entries[:split]), tree_hash(entries[split:])
    return hashlib.sha256(b"\x01" + left + right).digest()


def grown(entries: list[bytes]) -> Frontier:
    """A frontier with these entries."""
    frontier = Frontier()
    for entry in entries:
        frontier.append(leaf_hash(entry))
    return frontier


@pytest.mark.parametrize("size", range(len(ROOTS)))
def test_roots_are_the_known_ones(size: int) -> None:
    """The first entries of the reference log have the reference roots, here and by the definition."""
    assert grown(LEAVES[:size]).root().hex() == tree_hash(LEAVES[:size]).hex() == ROOTS[size]


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=4), max_size=70))
def test_growing_agrees_with_the_definition(entries: list[bytes]) -> None:
    """However many entries, the frontier's root is that of the recursive definition."""
    frontier = grown(entries)
    assert frontier.size == len(entries)
    assert frontier.root() == tree_hash(entries)


def test_every_size_around_powers_of_two_agrees_with_the_definition() -> None:
    """Carries are where an incremental tree goes wrong."""
    entries = [number.to_bytes(2, "big") for number in range(260)]
    frontier = Frontier()
    for size, entry in enumerate(entries, start=1):
        frontier.append(leaf_hash(entry))
        if size < 10 or (size & (size - 1)) == 0 or ((size + 1) & size) == 0 or (size - 1) & (size - 2) == 0:
            assert frontier.root() == tree_hash(entries[:size]), size


def test_a_leaf_is_never_a_node() -> None:
    """Two hashes as an entry do not hash to the node above them (second preimage)."""
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    assert leaf_hash(left + right) != node_hash(left, right)
    assert leaf_hash(b"") != EMPTY_ROOT


@given(st.lists(st.binary(max_size=2), max_size=20), st.binary(max_size=2))
def test_a_copy_grows_apart(entries: list[bytes], more: bytes) -> None:
    """What is appended to a copy leaves the original."""
    original = grown(entries)
    root = original.root()
    copy = original.copy()
    copy.append(leaf_hash(more))
    assert (original.size, original.root()) == (len(entries), root)
    assert copy.root() == tree_hash([*entries, more])


@pytest.mark.parametrize("size, subtrees", [(0, 1), (1, 0), (3, 1), (4, 2), (7, 2)])
def test_a_frontier_has_one_subtree_for_each_set_bit(size: int, subtrees: int) -> None:
    """A frontier that could not be is refused when it is made."""
    with pytest.raises(
        ValueError, match=f"size {size} has {size.bit_count()} perfect subtrees, got {subtrees}"
    ):
        Frontier(size, [EMPTY_ROOT] * subtrees)
