"""The end of a grant: access is cut, that is tested and recorded, and the object stays as a record.

In the usual case one pass does it all. Where the tests do not show at once that access ended (the API server
believes a deleted account's token for some seconds, a list is not published yet, something does not answer),
the closure is recorded nevertheless, the grant is Closing, and what was withdrawn is withdrawn and tested
again, later and later, until it is shown. A deleted object is not held for that beyond `HOLDING_BOUND`: it is
let go, and a tombstone in the log names what was left.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from pilot_identity.core.audit.entries import Entry, EntryType
from pilot_identity.core.decisions import kubernetes_access
from pilot_identity.core.decisions.announced import abandon, adopted
from pilot_identity.core.decisions.grants.case import Case
from pilot_identity.core.decisions.grants.endings import Ending
from pilot_identity.core.decisions.grants.lifecycle import Happening, follow
from pilot_identity.core.decisions.holding import HOLDING_BOUND, is_overdue
from pilot_identity.core.decisions.plan import (
    WITHDRAWN,
    AccessDenied,
    DeleteAccount,
    DeleteCredential,
    Notice,
    OnRevocationList,
    Outcome,
    Plan,
    Proving,
    Revoke,
    SecretGone,
    Test,
    Unbind,
    Withdrawal,
)
from pilot_identity.core.decisions.proofs import (
    UNPROVEN_AFTER,
    is_proven,
    residual_until,
    retry_at,
    revoked_of,
    same_but_time,
    storable,
    unproven,
)
from pilot_identity.core.resources.conditions import ConditionType, Finding, Reason, cut, find
from pilot_identity.core.resources.parsing import encode
from pilot_identity.core.resources.task_grant import (
    ClosureStatus,
    GrantCredentialStatus,
    Phase,
    Proof,
    TaskGrantStatus,
)

CLOSED = "closed"
"""The step that records a grant's end."""
_READY, _UNPROVEN = ConditionType.READY, ConditionType.REVOCATION_UNPROVEN
_HAPPENINGS = {
    Phase.COMPLETED: Happening.COMPLETED,
    Phase.EXPIRED: Happening.TIME_UP,
    Phase.REVOKED: Happening.REVOKED,
}
"""What leads from Closing to the end that the closure names."""


def rest(case: Case) -> Plan:
    """A grant that ended stays as a record for its stage's retention; after that the object goes.

    An announcement that is still open is one whose Secret was found foreign, or one that was made by
    another process after the end: its Secret, if it is ours, goes.
    """
    metadata = case.grant.metadata
    announced = case.seen.announced
    is_out = announced is not None and announced.was_released
    withdraw = withdrawals(knowing_announced(case)) if is_out else ()
    if metadata.is_deleting:
        return Plan(withdraw=withdraw, let_go=metadata.is_held)
    kept_until = _kept_until(case)
    if kept_until is None or case.moment.now < kept_until:
        return Plan(withdraw=withdraw, recheck_at=kept_until)
    return Plan(withdraw=withdraw, discard=True)


def _kept_until(case: Case) -> dt.datetime | None:
    """Until when an ended grant's object stays; for ever where its closure is not proven and recorded."""
    status = case.grant.status
    if status.phase is Phase.DENIED:
        ended = status.decision.decided_at if status.decision is not None else None
    else:
        ended = status.closure.proven_at if status.closure is not None else None
    return ended + case.seen.retention if ended is not None else None


def _recorded(case: Case) -> ClosureStatus | None:
    """The end that the log has and the status does not; its proofs only if they are of what is out now."""
    if case.seen.closed is None:
        return None
    index, entry = case.seen.closed
    try:
        closure = msgspec.convert({**entry.data["closure"], "auditIndex": index}, ClosureStatus)
        withdrawn = entry.data.get("withdrawn", {}).get("id")
    except (msgspec.ValidationError, KeyError, TypeError, AttributeError):
        return None  # no version wrote it so; an end never fails for what the log has
    known = case.grant.status.credential
    if closure.outcome not in set(_HAPPENINGS):
        return None
    if withdrawn == (known.id if known is not None else None):
        return closure
    return msgspec.structs.replace(
        closure,
        withdrawn_at=None,
        proven_at=None,
        proofs=(),
        residual_until=residual_until(case.grant, case.moment.now),
    )


def _knowing(case: Case, closure: ClosureStatus) -> Case:
    """The case of a grant whose status tells of its end."""
    phase = follow(case.grant.status.phase, Happening.UNPROVEN)
    status = msgspec.structs.replace(case.grant.status, phase=phase, closure=closure)
    grant = msgspec.structs.replace(case.grant, status=status)
    return replace(case, seen=replace(case.seen, grant=grant))


def withdrawals(case: Case) -> tuple[Withdrawal, ...]:
    """Withdraw what is out: what the log announced and released, else what the status knows.

    What gives access by itself goes first; the revocation lists are for copies that somebody took before.
    """
    known, announced = case.grant.status.credential, case.seen.announced
    uid = known.secret_uid if known else ""
    if announced is not None and announced.was_released:
        uid = announced.secret_uid
    revoked = revoked_of(case.grant, case.moment.now)
    return (
        *kubernetes_access.withdrawals(case.seen),
        *((Revoke(revoked),) if revoked is not None else ()),
        *((DeleteCredential(case.grant.metadata.namespace, case.grant.secret, uid),) if uid else ()),
    )


def _tests(case: Case) -> tuple[Test, ...]:
    """Test what `withdrawals` took back."""
    grant, credential = case.grant, case.grant.status.credential
    revoked = revoked_of(grant, case.moment.now)
    has_secret = credential is not None and credential.secret_uid
    return (
        *kubernetes_access.tests(case.seen),
        *((SecretGone(case.owner, grant.secret, credential.id),) if credential and has_secret else ()),
        *((OnRevocationList(revoked),) if revoked is not None else ()),
    )


def end(case: Case, ending: Ending) -> Plan:
    """Cut the access, test that it is cut, record it, say so; the same after a crash.

    An end that the log has already is this grant's end, whatever ends it now: its entry stays, and what it
    does not show is shown by another.
    """
    case = knowing_announced(case)
    recorded = _recorded(case)
    if recorded is not None:
        return end_again(_knowing(case, recorded))
    return Plan(
        withdraw=withdrawals(case),
        prove=Proving(_tests(case), lambda proofs: _close(case, ending, proofs)),
    )


def end_again(case: Case) -> Plan:
    """A closing grant: withdraw and test again, until everything is shown."""
    case = knowing_announced(case)
    announced = case.seen.announced
    if announced is not None and announced.may_be_released(case.moment.now):
        # Another process announced it while this one closed the grant; it may be out in a moment.
        return Plan(withdraw=withdrawals(case), recheck_at=announced.settled_at)
    shown = _shown(case)
    tests = _tests(case)

    def conclude(proofs: tuple[Proof, ...]) -> Plan:
        told = {**shown, **{proof.name: proof for proof in proofs}}
        order = (WITHDRAWN, *(test.name for test in tests))
        return _close_again(case, tuple(told[name] for name in order if name in told))

    return Plan(
        withdraw=tuple(one for one in withdrawals(case) if _is_to_be_repeated(one, shown)),
        prove=Proving(tuple(test for test in tests if test.name not in shown), conclude),
    )


def _shown(case: Case) -> dict[str, Proof]:
    """What an earlier round showed, by the test's name: it is neither withdrawn nor tested again.

    A thousand ends at once would otherwise hinder each other, since few tokens are refused at once. Nothing
    counts as shown where not everything was withdrawn, or where the rest takes so long that something else
    must be the matter: then all is done anew.
    """
    closure = case.grant.status.closure
    if closure is None or closure.withdrawn_at is None or case.seen.announced is not None:
        return {}
    if case.moment.now - closure.withdrawn_at >= UNPROVEN_AFTER:
        return {}
    return {proof.name: proof for proof in closure.proofs if proof.proven}


def _is_to_be_repeated(withdrawal: Withdrawal, shown: Mapping[str, Proof]) -> bool:
    """Whether an order is given again after an earlier round showed something."""
    match withdrawal:
        case DeleteCredential():
            return SecretGone.name not in shown
        case Unbind():
            return AccessDenied.name not in shown
        case DeleteAccount():
            # The account is gone; the API server believes its token for some seconds nevertheless.
            return not shown
        case _:
            # What is only kept in memory is said again: this may be another process.
            return True


def knowing_announced(case: Case) -> Case:
    """The case with what was announced and released told in the status, so that nothing below forgets it."""
    announced = case.seen.announced
    if announced is None or not announced.was_released:
        return case
    credential = msgspec.convert(adopted(announced), GrantCredentialStatus)
    status = msgspec.structs.replace(case.grant.status, credential=credential, issuances=credential.issuance)
    grant = msgspec.structs.replace(case.grant, status=status)
    return replace(case, seen=replace(case.seen, grant=grant))


def _close(case: Case, ending: Ending, proofs: tuple[Proof, ...]) -> Plan:
    """Record the end; it is final at once where everything is shown."""
    grant, now = case.grant, case.moment.now
    final = follow(grant.status.phase, ending.happening)
    closure = ClosureStatus(
        outcome=final.value,
        reason=ending.reason,
        message=cut(ending.message),
        requested_at=ending.asked_at,
        withdrawn_at=_withdrawn_at(proofs, now),
        proven_at=_tested_at(proofs, now) if is_proven(proofs) else None,
        proofs=proofs,
        residual_until=residual_until(grant, now),
    )
    closed = case.entry(CLOSED, EntryType.GRANT_CLOSED, _told(case, closure))
    # What is pending may end before anybody looked at it.
    entries = (case.requested, closed) if grant.status.phase is Phase.PENDING else (closed,)
    notice = case.notice(ending.reason, "Close", f"{final}: {ending.message}")
    if closure.proven_at is not None:
        return _conclude(case, closure, entries, (notice,))
    return _go_on(case, closure, entries, (notice,))


def _close_again(case: Case, proofs: tuple[Proof, ...]) -> Plan:
    """Record that it is shown now; or, once, that it takes too long."""
    now, before = case.moment.now, case.grant.status.closure
    if before is None:
        raise ValueError("a closing grant has a closure")
    closure = msgspec.structs.replace(
        before,
        withdrawn_at=before.withdrawn_at or _withdrawn_at(proofs, now),
        proven_at=_tested_at(proofs, now) if is_proven(proofs) else None,
        proofs=before.proofs if same_but_time(before.proofs, proofs) else proofs,
    )
    if closure.proven_at is None:
        return _go_on(case, closure, (), ())
    if before.proven_at is not None:
        # Its entry says so; the operator was killed before the status did.
        notice = case.notice(Reason(before.reason), "Close", f"{before.outcome}: {before.message}")
        return _conclude(case, before, (), (notice,))
    entry = case.entry("proven", EntryType.GRANT_PROVEN, _told(case, closure))
    notice = case.notice(Reason(closure.reason), "Prove", f"{closure.outcome}: shown that access ended")
    return _conclude(case, closure, (entry,), (notice,))


def _conclude(
    case: Case, closure: ClosureStatus, entries: tuple[Entry, ...], notices: tuple[Notice, ...]
) -> Plan:
    """Everything is shown: the phase that the grant ends in, or off with a deleted object."""
    grant = case.grant
    if grant.metadata.is_deleting:
        return Plan(
            entries=(*_abandoned(case), *entries),
            notices=notices,
            let_go=grant.metadata.is_held,
            is_overdue=is_overdue(grant.metadata, case.moment.now),
        )
    phase = follow(grant.status.phase, _HAPPENINGS[Phase(closure.outcome)])
    finding = Finding(_READY, status=True, reason=Reason(closure.reason), message=closure.message)
    is_first = grant.status.phase is not Phase.CLOSING

    def new_status(outcome: Outcome) -> TaskGrantStatus:
        index = outcome.index if is_first else closure.audit_index
        closed = msgspec.structs.replace(closure, audit_index=index)
        ended = msgspec.structs.replace(grant.status, phase=phase, closure=closed)
        return storable(case.settled(ended, finding), case.moment.now)

    return Plan(
        entries=(*_abandoned(case), *entries),
        status=new_status,
        notices=notices,
        recheck_at=closure.proven_at + case.seen.retention if closure.proven_at is not None else None,
    )


def _go_on(
    case: Case, closure: ClosureStatus, entries: tuple[Entry, ...], notices: tuple[Notice, ...]
) -> Plan:
    """Not everything is shown: say so, and come back; or let a deleted object go at its bound."""
    grant, now = case.grant, case.moment.now
    missing = unproven(closure.proofs)
    if is_overdue(grant.metadata, now):
        tombstone = case.entry("tombstone", EntryType.GRANT_UNPROVEN, _left(case, closure))
        note = f"let go, though not shown that access ended: {missing}"
        return Plan(
            entries=(*_abandoned(case), *entries, tombstone),
            notices=(*notices, case.notice(Reason.PROOF_OVERDUE, "LetGo", cut(note), warning=True)),
            let_go=grant.metadata.is_held,
            is_overdue=True,
        )
    told = find(grant.status.conditions, _UNPROVEN)
    since = dt.datetime.fromisoformat(told.last_transition_time) if told is not None else now
    was_late = told is not None and told.status == "True"
    is_late = was_late or now - since >= UNPROVEN_AFTER
    reason = Reason.PROOF_OVERDUE if is_late else Reason.PROOF_PENDING
    findings = (
        Finding(_READY, status=False, reason=reason, message=f"{closure.message}; not shown: {missing}"),
        Finding(_UNPROVEN, status=is_late, reason=reason, message=missing),
    )
    if is_late and not was_late:
        entries = (*entries, case.entry("unproven", EntryType.GRANT_UNPROVEN, _left(case, closure)))
        note = f"not shown that access ended: {missing}"
        notices = (*notices, case.notice(reason, "Prove", cut(note), warning=True))
    is_first = grant.status.phase is not Phase.CLOSING
    phase = follow(grant.status.phase, Happening.UNPROVEN)

    def new_status(outcome: Outcome) -> TaskGrantStatus:
        index = outcome.index if is_first else closure.audit_index
        closing = msgspec.structs.replace(closure, audit_index=index)
        unended = msgspec.structs.replace(grant.status, phase=phase, closure=closing)
        return storable(case.settled(unended, *findings), now)

    recheck = retry_at(since, now)
    if grant.metadata.deletion_timestamp is not None:
        recheck = min(recheck, max(now, grant.metadata.deletion_timestamp + HOLDING_BOUND))
    return Plan(entries=(*_abandoned(case), *entries), status=new_status, notices=notices, recheck_at=recheck)


def _abandoned(case: Case) -> tuple[Entry, ...]:
    """The entry that an announcement which was never released wants before it is forgotten."""
    announced = case.seen.announced
    is_open = announced is not None and not announced.was_released
    return (abandon(announced, case.moment),) if announced is not None and is_open else ()


def _told(case: Case, closure: ClosureStatus) -> dict[str, Any]:
    """What the closing entry tells: how it ended, what was withdrawn, and what went on the lists."""
    grant = case.grant
    data: dict[str, Any] = {"closure": encode(closure), "stage": grant.status.stage}
    data["closure"].pop("auditIndex", None)
    credential = grant.status.credential
    if credential is not None:
        data["withdrawn"] = {
            "id": credential.id,
            "serial": credential.serial,
            "secret": credential.secret_name,
        }
    revoked = revoked_of(grant, case.moment.now)
    if revoked is not None:
        data["revoked"] = encode(revoked)
    return data


def _left(case: Case, closure: ClosureStatus) -> dict[str, Any]:
    """What an entry tells of access whose end is not shown: where to look, and when it lapses by itself."""
    told = _told(case, closure)
    credential = case.grant.status.credential
    left: dict[str, Any] = {"proofs": [encode(proof) for proof in closure.proofs if not proof.proven]}
    if credential is not None and credential.kubernetes is not None:
        left["kubernetes"] = encode(credential.kubernetes)
    if closure.residual_until is not None:
        left["lapsesAt"] = encode(closure.residual_until)
    return {**told, "left": left, "letGo": is_overdue(case.grant.metadata, case.moment.now)}


def _withdrawn_at(proofs: Sequence[Proof], now: dt.datetime) -> dt.datetime | None:
    """When everything was withdrawn: just before the first test; `None` where a withdrawal failed."""
    if any(proof.name == WITHDRAWN for proof in proofs):
        return None
    return min((proof.at for proof in proofs if proof.at is not None), default=now)


def _tested_at(proofs: Sequence[Proof], now: dt.datetime) -> dt.datetime:
    return max((proof.at for proof in proofs if proof.at is not None), default=now)
