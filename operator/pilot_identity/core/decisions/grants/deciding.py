"""The decision on a request: every check is asked, and what they say is put down. Replay asks here too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pilot_identity.core.decisions.grants.approving import Word
from pilot_identity.core.decisions.grants.checks.approvals import required, tally_of
from pilot_identity.core.decisions.grants.checks.table import checks_of
from pilot_identity.core.decisions.grants.seen import Request
from pilot_identity.core.decisions.objection import Answer, Objection, ask_all
from pilot_identity.core.resources import Approval
from pilot_identity.core.resources.conditions import Reason, cut
from pilot_identity.core.resources.digests import pilot_digest, policy_digest
from pilot_identity.core.resources.parsing import encode
from pilot_identity.core.resources.task_grant import CheckResult, DecisionStatus


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision.

    Attributes:
        objection: the first that a check had; `None` where all is in order.
        words: the approvals, or the denial, on which it rests.
    """

    objection: Objection | None
    words: tuple[Word, ...]
    status: DecisionStatus

    @property
    def heard(self) -> tuple[Approval, ...]:
        """The approvals on which it rests."""
        return tuple(word.approval for word in self.words)


def decide(request: Request) -> Decided:
    """Ask every check of the request's stage, in order."""
    answers = ask_all(checks_of(request.stage), request)
    objection = answers[-1].objection
    words = _words(request, objection)
    status = DecisionStatus(
        allowed=objection is None,
        reason=objection.reason if objection else "",
        message=cut(objection.message) if objection else "",
        checks=tuple(map(_result, answers)),
        approvals=tuple(word.counted for word in words),
        owners=request.pilot.spec.owners.people,
        policy_digest=policy_digest(request.stage),
        pilot_digest=pilot_digest(request.pilot),
        decided_at=request.now,
    )
    return Decided(objection, words, status)


def _words(request: Request, objection: Objection | None) -> tuple[Word, ...]:
    """The approvals, or the denial, on which the decision rests."""
    if not request.seen.approvals:
        return ()
    said = tally_of(request)
    if objection is None:
        return said.approvals[: required(request)]
    if objection.reason is Reason.APPROVAL_DENIED and said.denial is not None:
        return (said.denial,)
    return ()


def _result(answer: Answer) -> CheckResult:
    objection = answer.objection
    said = objection.message if objection is not None else answer.remark
    return CheckResult(answer.name, passed=objection is None, message=cut(said))


def told(status: DecisionStatus) -> dict[str, Any]:
    """Return a decision as an entry tells it."""
    encoded: dict[str, Any] = encode(status)
    encoded.pop("auditIndex", None)
    return encoded
