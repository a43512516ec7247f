"""Verifies a whole stored log, wherever it is stored, and names what is wrong.

A log is read as segments: runs of entries as they lie in one place, with the signed head or the tile that
was stored beside them. Nothing of what is read is believed, but for the verifier key. Every signed head that
turns up is a promise about a size, and is compared with the root that the entries make at that size; so is
the head that the reader saw last time, which makes consistency a matter of one more comparison.

Where three things tell the same hash (the entries, their tile, the tile above) and one differs, the two that
agree, or the one that a signed head covers, are what was logged, and the other is named as the flaw.
"""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import msgspec

from pilot_identity.core.audit.beside import about_edge, about_kept, about_recollection, is_kept_of
from pilot_identity.core.audit.canonical import is_canonical
from pilot_identity.core.audit.checkpoint import Checkpoint, CheckpointError, LogVerifier
from pilot_identity.core.audit.diagnosis import swapped, why_not_ours
from pilot_identity.core.audit.findings import Finding, Flaw, Report
from pilot_identity.core.audit.merkle import Frontier, leaf_hash
from pilot_identity.core.audit.parts import (
    Beginning,
    Headless,
    LogSource,
    Part,
    Segment,
    StoredHead,
    StoredTile,
    Unlike,
    Unlisted,
    Unreadable,
)
from pilot_identity.core.audit.proofs import Tree, join
from pilot_identity.core.audit.recollection import Recollection
from pilot_identity.core.audit.tiles import HEIGHT, WIDTH, Tile, tile_root

MAX_FINDINGS = 1000
"""More of them help nobody, and a hostile log must not fill the reader's memory."""


class _Envelope(msgspec.Struct, frozen=True, gc=False):
    """The attributes that every entry has."""

    specversion: str
    id: str
    source: str
    type: str
    subject: str
    subjectuid: str


class _Promise(msgspec.Struct, frozen=True, gc=False):
    """A root that the tree must have at some size."""

    root: bytes
    where: str
    note: str = ""


def verify(
    source: LogSource,
    verifier: LogVerifier,
    seen: Checkpoint | None = None,
    observe: Callable[[int, bytes], None] = lambda _index, _entry: None,
) -> tuple[Report, Tree]:
    """Verify all of a log.

    Args:
        source: where it is.
        verifier: its key, from somewhere that the log's keeper cannot write.
        seen: the head that an earlier verification saw.
        observe: gets every entry once, in order, as it is read; before it is known to be sound.

    Returns:
        What was found, and the tree of the entries that were read.
    """
    verification = Verification(verifier, seen)
    for part in source.parts():
        for index, entry in verification.absorb(part):
            observe(index, entry)
    return verification.report(), verification.tree


class Verification:
    """A verification under way: parts go in as they are read, the report says how it stands."""

    def __init__(
        self, verifier: LogVerifier, seen: Checkpoint | None = None, *, may_be_older: bool = False
    ) -> None:
        """Begin.

        Args:
            verifier: of the log's key.
            seen: the head that an earlier verification saw.
            may_be_older: whether this is a copy that may have been made before that, and not the log itself.
        """
        self.tree = Tree()
        self._may_be_older = may_be_older
        self._verifier = verifier
        self._seen = seen
        self._goes_on: bool | None = None
        self._findings: list[Finding] = []
        self._parts = 0
        self._signatures = 0
        self._next = 0
        self._lost = False
        self._promises: dict[int, _Promise] = {}
        self._head: Checkpoint | None = None
        self._note = ""
        self._upper: dict[tuple[int, int], StoredTile] = {}
        self._disputed: dict[int, bytes] = {}
        self._ids: dict[str, int] = {}
        self._kept: dict[int, list[Recollection]] = {}

    def absorb(self, part: Part) -> Iterable[tuple[int, bytes]]:
        """Take in the next part; returns the entries that are new with it, with their indices."""
        self._parts += 1
        match part:
            case Beginning():
                self._begin(part)
            case StoredHead():
                self._open(part.note, part.where)
            case StoredTile():
                self._upper[part.tile.level, part.tile.index] = part
            case Unlisted():
                message = "it goes on from the log's end, and lacks the label by which the log is listed"
                self._find(Flaw.UNLISTED, part.where, part.first, message)
            case Headless():
                message = f"none reaches size {part.size}, but it is never deleted: it is gone, or hidden"
                self._find(Flaw.TAIL_TRUNCATED, "the newest group", part.size, message)
            case Unlike():
                self._find(Flaw.COPY_DIFFERS, part.where, part.index, part.message)
            case Unreadable():
                self._find(Flaw.UNREADABLE, part.where, -1, part.message)
            case Segment():
                return self._absorb_segment(part)
        return ()

    def report(self) -> Report:
        """Say how it stands; with all parts in, that is the verdict."""
        findings = [*self._findings, *self._about_the_end()]
        if not self._lost:
            findings += self._about_upper_tiles()
        return Report(
            findings=tuple(findings),
            entries=self._next,
            first=self.tree.start,
            parts=self._parts,
            signatures=self._signatures,
            head=self._head,
            note=self._note,
            unproven_from=self._head.size if self._head is not None else 0,
            seen=self._seen,
            goes_on=self._goes_on,
        )

    def _begin(self, part: Beginning) -> None:
        """Take the log up at a signed head. Where something was read before, it is a head like others."""
        archived = part.archived
        checkpoint = self._open(archived.note, part.where)
        wrong = list(about_edge(part.where, archived.size, archived.edge, checkpoint))
        for finding in (*wrong, *about_kept(part.where, archived, self._verifier)):
            self._add(finding)
        if part.is_read:
            for one in archived.kept:
                self._kept.setdefault(one.index, []).append(one.row)
        elif checkpoint is not None and not wrong and not self._next:
            self.tree = Tree.beginning(archived.size, archived.edge)
            self._next = archived.size
            self._prove(checkpoint, archived.note)
            self._keep_promises(archived.size - 1)

    def _absorb_segment(self, segment: Segment) -> Iterable[tuple[int, bytes]]:
        checkpoint = None
        if segment.note or segment.edge is not None:
            checkpoint = self._open(segment.note, segment.where)
        self._look_beside(segment, checkpoint)
        hashed = [leaf_hash(entry) for entry in segment.entries]
        if segment.first > self._next:
            self._find(
                Flaw.GAP,
                segment.where,
                self._next,
                f"entries {self._next} to {segment.first - 1} are missing before it",
            )
            self._lost = True
            self._next = segment.first
        known = self._next - segment.first
        if known:
            self._compare_with_known(segment, hashed[:known])
            segment = replace(
                segment, first=self._next, entries=segment.entries[known:], leaves=segment.leaves[known:]
            )
            hashed = hashed[known:]
        if segment.leaves:
            hashed = self._settle(segment, hashed)
        end = segment.first + len(hashed)
        before = self.tree.frontier()
        self._grow(hashed)
        if checkpoint is not None and hashed and not segment.leaves and not self._lost:
            # A group: its head is the head of exactly what it brings.
            if checkpoint.size != end or not self._holds(checkpoint):
                self._diagnose(segment, checkpoint, before, hashed)
            end = max(end, checkpoint.size)
        self._keep_promises(before.size)
        self._next = end
        for offset, entry in enumerate(segment.entries):
            self._inspect(entry, segment.first + offset, segment.where)
        return list(enumerate(segment.entries, start=segment.first))

    def _look_beside(self, segment: Segment, checkpoint: Checkpoint | None) -> None:
        """Hold to a segment what stands beside it, and it to where it stands."""
        where, end = segment.where, segment.first + len(segment.entries)
        if segment.edge is not None:
            for finding in about_edge(where, segment.first + WIDTH, segment.edge, checkpoint):
                self._add(finding)
        elif not segment.leaves and end <= self.tree.start:
            message = (
                f"its entries {segment.first} to {end - 1} are archived; with the archive it is compared"
            )
            self._find(Flaw.STRAY_GROUP, where, segment.first, message)
        elif not segment.leaves and end <= self._next and checkpoint is not None and checkpoint.size != end:
            # All that it has is known, so that nothing is grown with it; it was more once, or less.
            flaw = Flaw.ENTRY_DROPPED if checkpoint.size > end else Flaw.ENTRY_ADDED
            message = f"its signed head is of size {checkpoint.size}, its entries end at {end}"
            self._find(flaw, where, segment.first, message)
        if segment.recollection:
            found = about_recollection(where, segment.first, segment.entries, segment.recollection)
            for finding in found:
                self._add(finding)

    def _compare_with_known(self, segment: Segment, hashed: Sequence[bytes]) -> None:
        """What overlaps must be the same: a group that outlived its compaction, or a fork."""
        for index, leaf in enumerate(hashed, start=segment.first):
            is_known = self.tree.start <= index < self.tree.size
            if is_known and not hmac.compare_digest(leaf, self.tree.leaf(index)):
                self._find(
                    Flaw.HEAD_FORKED,
                    segment.where,
                    index,
                    f"its entry {index} is not the entry {index} that stands before it",
                )
                return

    def _grow(self, leaves: Iterable[bytes]) -> None:
        if not self._lost:
            for leaf in leaves:
                self.tree.append(leaf)

    def _holds(self, checkpoint: Checkpoint) -> bool:
        """Whether the tree so far is that of a head; before its start and beyond its end nothing is known."""
        if not self.tree.start <= checkpoint.size <= self.tree.size:
            return False
        return hmac.compare_digest(self.tree.root(checkpoint.size), checkpoint.root)

    def _diagnose(
        self, segment: Segment, checkpoint: Checkpoint, before: Frontier, hashed: Sequence[bytes]
    ) -> None:
        """Name why the head beside these entries is not theirs; where the order is known, put it right."""
        first, where = segment.first, segment.where
        promised, got = checkpoint.size - first, len(hashed)
        self._promises.pop(checkpoint.size, None)
        order = swapped(before, hashed, checkpoint.root) if promised == got else None
        if order is not None:
            left, right = (first + offset for offset in order)
            self._find(
                Flaw.ENTRIES_SWAPPED, where, left, f"entries {left} and {right} stand in each other's place"
            )
            self.tree.truncate(first)
            right_order = list(hashed)
            right_order[order[0]], right_order[order[1]] = hashed[order[1]], hashed[order[0]]
            self._grow(right_order)
            self._prove(checkpoint, segment.note)
            return
        if promised > got:
            flaw = Flaw.ENTRY_DROPPED
            message = f"its signed head covers {promised} entries, {promised - got} of them not there"
        elif promised < got:
            flaw = Flaw.ENTRY_ADDED
            message = f"its signed head covers {max(promised, 0)} of its {got} entries"
        else:
            flaw = Flaw.ENTRY_CHANGED
            # Entries whose own head did not verify are under this one, too.
            first = min(first, self._head.size if self._head is not None else 0)
            one = checkpoint.size - first == 1
            span = f"entry {first}" if one else f"one or more of the entries {first} to {checkpoint.size - 1}"
            message = (
                f"{span} changed: the root is {self.tree.root().hex()}, signed is {checkpoint.root.hex()}"
            )
        self._find(flaw, where, first, message)
        self._lost = True
        self.tree.truncate(before.size)

    def _settle(self, segment: Segment, hashed: list[bytes]) -> list[bytes]:
        """Find out what was logged where entries, their tile and the tile above it may differ."""
        stored = list(segment.leaves)
        above = self._above(segment)
        if hashed == stored:
            if above is not None and tile_root(hashed) != above:
                self._disputed[segment.first // WIDTH] = above
            return hashed
        entries_fit, tile_fits = (self._fits(segment, leaves, above) for leaves in (hashed, stored))
        if entries_fit and not tile_fits:
            self._find(
                Flaw.TILE_REPLACED,
                segment.tile,
                segment.first,
                "its hashes are not those of its entries, which are the ones that were signed",
            )
            return hashed
        self._name_difference(segment, hashed, stored)
        if tile_fits is False:
            self._find(
                Flaw.TILE_REPLACED,
                segment.tile,
                segment.first,
                "neither its hashes nor those of its entries are what stands above them",
            )
        return stored

    def _above(self, segment: Segment) -> bytes | None:
        """What the tile of level 1 says is the root over this one."""
        parent = self._upper.get((1, segment.first // WIDTH // WIDTH))
        position = segment.first // WIDTH % WIDTH
        if len(segment.leaves) < WIDTH or parent is None or position >= len(parent.hashes):
            return None
        return parent.hashes[position]

    def _fits(self, segment: Segment, leaves: Sequence[bytes], above: bytes | None) -> bool | None:
        """Whether these leaves are what the tile above, or else a signed head, says; `None` if none does."""
        if above is not None:
            return len(leaves) == WIDTH and tile_root(leaves) == above
        if self._lost:
            return None
        frontier = self.tree.frontier()
        for size, leaf in enumerate(leaves, start=segment.first + 1):
            frontier.append(leaf)
            promise = self._promises.get(size)
            if promise is not None:
                return hmac.compare_digest(frontier.root(), promise.root)
        return None

    def _name_difference(self, segment: Segment, hashed: Sequence[bytes], stored: Sequence[bytes]) -> None:
        """Name how the entries differ from what the tile tells, entry by entry."""
        first, where = segment.first, segment.where
        if len(hashed) < len(stored):
            missing = sorted((Counter(stored) - Counter(hashed)).elements(), key=stored.index)
            index = first + stored.index(missing[0])
            message = f"{len(stored) - len(hashed)} of its entries are missing, the first is entry {index}"
            self._find(Flaw.ENTRY_DROPPED, where, index, message)
            return
        if len(hashed) > len(stored):
            message = f"it has {len(hashed)} entries, its tile counts {len(stored)}"
            self._find(Flaw.ENTRY_ADDED, where, first, message)
            return
        differing = [
            first + at for at, (one, other) in enumerate(zip(hashed, stored, strict=True)) if one != other
        ]
        listed = ", ".join(map(str, differing[:8])) + (", …" if len(differing) > 8 else "")  # noqa: PLR2004
        if sorted(hashed) == sorted(stored):
            message = f"entries {listed} stand in each other's place"
            self._find(Flaw.ENTRIES_SWAPPED, where, differing[0], message)
        else:
            message = f"entry {listed} is not what its hash in the tile says"
            self._find(Flaw.ENTRY_CHANGED, where, differing[0], message)

    def _open(self, note: str, where: str) -> Checkpoint | None:
        """Open a head and hold the log to it; `None`, and a finding, where it is not signed as it must be."""
        try:
            checkpoint = self._verifier.open(note)
        except CheckpointError as error:
            self._find(why_not_ours(note, self._verifier), where, -1, str(error))
            return None
        self._signatures += 1
        promise = self._promises.get(checkpoint.size)
        if promise is not None and promise.root != checkpoint.root:
            message = (
                f"its signed head of size {checkpoint.size} has root {checkpoint.root.hex()}, "
                f"the one in {promise.where} has root {promise.root.hex()}"
            )
            self._find(Flaw.HEAD_FORKED, where, -1, message)
        elif checkpoint.size > self.tree.size or self._lost:
            self._promises[checkpoint.size] = _Promise(checkpoint.root, where, note)
        elif checkpoint.size >= self.tree.start and not self._holds(checkpoint):
            self._find(
                Flaw.HEAD_FORKED,
                where,
                -1,
                f"its signed head of size {checkpoint.size} has root {checkpoint.root.hex()}, "
                f"the entries before it make {self.tree.root(checkpoint.size).hex()}",
            )
        return checkpoint

    def _keep_promises(self, since: int) -> None:
        """Hold the tree to every head whose size it has reached by now."""
        if self._lost:
            return
        size = self.tree.size
        for promised in sorted(at for at in self._promises if since < at <= size):
            promise = self._promises.pop(promised)
            checkpoint = Checkpoint(self._verifier.name, promised, promise.root)
            if self._holds(checkpoint):
                self._prove(checkpoint, promise.note)
            else:
                self._name_mismatch(checkpoint, promise.where)
        seen = self._seen
        if seen is not None and self._goes_on is None and self.tree.start <= seen.size <= size:
            self._goes_on = self._holds(seen)
            if not self._goes_on:
                self._find(
                    Flaw.HEAD_FORKED,
                    "the head that was seen before",
                    -1,
                    f"at size {seen.size} its root was {seen.root.hex()}, now the entries make "
                    f"{self.tree.root(seen.size).hex()}: what was signed then was rewritten",
                )

    def _prove(self, checkpoint: Checkpoint, note: str) -> None:
        """Take down that the tree up to here is signed."""
        self._promises.pop(checkpoint.size, None)
        if self._head is None or checkpoint.size > self._head.size:
            self._head, self._note = checkpoint, note

    def _name_mismatch(self, checkpoint: Checkpoint, where: str) -> None:
        """Name why the entries are not those of a head; perhaps the tiles above know better."""
        if self._disputed and self._root_from_above(checkpoint.size) == checkpoint.root:
            for number in self._disputed:
                tile = Tile(0, number)
                message = (
                    "it and its entries were replaced together: the signed head and the tile above differ"
                )
                self._find(Flaw.TILE_REPLACED, tile.path, number * WIDTH, message)
            self._disputed.clear()
        else:
            self._find(
                Flaw.ROOT_MISMATCH,
                where,
                -1,
                f"the {checkpoint.size} entries make root {self.tree.root(checkpoint.size).hex()}, "
                f"signed is {checkpoint.root.hex()}",
            )
        self._lost = True

    def _root_from_above(self, size: int) -> bytes:
        """The root that the tree would have if the tile above were right about what is disputed."""
        bundles = Tree(
            self._disputed.get(number, self.tree.perfect(HEIGHT, number)) for number in range(size // WIDTH)
        )
        whole = bundles.size * WIDTH
        return join([*bundles.subtrees(0, bundles.size), *self.tree.subtrees(whole, size)])

    def _about_the_end(self) -> Iterator[Finding]:
        if not self._next and not self._promises and self._seen is None:
            yield Finding(Flaw.NO_LOG, "the log", -1, "there is no entry")
        furthest = max(self._promises, default=0)
        if furthest > self._next:
            yield Finding(
                Flaw.TAIL_TRUNCATED,
                self._promises[furthest].where,
                self._next,
                f"it signs {furthest} entries, only {self._next} are there",
            )
        seen = self._seen
        if seen is not None and seen.size > self._next and not self._may_be_older:
            yield Finding(
                Flaw.TAIL_TRUNCATED,
                "the head that was seen before",
                self._next,
                f"the log had {seen.size} entries, now it has {self._next}",
            )

    def _about_upper_tiles(self) -> Iterator[Finding]:
        """Every tile of level 1 and higher is recomputed."""
        for (level, number), stored in sorted(self._upper.items()):
            for at, found in enumerate(stored.hashes):
                position = number * WIDTH + at
                if position << (HEIGHT * level) < self.tree.start:
                    continue  # it may be known, as part of the edge, but nothing that it stands over is
                if (position + 1) << (HEIGHT * level) > self.tree.size:
                    break  # what is above the entries that are there was reported as their loss
                computed = self.tree.perfect(HEIGHT * level, position)
                if computed != found:
                    first = position << (HEIGHT * level)
                    message = f"its hash {at} is {found.hex()}, what it stands over makes {computed.hex()}"
                    yield Finding(Flaw.TILE_REPLACED, stored.where, first, message)
                    break

    def _inspect(self, entry: bytes, index: int, where: str) -> None:
        try:
            envelope = _DECODER.decode(entry)
            is_in_form = is_canonical(entry)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            self._find(Flaw.ENTRY_MALFORMED, where, index, f"entry {index} is no CloudEvent: {error}")
            return
        if not is_in_form:
            self._find(
                Flaw.ENTRY_MALFORMED, where, index, f"entry {index} is not in canonical form (RFC 8785)"
            )
        if envelope.source != self._verifier.name:
            message = f"entry {index} says that it is of the log {envelope.source!r}"
            self._find(Flaw.ENTRY_MALFORMED, where, index, message)
        known = self._ids.setdefault(envelope.id, index)
        if known != index:
            message = f"entry {index} has the id {envelope.id!r} of entry {known}"
            self._find(Flaw.ENTRY_REPEATED, where, index, message)
        if not all(is_kept_of(entry, row) for row in self._kept.pop(index, ())):
            message = f"what is kept of entry {index}, which is archived, is not what that entry says"
            self._find(Flaw.RECOLLECTION_REPLACED, where, index, message)

    def _find(self, flaw: Flaw, where: str, index: int, message: str) -> None:
        self._add(Finding(flaw, where, index, message))

    def _add(self, finding: Finding) -> None:
        if len(self._findings) < MAX_FINDINGS:
            self._findings.append(finding)


_DECODER = msgspec.json.Decoder(_Envelope)
