from __future__ import annotations

from collections.abc import Sequence

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilot_identity.core.audit.chain import GRACE_SECONDS, Chain, Standing
from pilot_identity.core.audit.checkpoint import LogSigner
from pilot_identity.core.audit.compacted import Compacted, compact
from pilot_identity.core.audit.groups import BrokenLogError, Group, extend
from pilot_identity.core.audit.merkle import Frontier

SIGNER = LogSigner("pilots.example.org/log", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
VERIFIER = SIGNER.verifier()
ENTRIES = [f"entry {number}".encode() for number in range(700)]


def grouped() -> list[Group]:
    """The log in groups of a hundred."""
    frontier, groups = Frontier(), list[Group]()
    for at in range(0, len(ENTRIES), 100):
        group, frontier = extend(frontier, ENTRIES[at : at + 100], SIGNER)
        groups.append(group)
    return groups


GROUPS = grouped()


def bundle(first: int, edge: tuple[bytes, ...] = (), entries: list[bytes] = ENTRIES) -> Compacted:
    """The log's bundle from `first` on."""
    return compact(first, edge, entries[first : first + 256], SIGNER)


def standing(group: Group, since: float = 0.0) -> Standing:
    """Where a group stands."""
    return Standing(group.extends, group.size, f"uid-{group.extends}", since)


def chain_of(*groups: Group) -> Chain:
    """A writer that has seen these groups."""
    chain = Chain()
    for group in groups:
        chain.add(group, standing(group), VERIFIER)
    return chain


def extends(found: Sequence[Standing]) -> list[int]:
    """Which groups these are."""
    return [one.extends for one in found]


def test_a_bundle_is_due_when_all_its_groups_have_stood_for_long() -> None:
    """The one over its end too."""
    chain = chain_of(*GROUPS[:2])
    assert not chain.due(GRACE_SECONDS, most=100)
    chain.add(GROUPS[2], standing(GROUPS[2], since=1.0), VERIFIER)
    assert not chain.due(GRACE_SECONDS, most=100)
    assert [extends(one) for one in chain.due(GRACE_SECONDS + 1, most=100)] == [[0, 100, 200]]


def test_several_bundles_are_due_as_far_as_their_groups_have_stood_and_are_not_too_many() -> None:
    """The first is, however many groups it has; a group over an edge is one of both."""
    chain = chain_of(*GROUPS[:5])
    both = [[0, 100, 200], [200, 300, 400]]
    assert not chain.is_behind(GRACE_SECONDS)
    chain.add(GROUPS[5], standing(GROUPS[5], since=1.0), VERIFIER)
    assert [extends(one) for one in chain.due(GRACE_SECONDS, most=6)] == both[:1]
    assert not chain.is_behind(GRACE_SECONDS)
    both[1].append(500)
    assert [extends(one) for one in chain.due(GRACE_SECONDS + 1, most=6)] == both
    assert [extends(one) for one in chain.due(GRACE_SECONDS + 1, most=5)] == both[:1]
    assert [extends(one) for one in chain.due(GRACE_SECONDS + 1, most=0)] == both[:1]
    assert chain.is_behind(GRACE_SECONDS + 1)
    chain.seal(bundle(0))
    assert [extends(one) for one in chain.due(GRACE_SECONDS + 1, most=0)] == both[1:]
    assert not chain.is_behind(GRACE_SECONDS + 1)


def test_groups_go_when_they_are_in_bundles_and_the_newest_never() -> None:
    """The one over the edge stays until the next bundle."""
    chain = chain_of(*GROUPS)
    first = bundle(0)
    chain.seal(first)
    assert extends(chain.spent(GRACE_SECONDS)) == [0, 100]
    assert not chain.spent(GRACE_SECONDS - 1)
    for one in chain.spent(GRACE_SECONDS):
        chain.gone(one)
    chain.seal(bundle(256, first.edge))
    assert extends(chain.spent(GRACE_SECONDS)) == [200, 300, 400]
    exact = Chain()
    group, _ = extend(Frontier(), ENTRIES[:256], SIGNER)
    exact.add(group, standing(group), VERIFIER)
    exact.seal(first)
    assert not exact.spent(GRACE_SECONDS)


def test_a_log_is_taken_up_behind_its_last_bundle() -> None:
    """Over what is compacted and left, and into the group over the edge."""
    chain = Chain()
    chain.begin_at(bundle(0), VERIFIER)
    assert [len(chain.add(group, standing(group), VERIFIER)) for group in GROUPS[:4]] == [0, 0, 44, 100]
    assert chain.frontier.root() == chain_of(*GROUPS[:4]).frontier.root()


def test_a_writer_that_slept_goes_on_over_a_bundle() -> None:
    """From wherever it was in it."""
    chain = chain_of(GROUPS[0])
    assert chain.pass_over(bundle(0), VERIFIER) == tuple(ENTRIES[100:256])
    assert (chain.size, chain.sealed) == (256, 256)


FORGED = [*ENTRIES[:7], b"another", *ENTRIES[8:]]


def test_another_history_is_refused_everywhere() -> None:
    """A bundle of other entries, or one that is not the next, is neither made nor followed."""
    forged = bundle(0, entries=FORGED)
    with pytest.raises(BrokenLogError, match="not what was committed"):
        chain_of(*GROUPS).seal(forged)
    with pytest.raises(BrokenLogError, match="not what was committed"):
        chain_of(*GROUPS).seal(bundle(256, bundle(0).edge))
    with pytest.raises(BrokenLogError, match="contradicts"):
        chain_of(GROUPS[0]).pass_over(forged, VERIFIER)
    with pytest.raises(BrokenLogError, match="goes on at 300"):
        chain_of(*GROUPS[:3]).pass_over(bundle(0), VERIFIER)
    wrong_edge = Compacted(0, forged.entries, forged.leaves, forged.edge, bundle(0).note)
    with pytest.raises(BrokenLogError, match="signed head"):
        Chain().begin_at(wrong_edge, VERIFIER)
    behind = Chain()
    behind.begin_at(forged, VERIFIER)
    with pytest.raises(BrokenLogError, match="its checkpoint says"):
        behind.add(GROUPS[2], standing(GROUPS[2]), VERIFIER)


def test_a_group_must_follow_the_one_before() -> None:
    """Neither a gap nor an overlap is taken."""
    with pytest.raises(BrokenLogError, match="a group is missing"):
        chain_of(GROUPS[0], GROUPS[2])
    overlap = Group(50, tuple(ENTRIES[50:150]), GROUPS[1].note)
    with pytest.raises(BrokenLogError, match="a group is missing"):
        chain_of(GROUPS[0], overlap)


def test_a_stray_goes_at_once_and_is_in_no_bundle() -> None:
    """However young it is."""
    chain = Chain()
    chain.begin_at(bundle(0), VERIFIER)
    chain.stray(Standing(100, 120, "uid", since=1000.0))
    assert extends(chain.spent(0.0)) == [100]
    assert not chain.due(1e9, most=100)
