"""The judgement on a request: an ordered chain of checks, then a head to cosign, or a refusal by name."""

from __future__ import annotations

import datetime as dt
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from pilot_identity.core.audit.checkpoint import Checkpoint, CheckpointError, LogVerifier, split_note
from pilot_identity.core.audit.merkle import EMPTY_ROOT
from pilot_identity.core.audit.proofs import ProofError, verify_consistency
from pilot_identity.core.witness.request import AddCheckpoint


class Refusal(StrEnum):
    """Why a witness does not cosign. The docstring below each is its meaning in plain words."""

    UNKNOWN_LOG = "unknown-log"
    """The head is of a log that the witness was not told to watch."""
    NOT_SIGNED = "not-signed"
    """The log's key did not sign the head, or a signature in its name is not good."""
    NOT_BEGUN = "not-begun"
    """Nothing is known of the log, and the witness was not told to begin with whatever it is shown."""
    OLD_BEYOND = "old-beyond"
    """The proof would begin behind the head that it is to lead to."""
    NOT_THE_LAST = "not-the-last"
    """The proof does not begin at the head that was cosigned last; the answer tells its size."""
    INCONSISTENT = "inconsistent"
    """The head is not shown to go on from the one that was cosigned last: the log was rewritten, or cut and
    continued otherwise, or the proof is wrong."""
    CLOCK = "clock"
    """The witness's clock is behind the time of its last cosignature."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The newest head of a log that was cosigned, and when."""

    checkpoint: Checkpoint
    at: dt.datetime


@dataclass(frozen=True, slots=True)
class Refused:
    """No cosignature.

    Attributes:
        size: of the head that was cosigned last; 0 where none was.
    """

    refusal: Refusal
    message: str
    size: int = 0


@dataclass(frozen=True, slots=True)
class Case:
    """A head whose log is known and did sign it, and what was seen of that log before.

    Attributes:
        may_begin: whether a log of which nothing is known may be taken as it is shown.
    """

    request: AddCheckpoint
    head: Checkpoint
    seen: Seen | None
    now: dt.datetime
    may_begin: bool

    @property
    def size(self) -> int:
        """Of the head that was cosigned last."""
        return self.seen.checkpoint.size if self.seen is not None else 0

    @property
    def root(self) -> bytes:
        """Of the head that was cosigned last."""
        return self.seen.checkpoint.root if self.seen is not None else EMPTY_ROOT


def judge(case: Case) -> Refused | None:
    """Decide on a case; `None` means that its head is to be cosigned."""
    for check in CHECKS:
        refused = check(case)
        if refused is not None:
            return refused
    return None


def opened(request: AddCheckpoint, logs: Mapping[str, LogVerifier]) -> Checkpoint | Refused:
    """Open the head of a request by the key that is known for its log.

    Args:
        request: from anybody.
        logs: the logs that are watched, by their origins.
    """
    origin = request.note.split("\n", 1)[0]
    verifier = logs.get(origin)
    if verifier is None:
        return Refused(Refusal.UNKNOWN_LOG, "this witness does not watch a log of this origin")
    try:
        checkpoint = verifier.open(request.note)
    except CheckpointError as error:
        return Refused(Refusal.NOT_SIGNED, str(error))
    if "" in split_note(request.note)[0].removesuffix("\n").split("\n"):
        return Refused(Refusal.NOT_SIGNED, "a checkpoint has no empty lines")
    return checkpoint


def _old_is_not_beyond(case: Case) -> Refused | None:
    if case.request.old > case.head.size:
        message = f"old is {case.request.old}, the checkpoint's size {case.head.size}: old is no larger"
        return Refused(Refusal.OLD_BEYOND, message, case.size)
    return None


def _is_begun(case: Case) -> Refused | None:
    if case.seen is None and not case.may_begin:
        message = (
            "nothing is known of this log; whoever runs the witness can let it begin with what it is shown"
        )
        return Refused(Refusal.NOT_BEGUN, message)
    return None


def _old_is_the_last(case: Case) -> Refused | None:
    if case.request.old != case.size:
        return Refused(
            Refusal.NOT_THE_LAST, f"the last head that was cosigned has size {case.size}", case.size
        )
    return None


def _empty_tree_has_its_root(case: Case) -> Refused | None:
    if case.head.size == 0 and not hmac.compare_digest(case.head.root, EMPTY_ROOT):
        return Refused(Refusal.INCONSISTENT, "the root of the empty tree is the hash of nothing", case.size)
    return None


def _goes_on(case: Case) -> Refused | None:
    head = case.head
    try:
        verify_consistency(case.size, head.size, case.request.proof, case.root, head.root)
    except ProofError as error:
        return Refused(Refusal.INCONSISTENT, str(error), case.size)
    return None


def _clock_does_not_go_back(case: Case) -> Refused | None:
    if case.seen is not None and case.now.replace(microsecond=0) < case.seen.at:
        message = f"this witness's clock is behind its last cosignature, of {case.seen.at.isoformat()}"
        return Refused(Refusal.CLOCK, message, case.size)
    return None


CHECKS: tuple[Callable[[Case], Refused | None], ...] = (
    _old_is_not_beyond,  # Make sure that the request makes sense at all.
    _is_begun,  # Make sure that a state that was lost is not made up anew.
    _old_is_the_last,  # Make sure that the proof begins where this witness stands.
    _empty_tree_has_its_root,  # Make sure that the empty tree is the one that there is.
    _goes_on,  # Make sure that nothing was taken away or changed.
    _clock_does_not_go_back,  # Make sure that a later head never bears an earlier time.
)
"""In the order in which tlog-witness.md has them answered."""
