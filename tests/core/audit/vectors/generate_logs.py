"""Makes `logs.json` anew: `PYTHONPATH=operator python tests/core/audit/vectors/generate_logs.py`.

Each broken log is named for its one defect. Logs in groups are stored whole. The log in tiles is stored once,
and each broken one as the bytes that differ from it; so is the log in bundles, by the fields that differ.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilot_identity.core.audit.archived import Archived
from pilot_identity.core.audit.checkpoint import Checkpoint, LogSigner
from pilot_identity.core.audit.compacted import Compacted, compact
from pilot_identity.core.audit.entries import Entry, EntryType, decode_entry, encode_entry
from pilot_identity.core.audit.groups import Group, extend
from pilot_identity.core.audit.merkle import Frontier, leaf_hash
from pilot_identity.core.audit.proofs import Tree
from pilot_identity.core.audit.recollection import ANNOTATION, annotated, recollect
from pilot_identity.core.audit.remembered import Kept
from pilot_identity.core.audit.shelf import Shelf
from pilot_identity.core.audit.tiles import (
    ENTRIES,
    HEIGHT,
    WIDTH,
    Tile,
    encode_bundle,
    encode_tile,
    hashes_at,
    row,
    tiles_of,
)

NAME = "pilots.example.org/log"
OURS = LogSigner(NAME, Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
THEIRS = LogSigner(NAME, Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))
ANOTHER = LogSigner("pilots.example.org/another", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
SIZES = (1, 4, 3, 2)
TILED = WIDTH + 4
BUNDLED = 3 * WIDTH + 2
LABEL = "pilotidentity.dev/audit"
ZEROS = f"{'00' * 32}\n"

Files = dict[str, bytes]
Item = dict[str, dict[str, object]]
Edits = Mapping[str, Mapping[str, Mapping[str, str | None]] | None]
"""By ConfigMap its fields that differ; `None` for what is gone."""


def entry(number: int, *, said: str = "", source: str = NAME) -> bytes:
    """Entry `number`; `said` makes another of it."""
    return encode_entry(
        Entry(
            id=f"uid/{number}",
            type=EntryType.GRANT_CLOSED,
            subject="TaskGrant team-a/t",
            subject_uid="uid",
            time=dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC),
            data={"said": said} if said else {},
        ),
        source,
    )


def groups(
    sizes: Sequence[int] = SIZES, make: Callable[[int], bytes] = entry, signer: LogSigner = OURS
) -> list[Group]:
    """A log in groups."""
    frontier, made, at = Frontier(), list[Group](), 0
    for size in sizes:
        group, frontier = extend(frontier, [make(number) for number in range(at, at + size)], signer)
        made.append(group)
        at += size
    return made


def files(entries: Sequence[bytes], signer: LogSigner = OURS) -> Files:
    """A log in tiles."""
    tree = Tree(leaf_hash(each) for each in entries)
    made = {"checkpoint": signer.sign(Checkpoint(signer.name, tree.size, tree.root())).encode()}
    for tile in tiles_of(tree.size):
        start = tile.index * WIDTH
        nodes = [tree.perfect(HEIGHT * tile.level, start + at) for at in range(tile.width)]
        made[tile.path] = encode_tile(nodes)
    for tile in row(ENTRIES, len(entries)):
        start = tile.index * WIDTH
        made[tile.path] = encode_bundle(entries[start : start + tile.width])
    assert hashes_at(1, len(entries)) == len(entries) // WIDTH
    return made


def changed(log: Sequence[Group], at: int, **changes: object) -> list[Group]:
    """A log with one group changed."""
    made = list(log)
    made[at] = dataclasses.replace(made[at], **changes)  # type: ignore[arg-type]
    return made


def without(entries: Sequence[bytes], at: int) -> tuple[bytes, ...]:
    """All but one."""
    return (*entries[:at], *entries[at + 1 :])


def exchanged(entries: Sequence[bytes], left: int, right: int) -> tuple[bytes, ...]:
    """With two in each other's place."""
    made = list(entries)
    made[left], made[right] = entries[right], entries[left]
    return tuple(made)


def flipped(entries: Sequence[bytes], at: int) -> tuple[bytes, ...]:
    """One bit of one entry turned: the hour of its time."""
    one = entries[at].replace(b"T12:", b"T13:")
    assert one != entries[at]
    return (*entries[:at], one, *entries[at + 1 :])


def in_groups() -> dict[str, dict[str, object]]:
    """Logs in ConfigMaps, and what is found in each: flaw, place, entry."""
    good = groups()
    middle, name = good[1], good[1].name
    rewritten = groups(make=lambda number: entry(number, said="otherwise" if number == 2 else ""))
    one_more = groups((*SIZES, 1))
    seen = {"seen": {"size": 9, "root": b64(root(rewritten, 9))}}
    unsigned = middle.note.replace("— ", "— x", 1)
    spoilt = middle.note[:-8] + ("A" if middle.note[-8] != "A" else "B") + middle.note[-7:]

    def case(log: Sequence[Group], *found: tuple[str, str, int], **more: object) -> dict[str, object]:
        items = [{"name": each.name, "data": dict(each.data())} for each in log]
        return {"items": items, "found": found, **more}

    return {
        "good": case(good),
        "good, seen before": case(good, seen={"size": 5, "root": b64(root(good, 5))}),
        "flipped byte": case(
            changed(good, 1, entries=flipped(middle.entries, 2)), ("entry-changed", name, 1)
        ),
        "flipped byte in a group of one": case(
            changed(good, 0, entries=flipped(good[0].entries, 0)), ("entry-changed", good[0].name, 0)
        ),
        "dropped entry": case(
            changed(good, 1, entries=without(middle.entries, 1)), ("entry-dropped", name, 1)
        ),
        "added entry": case(changed(good, 1, entries=(*middle.entries, entry(99))), ("entry-added", name, 1)),
        "swapped entries": case(
            changed(good, 1, entries=exchanged(middle.entries, 1, 3)), ("entries-swapped", name, 2)
        ),
        "dropped group": case([good[0], *good[2:]], ("gap", good[2].name, 1)),
        "truncated tail": case(
            good[:-1],
            ("tail-truncated", "the head that was seen before", 8),
            seen={"size": 10, "root": b64(root(good, 10))},
        ),
        "forked head, rewritten since it was seen": case(
            good, ("head-forked", "the head that was seen before", -1), **seen
        ),
        "forked head, two groups at one size": case(
            [
                *good[:2],
                dataclasses.replace(rewritten[1], extends=2, entries=rewritten[1].entries[1:]),
                *good[2:],
            ],
            ("head-forked", "audit-group-0000000000000002", -1),
            ("head-forked", "audit-group-0000000000000002", 2),
        ),
        "wrong origin": case(
            groups(signer=ANOTHER),
            *[("wrong-origin", each.name, -1) for each in good],
        ),
        "foreign key": case(changed(good, 1, note=groups(signer=THEIRS)[1].note), ("foreign-key", name, -1)),
        "foreign key under another name": case(changed(good, 1, note=unsigned), ("foreign-key", name, -1)),
        "spoilt signature": case(changed(good, 1, note=spoilt), ("bad-signature", name, -1)),
        "an older head again": case(changed(good, 3, note=good[1].note), ("entry-added", good[3].name, 8)),
        "repeated entry": case(
            groups(make=lambda number: entry(min(number, 8))), ("entry-repeated", good[3].name, 9)
        ),
        "entry of another log": case(
            groups(make=lambda number: entry(number, source="x" if number == 8 else NAME)),
            ("entry-malformed", good[3].name, 8),
        ),
        "entry that is not canonical": case(
            groups(
                make=lambda number: entry(number).replace(b":", b": ", 1) if number == 8 else entry(number)
            ),
            ("entry-malformed", good[3].name, 8),
        ),
        "entry with a number that no double holds": case(
            groups(
                make=lambda number: (
                    entry(number).replace(b"{}", b'{"n":12345678901234567890}')
                    if number == 8
                    else entry(number)
                )
            ),
            ("entry-malformed", good[3].name, 8),
        ),
        "entry with its names in another order": case(
            groups(
                make=lambda number: (
                    entry(number).replace(b"{}", '{"\uffff":1,"\U00010000":2}'.encode())
                    if number == 8
                    else entry(number)
                )
            ),
            ("entry-malformed", good[3].name, 8),
        ),
        "junk behind the newest head": case(
            changed(good, 3, note=f"{good[3].note}junk\n"), ("unreadable", good[3].name, -1)
        ),
        "no newline at the end of the newest head": case(
            changed(good, 3, note=good[3].note.removesuffix("\n")), ("unreadable", good[3].name, -1)
        ),
        "a group that is none": case(
            [*one_more[:4], dataclasses.replace(one_more[4], note="")],
            ("unreadable", one_more[4].name, -1),
        ),
    }


def in_tiles(entries: Sequence[bytes], good: Files) -> dict[str, dict[str, object]]:
    """Logs in files, told by how they differ from the good one."""
    bundle, leaves, above = Tile(ENTRIES, 0).path, Tile(0, 0).path, Tile(1, 0, 1).path
    edge, edge_leaves = Tile(ENTRIES, 1, 4).path, Tile(0, 1, 4).path
    first = entries[:WIDTH]
    other = files([entry(0, said="otherwise"), *entries[1:]])
    later = files([*entries, entry(TILED)])
    copy = b"".join(each + b"\n" for each in entries)
    before = {**good, "entries.ndjson": copy}

    def case(edits: Mapping[str, bytes | None], *found: tuple[str, str, int]) -> dict[str, object]:
        told = [
            {"path": path, **(splice(before[path], now) if now is not None else {"gone": True})}
            for path, now in edits.items()
        ]
        return {"edits": told, "found": found}

    return {
        "good": case({}),
        "flipped byte": case({bundle: encode_bundle(flipped(first, 17))}, ("entry-changed", bundle, 17)),
        "flipped byte at the edge": case(
            {edge: encode_bundle(flipped(entries[WIDTH:], 1))}, ("entry-changed", edge, WIDTH + 1)
        ),
        "dropped entry": case({bundle: encode_bundle(without(first, 17))}, ("entry-dropped", bundle, 17)),
        "added entry": case(
            {edge: encode_bundle([*entries[WIDTH:], entry(999)])}, ("entry-added", edge, WIDTH)
        ),
        "swapped entries": case(
            {bundle: encode_bundle(exchanged(first, 17, 20))}, ("entries-swapped", bundle, 17)
        ),
        "truncated tail": case(
            {edge: None, edge_leaves: None},
            ("unreadable", edge_leaves, -1),
            ("unreadable", edge, -1),
            ("tail-truncated", "checkpoint", WIDTH),
        ),
        "dropped bundle": case({bundle: None}, ("unreadable", bundle, -1), ("gap", edge, 0)),
        "replaced tile": case({leaves: other[leaves]}, ("tile-replaced", leaves, 0)),
        "replaced tile at the edge": case(
            {edge_leaves: good[edge_leaves][::-1]}, ("tile-replaced", edge_leaves, WIDTH)
        ),
        "replaced tile above": case({above: other[above]}, ("tile-replaced", above, 0)),
        "replaced tile with its entries": case(
            {bundle: other[bundle], leaves: other[leaves]}, ("tile-replaced", leaves, 0)
        ),
        "replaced tiles with their entries, all the way up": case(
            {path: other[path] for path in (bundle, leaves, above)}, ("root-mismatch", "checkpoint", -1)
        ),
        "short tile": case({leaves: good[leaves][:-1]}, ("unreadable", leaves, -1)),
        "short bundle": case({bundle: good[bundle][:-1]}, ("unreadable", bundle, -1), ("gap", edge, 0)),
        "a head further on": case(
            {"checkpoint": later["checkpoint"]},
            *[("unreadable", path, -1) for path in (Tile(0, 1, 5).path, Tile(ENTRIES, 1, 5).path)],
            ("tail-truncated", "checkpoint", WIDTH),
        ),
        "foreign key": case(
            {"checkpoint": files(entries, THEIRS)["checkpoint"]}, ("foreign-key", "checkpoint", -1)
        ),
        "wrong origin": case(
            {"checkpoint": files(entries, ANOTHER)["checkpoint"]}, ("wrong-origin", "checkpoint", -1)
        ),
        "good, with its copy": case({"entries.ndjson": copy}),
        "flipped byte beside a good copy": case(
            {bundle: encode_bundle(flipped(first, 17)), "entries.ndjson": copy}, ("entry-changed", bundle, 17)
        ),
        "dropped entry beside a good copy": case(
            {bundle: encode_bundle(without(first, 17)), "entries.ndjson": copy}, ("entry-dropped", bundle, 17)
        ),
        "dropped bundle beside a good copy": case(
            {bundle: None, "entries.ndjson": copy}, ("unreadable", bundle, -1), ("gap", edge, 0)
        ),
        "changed copy": case(
            {"entries.ndjson": copy.replace(entry(7), entry(7, said="otherwise"))},
            ("copy-differs", "entries.ndjson", 7),
        ),
        "cut copy": case({"entries.ndjson": copy[:-1]}, ("copy-differs", "entries.ndjson", TILED - 1)),
        "longer copy": case({"entries.ndjson": copy + b"{}"}, ("copy-differs", "entries.ndjson", TILED)),
        "no head": case({"checkpoint": None}, ("unreadable", "checkpoint", -1), ("no-log", "the log", -1)),
    }


def revoking(number: int) -> bytes:
    """Entry `number` of a log whose first says that something was revoked."""
    if number:
        return entry(number)
    return entry(0).replace(b'"data":{}', b'"data":{"revoked":{"serials":["1"]}}')


def bundles(make: Callable[[int], bytes] = revoking) -> list[Compacted]:
    """A log's full bundles."""
    made: list[Compacted] = []
    for first in range(0, BUNDLED // WIDTH * WIDTH, WIDTH):
        edge = made[-1].edge if made else ()
        made.append(compact(first, edge, [make(at) for at in range(first, first + WIDTH)], OURS))
    return made


def record(bundle: Compacted, *rows: Kept) -> Archived:
    """What tells that the log is archived up to the end of a bundle."""
    return Archived(bundle.size, bundle.edge, bundle.note, rows).sealed(OURS)


def item(kind: str, data: Mapping[str, str], binary: Mapping[str, str], **annotations: str) -> Item:
    """A ConfigMap but for its name."""
    return {
        "labels": {LABEL: kind},
        "annotations": dict(annotations),
        "data": dict(data),
        "binaryData": dict(binary),
    }


def in_bundles(good: Sequence[Compacted]) -> dict[str, object]:
    """The ConfigMaps of a log in bundles, and each broken one by the fields that differ."""
    items: dict[str, Item] = {}
    for bundle in good:
        for name, data, binary in bundle.config_maps():
            items[str(name)] = item("tile", data, binary, **annotated(bundle.first, bundle.entries, OURS))
    group, after = extend(good[-1].frontier(), [entry(BUNDLED - 2)], OURS)
    newest, _ = extend(after, [entry(BUNDLED - 1)], OURS)
    for each in (group, newest):
        items[each.name] = item("group", each.data(), {})
    kept = Kept(0, recollect(decode_entry(revoking(0))))
    ((_, data, binary),) = record(good[0], kept).config_maps()
    archived = "audit-archived-0000000000000256"
    items[archived] = item("archived", data, binary)
    first, second, third = (f"audit-tile-{at * WIDTH:016d}" for at in range(3))

    other = bundles(entry)
    forgetful = annotated(0, other[0].entries, OURS)[ANNOTATION]
    ((_, _, forgotten),) = record(good[0]).config_maps()
    (liar,) = record(good[0], dataclasses.replace(kept, index=1)).config_maps()
    stray, _ = extend(Frontier(), [entry(0, said="otherwise")], OURS)
    stray_item = item("group", stray.data(), {})

    def case(
        edits: Edits,
        *found: tuple[str, str, int],
        read: str = "cluster",
        more: Mapping[str, Item] | None = None,
    ) -> dict[str, object]:
        return {"read": read, "edits": edits, "more": more or {}, "found": found}

    whole: Edits = {archived: None}
    left: Edits = {first: None}
    return {
        "items": items,
        "archive": {path: b64(content) for path, content in shelved(good).items()},
        "cases": {
            "good": case(whole),
            "good, archived": case(left),
            "good, archived, with the archive": case(left, read="archive"),
            "good, with no recollections": case(
                {**whole, **{name: {"annotations": {ANNOTATION: None}} for name in (first, second, third)}}
            ),
            "replaced edge": case(
                {**whole, second: {"data": {"edge": ZEROS}}}, ("edge-replaced", second, -1)
            ),
            "longer edge": case(
                {**whole, second: {"data": {"edge": ZEROS * 2}}}, ("edge-replaced", second, -1)
            ),
            "the first bundle's head in each": case(
                {**whole, **{each: {"data": {"checkpoint": good[0].note}} for each in (second, third)}},
                ("head-misplaced", second, -1),
                ("head-misplaced", third, -1),
            ),
            "a bundle without its head": case(
                {**whole, second: {"data": {"checkpoint": ""}}}, ("unreadable", second, -1)
            ),
            "a revocation taken out of a recollection": case(
                {**whole, first: {"annotations": {ANNOTATION: forgetful}}},
                ("recollection-replaced", first, 0),
            ),
            "a recollection that is none": case(
                {**whole, first: {"annotations": {ANNOTATION: "forged"}}},
                ("recollection-replaced", first, -1),
            ),
            "a newest group without its label": case(
                {**whole, newest.name: {"labels": {LABEL: None}}}, ("unlisted", newest.name, BUNDLED - 1)
            ),
            "no group": case(
                {**whole, group.name: None, newest.name: None},
                ("tail-truncated", "the newest group", 3 * WIDTH),
            ),
            "groups that are all hidden": case(
                {**whole, **{each.name: {"labels": {LABEL: None}} for each in (group, newest)}},
                ("unlisted", group.name, 3 * WIDTH),
            ),
            "replaced edge of what is archived": case(
                {**left, archived: {"data": {"edge": ZEROS}}},
                ("edge-replaced", archived, -1),
                ("gap", second, 0),
            ),
            "replaced edge of what is archived, with the archive": case(
                {**left, archived: {"data": {"edge": ZEROS}}}, ("edge-replaced", archived, -1), read="archive"
            ),
            "a revocation taken out of what is archived": case(
                {**left, archived: {"binaryData": dict(forgotten)}}, ("recollection-replaced", archived, -1)
            ),
            "a revocation taken out of what is archived, with the archive": case(
                {**left, archived: {"binaryData": dict(forgotten)}},
                ("recollection-replaced", archived, -1),
                read="archive",
            ),
            "what is archived keeps nothing that can be read": case(
                {**left, archived: {"binaryData": {"kept.gz": "AAAA"}}},
                ("recollection-replaced", archived, -1),
            ),
            "what is archived keeps what no entry says, and that is signed": case(
                {**left, archived: {"data": dict(liar[1]), "binaryData": dict(liar[2])}},
                ("recollection-replaced", "tile/entries/000", 1),
                read="archive",
            ),
            "another head in what is archived": case(
                {**left, archived: {"data": {"checkpoint": good[1].note}}},
                ("head-misplaced", archived, -1),
                ("gap", second, 0),
            ),
            "a group of another history where all is archived": case(
                left, ("stray-group", stray.name, 0), more={stray.name: stray_item}
            ),
            "a group of another history where all is archived, with the archive": case(
                left,
                ("head-forked", stray.name, -1),
                ("head-forked", stray.name, 0),
                read="archive",
                more={stray.name: stray_item},
            ),
        },
    }


def shelved(good: Sequence[Compacted]) -> Files:
    """The archive of the first bundle."""
    return Shelf(0).put(good[:1], OURS.verifier())[1]


def root(log: Sequence[Group], size: int) -> bytes:
    """A log's root at a size."""
    return Tree(leaf_hash(each) for group in log for each in group.entries).root(size)


def splice(was: bytes, now: bytes) -> dict[str, object]:
    """The smallest run of bytes to take out, and what comes in its place."""
    start = 0
    while start < min(len(was), len(now)) and was[start] == now[start]:
        start += 1
    end = 0
    while end < min(len(was), len(now)) - start and was[-1 - end] == now[-1 - end]:
        end += 1
    return {"at": start, "take": len(was) - end - start, "put": b64(now[start : len(now) - end])}


def b64(value: bytes) -> str:
    """As JSON holds bytes."""
    return base64.b64encode(value).decode()


def main() -> None:
    """Write the file."""
    entries = [entry(number) for number in range(TILED)]
    good = files(entries)
    stored = {
        "verifier": str(OURS.verifier()),
        "groups": in_groups(),
        "files": {path: b64(content) for path, content in good.items()},
        "tiles": in_tiles(entries, good),
        "bundles": in_bundles(bundles()),
    }
    text = json.dumps(stored, indent=1, ensure_ascii=False)
    (Path(__file__).parent / "logs.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
