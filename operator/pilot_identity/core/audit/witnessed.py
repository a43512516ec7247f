"""What witnesses say of a log that was read: which head each cosigned, when, and whether it still stands.

A cosigned head is a promise that the log's key alone cannot take back. So a log is held to all of them, the
ones that are found beside it too: whoever published a head cannot complain of being held to it.
"""

from __future__ import annotations

import datetime as dt
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pilot_identity.core.audit.arrivals import CLOCK_SKEW, Arrivals
from pilot_identity.core.audit.checkpoint import Checkpoint, CheckpointError, LogVerifier
from pilot_identity.core.audit.cosignature import CosignatureVerifier
from pilot_identity.core.audit.findings import Finding, Flaw
from pilot_identity.core.audit.proofs import ProofError, Tree


@dataclass(frozen=True, slots=True)
class Word:
    """What one witness says.

    Attributes:
        is_given: whether its key came from the reader, not from beside the log.
        head: the largest head that it cosigned of those that were found; `None` where it cosigned none.
        at: when it cosigned that.
        note: that head, with the log's signature and the witness's own.
        stands: whether the log begins with it; `None` where that cannot be told.
        findings: what is wrong, of this head or of another that it cosigned.
    """

    witness: CosignatureVerifier
    is_given: bool
    head: Checkpoint | None = None
    at: dt.datetime | None = None
    note: str = ""
    stands: bool | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def covered(self) -> int:
        """How many entries are under a head of this very log that it cosigned."""
        return self.head.size if self.head is not None and self.stands and not self.findings else 0

    def is_fresh(self, now: dt.datetime, within: dt.timedelta | None) -> bool:
        """Whether it cosigned no longer ago than `within`; not by a time that is yet to come."""
        if self.at is None:
            return False
        return within is None or -CLOCK_SKEW <= now - self.at <= within

    def is_good(self, now: dt.datetime, within: dt.timedelta | None, arrivals: Arrivals) -> bool:
        """Whether it counts.

        Args:
            now: by the reader's clock.
            within: for a reader who wants that everything which is in the log for longer than this is under a
                head that was cosigned no longer ago than this; `None` for one to whom time is nothing.
            arrivals: since when entries are in the log.
        """
        if not self.covered or not self.is_fresh(now, within):
            return False
        return within is None or arrivals.overdue(self.covered, now, within) is None


def hear(  # noqa: PLR0913 - what was read, and by whose word
    witness: CosignatureVerifier,
    notes: Iterable[tuple[str, str]],
    verifier: LogVerifier,
    tree: Tree,
    *,
    is_given: bool,
    is_whole: bool,
) -> Word:
    """Hear one witness.

    Args:
        witness: by its key.
        notes: where each was found, and the note; what neither the log nor the witness signed is passed over.
        verifier: the log's.
        tree: of the entries that were read.
        is_given: whether the reader brought the witness's key.
        is_whole: whether the tree has all entries, so that a head beyond it means that some are gone.
    """
    findings: list[Finding] = []
    largest = Word(witness, is_given)
    for where, note in notes:
        try:
            at, head = witness.cosigned_at(note), verifier.open(note)
        except CheckpointError:
            continue
        stands = _stands(head, tree, is_whole=is_whole)
        if stands is False:
            findings.append(_finding(where, witness, head, at, tree))
        newest = (largest.head.size, largest.at) if largest.head and largest.at else (-1, at)
        if (head.size, at) > newest:
            largest = Word(witness, is_given, head, at, note, stands)
    return Word(
        largest.witness, is_given, largest.head, largest.at, largest.note, largest.stands, tuple(findings)
    )


def told_by(note: str, witnesses: Iterable[CosignatureVerifier], verifier: LogVerifier) -> frozenset[str]:
    """Which of the witnesses cosigned a note that the log signed, by vkey; none where it did not."""
    try:
        verifier.open(note)
    except CheckpointError:
        return frozenset()
    return frozenset(str(each) for each in witnesses if _cosigned(each, note))


def _cosigned(witness: CosignatureVerifier, note: str) -> bool:
    try:
        witness.cosigned_at(note)
    except CheckpointError:
        return False
    return True


def combined(note: str, words: Sequence[Word]) -> str:
    """A head with the cosignatures of all witnesses who cosigned this very head, text for text."""
    body = note.rpartition("\n\n")[0]
    lines = [
        word.witness.lines_of(word.note)
        for word in words
        if word.note and word.stands and word.note.rpartition("\n\n")[0] == body
    ]
    return note + "".join(line for line in lines if line not in note)


def _stands(head: Checkpoint, tree: Tree, *, is_whole: bool) -> bool | None:
    if head.size > tree.size:
        return False if is_whole else None
    try:
        return hmac.compare_digest(tree.root(head.size), head.root)
    except ProofError:  # what lies before the first entry that was read
        return None


def _finding(
    where: str, witness: CosignatureVerifier, head: Checkpoint, at: dt.datetime, tree: Tree
) -> Finding:
    told = f"witness {witness.name} cosigned {head.size} entries on {at:%Y-%m-%d %H:%M:%SZ}"
    if head.size > tree.size:
        message = f"{told}; the log has {tree.size}: the newest were cut off"
        return Finding(Flaw.TAIL_TRUNCATED, where, tree.size, message)
    message = (
        f"{told} with root {head.root.hex()}; now they make {tree.root(head.size).hex()}: "
        "the log was rewritten since"
    )
    return Finding(Flaw.HEAD_FORKED, where, -1, message)
