from __future__ import annotations

import ast
import datetime as dt
import hashlib
import inspect

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from pilot_identity.core.audit.checkpoint import Checkpoint, LogSigner
from pilot_identity.core.audit.merkle import EMPTY_ROOT
from pilot_identity.core.audit.proofs import Tree
from pilot_identity.core.witness import judgement
from pilot_identity.core.witness.judgement import Case, Refusal, Refused, Seen, judge, opened
from pilot_identity.core.witness.request import AddCheckpoint

LOG = LogSigner("pilots.example.org/log", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
LOGS = {LOG.name: LOG.verifier()}
NOW = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)
SIZE = 40


def tree(salt: str = "") -> Tree:
    """A log's tree; another salt makes another history."""
    return Tree(hashlib.sha256(f"{salt}{number}".encode()).digest() for number in range(SIZE))


TREE, OTHER = tree(), tree("other")


def head(size: int, of: Tree = TREE) -> Checkpoint:
    """A head of the log."""
    return Checkpoint(LOG.name, size, of.root(size))


def case(  # noqa: PLR0913 - what may differ
    old: int,
    size: int,
    *,
    seen: int | None = 0,
    of: Tree = TREE,
    proof: tuple[bytes, ...] | None = None,
    may_begin: bool = False,
    now: dt.datetime = NOW,
) -> Case:
    """A request to go from one size to another, where `seen` was cosigned last."""
    shown = of.consistency(old, size) if proof is None and 0 < old <= size else proof or ()
    asked = AddCheckpoint(old, shown, LOG.sign(head(size, of)))
    known = Seen(head(seen), NOW) if seen is not None else None
    return Case(asked, head(size, of), known, now, may_begin)


def why(judged: Case) -> Refusal | None:
    """Why it is refused; `None` where it is not."""
    refused = judge(judged)
    return refused.refusal if refused is not None else None


@given(st.lists(st.integers(0, SIZE), min_size=2, max_size=2).map(sorted))
def test_a_head_that_goes_on_is_cosigned(sizes: list[int]) -> None:
    """From any size to any other, the same one again among them."""
    old, size = sizes
    assert why(case(old, size, seen=old)) is None


@given(st.lists(st.integers(1, SIZE), min_size=2, max_size=2).map(sorted))
def test_another_history_is_never_cosigned(sizes: list[int]) -> None:
    """With a proof that is right for itself, and with one that is right for the true log."""
    old, size = sizes
    assert why(case(old, size, seen=old, of=OTHER)) is Refusal.INCONSISTENT
    true = TREE.consistency(old, size)
    assert why(case(old, size, seen=old, of=OTHER, proof=true)) is Refusal.INCONSISTENT


CASES = {
    "a head behind its own proof": (case(9, 8, seen=9), Refusal.OLD_BEYOND),
    "a proof from before the last head": (case(5, 20, seen=9), Refusal.NOT_THE_LAST),
    "a proof from behind the last head": (case(12, 20, seen=9), Refusal.NOT_THE_LAST),
    "a smaller head than the last": (case(5, 5, seen=9), Refusal.NOT_THE_LAST),
    "a log that asks where it stands": (case(0, 20, seen=9), Refusal.NOT_THE_LAST),
    "no proof at all": (case(9, 20, seen=9, proof=()), Refusal.INCONSISTENT),
    "a proof too long": (case(9, 20, seen=9, proof=(bytes(32),) * 12), Refusal.INCONSISTENT),
    "a proof from the empty log": (case(0, 20, proof=(bytes(32),)), Refusal.INCONSISTENT),
    "another root at the same size": (case(9, 9, seen=9, of=OTHER), Refusal.INCONSISTENT),
    "a log of which nothing is known": (case(0, 20, seen=None), Refusal.NOT_BEGUN),
    "the same, and a proof from somewhere": (case(9, 20, seen=None), Refusal.NOT_BEGUN),
    "a log to begin with, and a proof": (case(9, 20, seen=None, may_begin=True), Refusal.NOT_THE_LAST),
    "a clock that went back": (case(9, 20, seen=9, now=NOW - dt.timedelta(seconds=1)), Refusal.CLOCK),
}


@pytest.mark.parametrize("judged, refusal", CASES.values(), ids=CASES)
def test_what_is_refused_has_its_name(judged: Case, refusal: Refusal) -> None:
    """And the size that was cosigned last."""
    refused = judge(judged)
    assert refused is not None
    assert (refused.refusal, refused.size) == (refusal, judged.size)


def test_a_log_may_begin_where_that_is_said() -> None:
    """With whatever head is shown."""
    assert why(case(0, 20, seen=None, may_begin=True)) is None


def test_the_empty_log_has_one_root() -> None:
    """Which is the hash of nothing."""
    note = LOG.sign(Checkpoint(LOG.name, 0, bytes(32)))
    asked = AddCheckpoint(0, (), note)
    wrong = Case(asked, Checkpoint(LOG.name, 0, bytes(32)), None, NOW, may_begin=True)
    assert why(wrong) is Refusal.INCONSISTENT
    right = Case(asked, Checkpoint(LOG.name, 0, EMPTY_ROOT), None, NOW, may_begin=True)
    assert why(right) is None


def test_the_same_second_again_is_not_back() -> None:
    """A cosignature tells whole seconds."""
    late = NOW.replace(microsecond=900_000)
    assert why(case(9, 20, seen=9, now=late)) is None


STRANGE = LogSigner(LOG.name, Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))
GOOD = LOG.sign(head(9))
OPENED = {
    "another log": (LOG.sign(Checkpoint("x", 9, TREE.root(9))), Refusal.UNKNOWN_LOG),
    "another key": (STRANGE.sign(head(9)), Refusal.NOT_SIGNED),
    "a changed size": (GOOD.replace("\n9\n", "\n10\n"), Refusal.NOT_SIGNED),
    "one good and one bad signature": (
        GOOD + LOG.sign(head(10)).splitlines(keepends=True)[-1],
        Refusal.NOT_SIGNED,
    ),
}


@pytest.mark.parametrize("note, refusal", OPENED.values(), ids=OPENED)
def test_a_head_that_its_log_did_not_sign_is_not_looked_at(note: str, refusal: Refusal) -> None:
    """Whoever sends it, and whatever it says."""
    told = opened(AddCheckpoint(0, (), note), LOGS)
    assert isinstance(told, Refused)
    assert told.refusal is refusal


def test_signatures_of_strangers_are_passed_over() -> None:
    """As signed-note.md asks."""
    stranger = LogSigner("w.example.org", Ed25519PrivateKey.generate()).sign(head(9)).splitlines()[-1]
    assert opened(AddCheckpoint(0, (), f"{GOOD}{stranger}\n"), LOGS) == head(9)


def test_every_refusal_has_a_meaning_in_words() -> None:
    """They are what whoever runs a log looks up."""
    parsed = ast.parse(inspect.getsource(judgement))
    (body,) = (node.body for node in parsed.body if isinstance(node, ast.ClassDef) and node.name == "Refusal")
    assert len([node for node in body[1:] if isinstance(node, ast.Expr)]) == len(Refusal)
