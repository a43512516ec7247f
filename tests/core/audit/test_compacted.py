from __future__ import annotations

import base64
import dataclasses
import hashlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilot_identity.core.audit.checkpoint import LogSigner
from pilot_identity.core.audit.compacted import MAX_PART_BYTES, Compacted, TileName, compact
from pilot_identity.core.audit.findings import Flaw
from pilot_identity.core.audit.groups import BrokenLogError, Group, extend
from pilot_identity.core.audit.merkle import Frontier, leaf_hash
from pilot_identity.core.audit.proofs import Tree
from pilot_identity.core.audit.reader import ConfigMapLog
from pilot_identity.core.audit.verify import verify

SIGNER = LogSigner("pilots.example.org/log", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))


def entry(number: int, filling: str = "") -> bytes:
    """An entry with as much in it as wanted."""
    return (
        f'{{"data":{{"x":"{filling}"}},"id":"{number}","source":"{SIGNER.name}","specversion":"1.0",'
        '"subject":"TaskGrant a/b","subjectuid":"u","type":"t"}'
    ).encode()


ENTRIES = [entry(number) for number in range(800)]


def compacted(count: int) -> list[Compacted]:
    """The first bundles of the log."""
    made: list[Compacted] = []
    for number in range(count):
        first = number * 256
        edge = made[-1].edge if made else ()
        made.append(compact(first, edge, ENTRIES[first : first + 256], SIGNER))
    return made


def grouped(size: int, until: int) -> list[Group]:
    """The log in groups of one size."""
    frontier, made = Frontier(), list[Group]()
    for at in range(0, until, size):
        group, frontier = extend(frontier, ENTRIES[at : min(at + size, until)], SIGNER)
        made.append(group)
    return made


def items(bundles: Sequence[Compacted], groups: Sequence[Group]) -> list[Mapping[str, Any]]:
    """As the API server lists them."""
    told = [
        {"metadata": {"name": str(name)}, "data": data, "binaryData": binary}
        for bundle in bundles
        for name, data, binary in bundle.config_maps()
    ]
    told += [{"metadata": {"name": group.name}, "data": group.data()} for group in groups]
    return sorted(told, key=lambda item: str(item["metadata"]["name"]))


def test_writing_and_reading_are_inverse() -> None:
    """A bundle survives the way into its ConfigMap and back."""
    for bundle in compacted(3):
        assert Compacted.from_config_maps(bundle.config_maps()) == bundle
        assert [str(name) for name, _, _ in bundle.config_maps()] == [f"audit-tile-{bundle.first:016d}"]


def test_the_edge_is_where_the_log_goes_on() -> None:
    """Whoever has the last bundle can append: its edge is the frontier behind it, and its head signs that."""
    frontier = Frontier()
    for bundle in compacted(3):
        for leaf in bundle.leaves:
            frontier.append(leaf)
        assert bundle.frontier().root() == frontier.root()
        head = SIGNER.verifier().open(bundle.note)
        assert (head.size, head.root) == (bundle.size, frontier.root())


def test_a_bundle_takes_less_room_than_its_entries() -> None:
    """With its hashes, edge and head; compressed, because CloudEvents repeat themselves."""
    ((_, data, binary),) = compacted(1)[0].config_maps()
    stored = sum(map(len, data.values())) + sum(len(base64.b64decode(value)) for value in binary.values())
    assert stored < sum(map(len, ENTRIES[:256]))


def large() -> Compacted:
    """A bundle that no compression makes fit into one ConfigMap."""
    noise = [hashlib.shake_256(bytes([n])).hexdigest(16_000) for n in range(256)]
    return compact(0, (), [entry(number, filling) for number, filling in enumerate(noise)], SIGNER)


def test_a_large_bundle_goes_on_in_others_and_is_committed_last() -> None:
    """The ConfigMap without a part's number comes last; until then the groups are the log."""
    stored = large().config_maps()
    assert [name.part for name, _, _ in stored] == [*range(1, len(stored)), 0]
    assert len(stored) > 2
    assert all(len(base64.b64decode(binary["entries.gz"])) <= MAX_PART_BYTES for _, _, binary in stored)
    assert Compacted.from_config_maps(stored) == large()
    for missing in range(len(stored)):
        with pytest.raises(BrokenLogError):
            Compacted.from_config_maps([*stored[:missing], *stored[missing + 1 :]])


WHOLE = Tree(map(leaf_hash, ENTRIES)).root()
LAYOUTS = {
    "groups only": (0, 0),
    "compacted, groups on its edge": (2, 512),
    "compacted, a group over its edge": (3, 700),
    "compacted, groups not yet deleted": (2, 0),
    "compacted, some groups deleted": (2, 300),
}


@pytest.mark.parametrize("bundles, since", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("size", [1, 100, 256])
def test_compaction_changes_nothing_that_a_verifier_sees(bundles: int, since: int, size: int) -> None:
    """Whatever of it is done when somebody looks, it is the same log."""
    groups = [group for group in grouped(size, 800) if group.size > since]
    seen = list[int]()
    source = ConfigMapLog(lambda: items(compacted(bundles), groups))
    report, tree = verify(source, SIGNER.verifier(), observe=lambda index, _: seen.append(index))
    assert report.findings == ()
    assert (report.is_sound, report.entries, tree.root()) == (True, 800, WHOLE)
    assert seen == list(range(800))


def test_a_changed_entry_in_a_bundle_is_located() -> None:
    """The hash beside it says which one it is."""
    bundles = compacted(2)
    spoilt = [*bundles[1].entries]
    spoilt[44] = spoilt[44].replace(b"a/b", b"a/c")
    bundles[1] = dataclasses.replace(bundles[1], entries=tuple(spoilt))
    report, _ = verify(ConfigMapLog(lambda: items(bundles, grouped(100, 512)[-1:])), SIGNER.verifier())
    assert [(found.flaw, found.where, found.index) for found in report.findings] == [
        (Flaw.ENTRY_CHANGED, "audit-tile-0000000000000256", 300)
    ]


def test_a_replaced_tile_in_a_config_map_is_named() -> None:
    """The entries are under the signed head beside them; the hashes are not theirs."""
    bundles = compacted(2)
    bundles[0] = dataclasses.replace(bundles[0], leaves=bundles[0].leaves[::-1])
    report, _ = verify(ConfigMapLog(lambda: items(bundles, grouped(100, 512)[-1:])), SIGNER.verifier())
    assert [(found.flaw, found.index) for found in report.findings] == [(Flaw.TILE_REPLACED, 0)]


def test_a_deleted_bundle_is_a_gap() -> None:
    """Its place is known from the name of the next."""
    report, _ = verify(
        ConfigMapLog(lambda: items([compacted(2)[1]], grouped(100, 512)[-1:])), SIGNER.verifier()
    )
    assert [(found.flaw, found.index) for found in report.findings] == [(Flaw.GAP, 0)]
    assert not report.is_sound


def spoilt(**changes: str | None) -> list[tuple[TileName, Mapping[str, str], Mapping[str, str]]]:
    """One good bundle with something else in its ConfigMap."""
    ((name, data, binary),) = compacted(1)[0].config_maps()
    both = {**data, **binary, **{key.replace("_", "."): value for key, value in changes.items()}}
    kept = {key: value for key, value in both.items() if value is not None}
    return [
        (name, {k: v for k, v in kept.items() if k in data}, {k: v for k, v in kept.items() if k in binary})
    ]


def bomb() -> str:
    """Thirty times what a bundle can hold, in a few hundred kilobytes."""
    packer = zlib.compressobj(level=9, wbits=31)
    packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(500))
    return base64.b64encode(packed + packer.flush()).decode()


BROKEN = {
    "no head": {"checkpoint": None},
    "no entries": {"entries_gz": None},
    "no hashes": {"leaves": None},
    "a hash too few": {"leaves": base64.b64encode(bytes(8160)).decode()},
    "entries that are not compressed": {"entries_gz": base64.b64encode(b"{}").decode()},
    "no base64": {"entries_gz": "!"},
    "no part at all": {"parts": "0"},
    "parts that are not there": {"parts": "2"},
    "parts without number": {"parts": "many"},
    "parts without end": {"parts": "99999999999"},
    "an edge of other hashes": {"edge": "00\n"},
    "an edge that is no hex": {"edge": "zz\n"},
    "a bomb": {"entries_gz": bomb()},
}


@pytest.mark.parametrize("changes", BROKEN.values(), ids=BROKEN)
def test_what_is_no_bundle_is_refused(changes: dict[str, str | None]) -> None:
    """And never unpacked into more than a bundle can be."""
    with pytest.raises(BrokenLogError, match="audit-tile-0000000000000000"):
        Compacted.from_config_maps(spoilt(**changes))


@pytest.mark.parametrize(
    "name", ["audit-tile-1", "audit-tile-0000000000000001", "audit-tile-0000000000000256-0"]
)
def test_a_name_that_is_none_is_refused(name: str) -> None:
    """A bundle begins at a multiple of 256."""
    with pytest.raises(BrokenLogError, match=name):
        TileName.parse(name)


def test_only_whole_bundles_are_compacted() -> None:
    """256 entries, from a multiple of 256 on, behind the edge there."""
    for first, edge, count in ((0, (), 255), (1, (), 256), (256, (), 256)):
        with pytest.raises(ValueError, match="a bundle is 256 entries"):
            compact(first, edge, ENTRIES[:count], SIGNER)
