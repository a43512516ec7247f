from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from pilot_identity.core.audit.checkpoint import CheckpointError, LogSigner
from pilot_identity.core.audit.groups import (
    MAX_BYTES,
    MAX_ENTRIES,
    BrokenLogError,
    Group,
    bundle_of,
    extend,
    follow,
    group_name,
    take,
)
from pilot_identity.core.audit.merkle import Frontier

SIGNER = LogSigner("pilots.example.org/log", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
STRANGER = LogSigner("pilots.example.org/log", Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))

entry = st.binary(min_size=1, max_size=6).map(bytes.hex).map(str.encode)
histories = st.lists(st.lists(entry, min_size=1, max_size=5), min_size=1, max_size=8)


def written(history: list[list[bytes]], signer: LogSigner = SIGNER) -> list[Group]:
    """The groups of a log that was written so."""
    frontier, groups = Frontier(), []
    for entries in history:
        group, frontier = extend(frontier, entries, signer)
        groups.append(group)
    return groups


def read(groups: list[Group]) -> Frontier:
    """What a reader that checks everything has at the end."""
    frontier = Frontier()
    for group in groups:
        frontier = follow(frontier, group, SIGNER.verifier())
    return frontier


@given(histories)
def test_a_reader_follows_what_a_writer_extended(history: list[list[bytes]]) -> None:
    """Writer and reader end at the same size and root, and the entries are the same."""
    frontier = Frontier()
    for entries in history:
        group, frontier = extend(frontier, entries, SIGNER)
    groups = written(history)
    last = read(groups)
    assert (last.size, last.root()) == (frontier.size, frontier.root())
    assert [one for group in groups for one in group.entries] == [one for each in history for one in each]
    assert group.size == last.size


@given(histories)
def test_a_group_survives_its_config_map(history: list[list[bytes]]) -> None:
    """Writing a group out and reading it back are inverse, and names sort as sizes do."""
    groups = written(history)
    assert [Group.from_data(group.name, group.data()) for group in groups] == groups
    names = [group.name for group in groups]
    assert sorted(names) == names == [group_name(group.extends) for group in groups]


def test_extending_leaves_the_frontier_that_it_began_with() -> None:
    """A write that fails has changed nothing."""
    before = Frontier()
    extend(before, [b"a"], SIGNER)
    assert before.size == 0


LOG = written([[b"a0", b"a1"], [b"b0", b"b1", b"b2"], [b"c0"]])
OTHER = written([[b"a0", b"a1"], [b"x0", b"x1", b"x2"], [b"c0"]])

TAMPERED: Mapping[str, tuple[Callable[[list[Group]], list[Group]], str]] = {
    "a group dropped": (lambda log: [log[0], log[2]], "goes on at size 2; a group is missing"),
    "the first group dropped": (lambda log: log[1:], "goes on at size 0; a group is missing"),
    "two groups swapped": (lambda log: [log[1], log[0], log[2]], "a group is missing"),
    "a group twice": (lambda log: [log[0], log[0]], "goes on at size 2"),
    "an entry flipped": (
        lambda log: [log[0], dataclasses.replace(log[1], entries=(b"b0", b"B1", b"b2"))],
        "its entries make size 5 with root",
    ),
    "two entries swapped": (
        lambda log: [log[0], dataclasses.replace(log[1], entries=(b"b1", b"b0", b"b2"))],
        "its entries make size 5 with root",
    ),
    "an entry dropped": (
        lambda log: [log[0], dataclasses.replace(log[1], entries=log[1].entries[:2])],
        "says size 5 .* entries make size 4",
    ),
    "an entry added": (
        lambda log: [log[0], dataclasses.replace(log[1], entries=(*log[1].entries, b"b3"))],
        "says size 5 .* entries make size 6",
    ),
    "an earlier checkpoint": (
        lambda log: [log[0], dataclasses.replace(log[1], note=log[0].note)],
        "says size 2",
    ),
    "a group of another history": (lambda log: [log[0], OTHER[1], log[2]], "its checkpoint says size 6"),
}


@pytest.mark.parametrize("tamper, message", TAMPERED.values(), ids=TAMPERED)
def test_a_log_that_was_tampered_with_does_not_read(
    tamper: Callable[[list[Group]], list[Group]], message: str
) -> None:
    """The message names the group and says both what is stored and what follows from it."""
    with pytest.raises(BrokenLogError, match=rf"audit-group-\d{{16}}: .*{message}"):
        read(tamper(LOG))


def test_a_log_under_another_key_does_not_read() -> None:
    """Whoever writes to etcd without the key forges nothing."""
    with pytest.raises(CheckpointError, match="no valid signature"):
        read(written([[b"a"]], STRANGER))


@settings(max_examples=200)
@given(histories, st.data())
def test_no_single_change_goes_unseen(history: list[list[bytes]], data: st.DataObject) -> None:
    """Any entry replaced by another one anywhere is found."""
    groups = written(history)
    at = data.draw(st.integers(0, len(groups) - 1))
    entries = list(groups[at].entries)
    place = data.draw(st.integers(0, len(entries) - 1))
    entries[place] = data.draw(entry.filter(lambda other: other != entries[place]))
    groups[at] = dataclasses.replace(groups[at], entries=tuple(entries))
    with pytest.raises(BrokenLogError):
        read(groups)


NO_GROUPS: Mapping[str, tuple[str, dict[str, str]]] = {
    "a foreign name": ("kube-root-ca.crt", {"entries": "a", "checkpoint": "b"}),
    "a size of fifteen digits": ("audit-group-000000000000000", {"entries": "a", "checkpoint": "b"}),
    "a size of seventeen digits": ("audit-group-00000000000000000", {"entries": "a", "checkpoint": "b"}),
    "no entries": (group_name(0), {"checkpoint": "b"}),
    "empty entries": (group_name(0), {"entries": "", "checkpoint": "b"}),
    "no checkpoint": (group_name(0), {"entries": "a"}),
    "nothing": (group_name(0), {}),
}


@pytest.mark.parametrize("name, data", NO_GROUPS.values(), ids=NO_GROUPS)
def test_what_is_no_group_is_refused_by_name(name: str, data: dict[str, str]) -> None:
    """A ConfigMap that carries our label and is none of our groups stops the log, not the check."""
    with pytest.raises(BrokenLogError, match=name):
        Group.from_data(name, data)


TAKES: Mapping[str, tuple[list[int], int]] = {
    "nothing waits": ([], 0),
    "one waits": ([10], 1),
    "all fit": ([10] * 7, 7),
    "as many as a bundle has": ([10] * MAX_ENTRIES, MAX_ENTRIES),
    "more than a bundle has": ([10] * (MAX_ENTRIES + 1), MAX_ENTRIES),
    "one that is too large goes alone": ([MAX_BYTES + 1, 10], 1),
    "what fits to the byte": ([MAX_BYTES - 12, 10], 2),
    "one byte more than fits": ([MAX_BYTES - 11, 10], 1),
    "twelve of the largest": ([65_535] * 13, 12),
}


@pytest.mark.parametrize("lengths, expected", TAKES.values(), ids=TAKES)
def test_a_group_takes_what_fits(lengths: list[int], expected: int) -> None:
    """As many as fit a ConfigMap and a bundle, and always at least one, so that nothing waits for ever."""
    assert take([b"x" * length for length in lengths]) == expected


@given(st.lists(st.integers(min_value=1, max_value=MAX_BYTES // 3), max_size=12))
def test_a_group_is_bounded_and_greedy(lengths: list[int]) -> None:
    """What is taken fits; one more would not."""
    waiting = [b"x" * length for length in lengths]
    count = take(waiting)
    assert sum(len(one) + 1 for one in waiting[:count]) <= MAX_BYTES
    if count < len(waiting):
        assert sum(len(one) + 1 for one in waiting[: count + 1]) > MAX_BYTES


@given(st.lists(st.integers(1, 200), min_size=4, max_size=30), st.integers(0, 5))
def test_a_bundle_has_just_its_entries_of_whatever_groups_have_them(sizes: list[int], number: int) -> None:
    """Groups beside it give nothing to it; where one of its own is missing it is not made."""
    entries, groups = [f"entry {at}".encode() for at in range(sum(sizes))], list[Group]()
    for size in sizes:
        at = groups[-1].size if groups else 0
        groups.append(Group(at, tuple(entries[at : at + size]), "note"))
    first = number * 256
    if first + 256 <= len(entries):
        assert bundle_of(groups, first) == entries[first : first + 256]
        groups.remove(next(group for group in groups if group.size > first))
    with pytest.raises(BrokenLogError, match=f"from {first} on have"):
        bundle_of(groups, first)
