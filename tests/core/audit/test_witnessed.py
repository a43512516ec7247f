from __future__ import annotations

import datetime as dt
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilot_identity.core.audit.arrivals import Arrivals
from pilot_identity.core.audit.checkpoint import Checkpoint, LogSigner
from pilot_identity.core.audit.cosignature import Cosigner
from pilot_identity.core.audit.findings import Flaw
from pilot_identity.core.audit.proofs import Tree
from pilot_identity.core.audit.witnessed import Word, combined, hear, told_by

LOG = LogSigner("pilots.example.org/log", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
WITNESS = Cosigner("witness.example.org/w1", Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))
STRANGER = Cosigner("stranger.example.org", Ed25519PrivateKey.from_private_bytes(bytes(range(2, 34))))
NOW = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
UNDATED = Arrivals()
"""Of no entries: nothing is beyond any head."""


def tree(size: int, salt: str = "") -> Tree:
    """A log's tree; another salt makes another history."""
    return Tree(hashlib.sha256(f"{salt}{number}".encode()).digest() for number in range(size))


def cosigned(of: Tree, *, by: Cosigner = WITNESS, at: dt.datetime = NOW, log: LogSigner = LOG) -> str:
    """A tree's head, signed and cosigned."""
    note = log.sign(Checkpoint(LOG.name, of.size, of.root()))
    return note + by.cosign(note, at)


def heard(*notes: str, now: Tree, is_whole: bool = True) -> Word:
    """What the witness says of a log that has this tree now."""
    found = [(f"note-{number}", note) for number, note in enumerate(notes)]
    return hear(WITNESS.verifier(), found, LOG.verifier(), now, is_given=True, is_whole=is_whole)


def test_a_log_that_goes_on_from_what_was_cosigned_stands() -> None:
    """The largest head counts, whatever the order."""
    word = heard(cosigned(tree(5)), cosigned(tree(8)), cosigned(tree(3)), now=tree(10))
    assert word.head == Checkpoint(LOG.name, 8, tree(8).root())
    assert (word.stands, word.findings, word.at) == (True, (), NOW)
    assert word.is_good(NOW, None, UNDATED)


@pytest.mark.parametrize("within, is_good", [(HOUR, True), (HOUR / 2, False)])
def test_an_old_word_counts_only_for_who_takes_old_ones(within: dt.timedelta, is_good: bool) -> None:
    """How long ago it may be is the reader's to say."""
    assert heard(cosigned(tree(5)), now=tree(5)).is_good(NOW + HOUR, within, UNDATED) is is_good


def test_a_log_that_was_cut_is_named() -> None:
    """Even if an older head, which stands, was cosigned too."""
    word = heard(cosigned(tree(5)), cosigned(tree(8)), now=tree(6))
    assert [(found.flaw, found.where, found.index) for found in word.findings] == [
        (Flaw.TAIL_TRUNCATED, "note-1", 6)
    ]
    assert not word.is_good(NOW, None, UNDATED)


def test_a_log_that_was_rewritten_is_named() -> None:
    """Even if a newer head was cosigned that stands: one of the two is a forgery that its witness signed."""
    word = heard(cosigned(tree(5, "other")), cosigned(tree(8)), now=tree(10))
    assert [found.flaw for found in word.findings] == [Flaw.HEAD_FORKED]
    assert word.stands is True
    assert not word.is_good(NOW, None, UNDATED)


def test_what_cannot_be_told_counts_for_nothing() -> None:
    """Of a log that is broken further down, or whose beginning was not read."""
    beyond = heard(cosigned(tree(8)), now=tree(6), is_whole=False)
    whole = tree(9)
    late = Tree.beginning(8, whole.subtrees(0, 8))
    before = heard(cosigned(tree(5)), now=late)
    for word in (beyond, before):
        assert (word.stands, word.findings) == (None, ())
        assert not word.is_good(NOW, None, UNDATED)


def test_what_others_signed_is_passed_over() -> None:
    """By another witness, or of a log with another key: neither is this witness's word on this log."""
    imposter = LogSigner(LOG.name, Ed25519PrivateKey.generate())
    notes = [cosigned(tree(8), by=STRANGER), cosigned(tree(9), log=imposter), "nonsense", ""]
    word = heard(*notes, now=tree(10))
    assert (word.head, word.stands, word.findings) == (None, None, ())
    assert not word.is_good(NOW, None, UNDATED)


def test_cosignatures_of_this_very_head_are_put_together() -> None:
    """Those of other heads stay where they are; none comes twice."""
    note = LOG.sign(Checkpoint(LOG.name, 8, tree(8).root()))
    mine, other = cosigned(tree(8)), cosigned(tree(5), by=STRANGER)
    words = [
        heard(mine, now=tree(8)),
        hear(STRANGER.verifier(), [("", other)], LOG.verifier(), tree(8), is_given=False, is_whole=True),
    ]
    assert combined(note, words) == mine
    assert combined(mine, words) == mine


def test_a_note_tells_by_whom_it_was_cosigned() -> None:
    """Only of those who are asked about, and only where the log itself signed it."""
    imposter = LogSigner(LOG.name, Ed25519PrivateKey.generate())
    witnesses, verifier = (WITNESS.verifier(), STRANGER.verifier()), LOG.verifier()
    assert told_by(cosigned(tree(8)), witnesses, verifier) == {str(WITNESS.verifier())}
    assert told_by(cosigned(tree(8)), witnesses[1:], verifier) == frozenset()
    for note in (cosigned(tree(8), log=imposter), LOG.sign(Checkpoint(LOG.name, 8, tree(8).root())), "x", ""):
        assert told_by(note, witnesses, verifier) == frozenset()
