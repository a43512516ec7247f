"""A grant's life: decided, issued, renewed, ended."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from pilot_identity.core.audit.entries import Entry, EntryType, evidence
from pilot_identity.core.decisions.announced import Announced, Holding, abandon, adopted, announced_data
from pilot_identity.core.decisions.credentials import grant_order
from pilot_identity.core.decisions.endings import Ending, ending_of
from pilot_identity.core.decisions.fresh import Moment
from pilot_identity.core.decisions.grant_checks import CHECKS, RENEWAL_CHECKS, GrantSeen, Request, request_of
from pilot_identity.core.decisions.holding import is_overdue
from pilot_identity.core.decisions.lifecycle import Happening, follow
from pilot_identity.core.decisions.objection import Answer, Objection, ask_all
from pilot_identity.core.decisions.plan import (
    CredentialOrder,
    DeleteCredential,
    Notice,
    Outcome,
    Owner,
    Plan,
    Release,
    Withdrawal,
)
from pilot_identity.core.resources import Phase, TaskGrant
from pilot_identity.core.resources.conditions import ConditionType, Finding, Reason, cut, find, settle
from pilot_identity.core.resources.digests import grant_digest, pilot_digest, policy_digest
from pilot_identity.core.resources.parsing import encode
from pilot_identity.core.resources.task_grant import (
    CheckResult,
    ClosureStatus,
    DecisionStatus,
    GrantCredentialStatus,
    IssuedToken,
    TaskGrantStatus,
)

RATE_WINDOW = dt.timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class _Case:
    """One grant at one moment, with what every branch below needs."""

    seen: GrantSeen
    moment: Moment

    @property
    def grant(self) -> TaskGrant:
        return self.seen.grant

    @property
    def owner(self) -> Owner:
        return Owner(self.grant.key, self.grant.metadata.uid)

    @property
    def issuance(self) -> int:
        """The number of the next credential; numbers are never used twice."""
        return self.grant.status.issuances + 1

    def entry(self, step: str, kind: EntryType, data: Mapping[str, Any]) -> Entry:
        """Make an entry about this grant; `step` is unique in its life and the same after a crash."""
        grant = self.grant
        asked = {
            "pilot": grant.spec.pilot,
            "requestedBy": grant.spec.requested_by,
            "task": encode(grant.spec.task),
            "grantDigest": grant_digest(grant),
        }
        return Entry(
            id=f"{grant.metadata.uid}/{step}",
            type=kind,
            subject=str(grant.key),
            subject_uid=grant.metadata.uid,
            time=self.moment.now,
            data={**asked, **data},
        )

    def notice(self, reason: Reason, action: str, note: str, *, warning: bool = False) -> Notice:
        return Notice(self.owner, "Warning" if warning else "Normal", reason, action, note)

    def settled(self, status: TaskGrantStatus, *findings: Finding) -> TaskGrantStatus:
        """Date the findings into the status."""
        generation = self.grant.metadata.generation
        conditions = settle(status.conditions, findings, generation=generation, now=self.moment.now)
        return msgspec.structs.replace(status, observed_generation=generation, conditions=conditions)


def decide_grant(seen: GrantSeen, moment: Moment) -> Plan:
    """Decide what is to be done for a grant."""
    case = _Case(seen, moment)
    grant = seen.grant
    if grant.status.phase.is_terminal:
        return _rest(case)
    if seen.announced is not None:
        # Settled before anything else is decided, an end too, so that no branch below can forget it: what
        # is withdrawn is then what the status knows, and the closing entry names it.
        return _settle_announced(case, seen.announced)
    ending = ending_of(seen, moment.now)
    if ending is not None:
        return _end(case, ending)
    if grant.metadata.is_deleting:
        return Plan()
    if grant.status.phase is Phase.ACTIVE:
        return _carry_on(case)
    return _consider(case)


def _rest(case: _Case) -> Plan:
    """A grant that ended stays as a record; only its deletion still wants our finalizer off.

    An announcement that is still open is one whose Secret was found foreign, or one that was made by
    another process after the end: its Secret, if it is ours, goes.
    """
    metadata = case.grant.metadata
    withdraw = (
        _withdrawal(case) if case.seen.announced is not None and case.seen.announced.was_released else ()
    )
    return Plan(withdraw=withdraw, let_go=metadata.is_deleting and metadata.is_held)


def _withdrawal(case: _Case) -> tuple[Withdrawal, ...]:
    """Withdraw what is out: what the log announced and released, else what the status knows."""
    known, announced = case.grant.status.credential, case.seen.announced
    uid = known.secret_uid if known else ""
    if announced is not None and announced.was_released:
        uid = announced.secret_uid
    return (DeleteCredential(case.grant.metadata.namespace, case.grant.secret, uid),) if uid else ()


def _end(case: _Case, ending: Ending) -> Plan:
    """Cut the access, record it, say so; one pass, and the same pass after a crash."""
    grant, now = case.grant, case.moment.now
    credential = grant.status.credential
    phase = follow(grant.status.phase, ending.happening)
    closure = ClosureStatus(
        outcome=phase.value,
        reason=ending.reason,
        message=ending.message,
        requested_at=ending.asked_at,
        withdrawn_at=now,
        residual_until=credential.not_after if credential and credential.not_after > now else None,
    )
    data: dict[str, Any] = {"closure": encode(closure), "stage": grant.status.stage}
    if credential is not None:
        data["withdrawn"] = {
            "id": credential.id,
            "serial": credential.serial,
            "secret": credential.secret_name,
        }
    entry = case.entry("closed", EntryType.GRANT_CLOSED, data)
    finding = Finding(ConditionType.READY, status=True, reason=ending.reason, message=ending.message)

    def new_status(outcome: Outcome) -> TaskGrantStatus:
        closed = msgspec.structs.replace(closure, audit_index=outcome.index)
        status = msgspec.structs.replace(grant.status, phase=phase, closure=closed)
        return case.settled(status, finding)

    is_deleting = grant.metadata.is_deleting
    return Plan(
        withdraw=_withdrawal(case),
        entries=(entry,),
        status=None if is_deleting else new_status,
        notices=(case.notice(ending.reason, "Close", f"{phase}: {ending.message}"),),
        let_go=is_deleting and grant.metadata.is_held,
        is_overdue=is_overdue(grant.metadata, now),
    )


def _settle_announced(case: _Case, announced: Announced) -> Plan:
    """Say what became of the announced credential; the next pass goes on from there."""
    if announced.was_released:
        return _adopt(case, announced)
    if announced.holding is Holding.FOREIGN:
        message = (
            f"a Secret {case.grant.secret!r} exists that is not this grant's; it is never overwritten: name "
            "another in spec.secretName of a new grant"
        )
        objection = Objection(Reason.SECRET_NAME_TAKEN, message)
        if case.grant.status.phase is Phase.ACTIVE:
            return _lapse(case, objection)
        return _deny(case, objection, _decision_against(objection, case.moment))
    if announced.may_be_released(case.moment.now):
        is_ending = ending_of(case.seen, case.moment.now) is not None
        return Plan(withdraw=_withdrawal(case) if is_ending else (), recheck_at=announced.settled_at)
    status = msgspec.structs.replace(case.grant.status, issuances=announced.announcement.issuance)
    return Plan(
        entries=(abandon(announced, case.moment),), status=lambda _: status, recheck_at=case.moment.now
    )


def _adopt(case: _Case, announced: Announced) -> Plan:
    """The announced credential was released before the status said so: say so now."""
    data = announced.entry.data
    credential = msgspec.convert(adopted(announced), GrantCredentialStatus)
    status = msgspec.structs.replace(case.grant.status, credential=credential, issuances=credential.issuance)
    if announced.entry.type == EntryType.GRANT_ISSUED:
        status = msgspec.structs.replace(
            status,
            phase=follow(status.phase, Happening.ALLOWED),
            decision=msgspec.convert({**data["decision"], "auditIndex": announced.index}, DecisionStatus),
            stage=data["stage"],
            issued_at=announced.entry.time,
            expires_at=msgspec.convert(data["expiresAt"], dt.datetime),
        )
    wanted = case.settled(status, _issued(credential))
    note = f"{credential.spiffe_id} in Secret {case.grant.secret} (audit entry {announced.index})"
    return Plan(
        status=lambda _: wanted,
        notices=(case.notice(Reason.ISSUED, "Issue", note),),
        recheck_at=case.moment.now,
    )


def _decision_against(objection: Objection, moment: Moment) -> DecisionStatus:
    """A decision that was overtaken by what was found after it."""
    return DecisionStatus(
        allowed=False, reason=objection.reason, message=cut(objection.message), decided_at=moment.now
    )


def _consider(case: _Case) -> Plan:
    """Ask every check; deny, wait or issue."""
    request = request_of(case.seen)
    if isinstance(request, Objection):
        return _wait(case, request)
    answers = ask_all(CHECKS, request)
    objection = answers[-1].objection
    decision = DecisionStatus(
        allowed=objection is None,
        reason=objection.reason if objection else "",
        message=cut(objection.message) if objection else "",
        checks=tuple(map(_result, answers)),
        policy_digest=policy_digest(request.stage),
        pilot_digest=pilot_digest(request.pilot),
        decided_at=case.moment.now,
    )
    if objection is None:
        return _issue(case, request, decision)
    if objection.is_final:
        return _deny(case, objection, decision)
    return _wait(case, objection)


def _result(answer: Answer) -> CheckResult:
    objection = answer.objection
    return CheckResult(
        answer.name, passed=objection is None, message=cut(objection.message) if objection else ""
    )


def _wait(case: _Case, objection: Objection) -> Plan:
    """Say what the grant waits for; it is looked at again when that changes."""
    status = case.grant.status
    if objection.reason is Reason.APPROVAL_REQUIRED and status.phase is Phase.PENDING:
        status = msgspec.structs.replace(status, phase=follow(status.phase, Happening.NEEDS_APPROVAL))
    finding = Finding(ConditionType.READY, status=False, reason=objection.reason, message=objection.message)
    wanted = case.settled(status, finding)
    recheck = None
    if objection.reason is Reason.LIMIT_REACHED and case.seen.oldest_issue is not None:
        recheck = case.seen.oldest_issue + RATE_WINDOW
    told = any(before.reason == objection.reason for before in status.conditions)
    if wanted == case.grant.status or (told and objection.reason is Reason.LIMIT_REACHED):
        return Plan(recheck_at=recheck)
    notice = case.notice(objection.reason, "Wait", objection.message, warning=True)
    return Plan(status=lambda _: wanted, notices=() if told else (notice,), recheck_at=recheck)


def _deny(case: _Case, objection: Objection, decision: DecisionStatus) -> Plan:
    status = msgspec.structs.replace(
        case.grant.status, phase=follow(case.grant.status.phase, Happening.DENIED), decision=decision
    )
    findings = (
        Finding(ConditionType.READY, status=False, reason=objection.reason, message=objection.message),
        Finding(ConditionType.STALLED, status=True, reason=objection.reason, message=objection.message),
    )
    entries = [case.entry("denied", EntryType.GRANT_DENIED, {"decision": _decided(decision)})]
    if case.seen.announced is not None:
        entries.insert(0, abandon(case.seen.announced, case.moment))

    def new_status(outcome: Outcome) -> TaskGrantStatus:
        recorded = msgspec.structs.replace(decision, audit_index=outcome.index)
        return msgspec.structs.replace(case.settled(status, *findings), decision=recorded)

    return Plan(
        entries=tuple(entries),
        status=new_status,
        notices=(case.notice(objection.reason, "Deny", objection.message, warning=True),),
    )


def _decided(decision: DecisionStatus) -> dict[str, Any]:
    encoded: dict[str, Any] = encode(decision)
    encoded.pop("auditIndex", None)
    return encoded


def _order(case: _Case, request: Request, expires_at: dt.datetime) -> CredentialOrder:
    return grant_order(
        case.grant,
        request.pilot,
        request.stage,
        expires_at=expires_at,
        ca_not_after=request.ca_not_after,
        moment=case.moment,
    )


def _credential(case: _Case, order: CredentialOrder, expires_at: dt.datetime) -> GrantCredentialStatus:
    """Say what `order` orders; where nothing lapses before the task ends there is nothing to renew."""
    tokens = {token.token_id: IssuedToken(token.audience, token.token_id) for token in order.tokens}
    soonest = min([order.not_after, *(token.expires_at for token in order.tokens)])
    return GrantCredentialStatus(
        id=order.id,
        issuance=case.issuance,
        spiffe_id=order.spiffe_id.uri,
        serial=f"{order.serial:x}",
        not_before=order.not_before,
        not_after=order.not_after,
        renew_at=expires_at if soonest >= expires_at else case.moment.renewal(case.moment.second, soonest),
        secret_name=case.grant.secret,
        secret_uid="",
        audit_index=-1,
        tokens=tuple(tokens.values()),
    )


def _issue(case: _Case, request: Request, decision: DecisionStatus) -> Plan:
    grant, moment = case.grant, case.moment
    expires_at = moment.second + grant.spec.duration
    order = _order(case, request, expires_at)
    credential = _credential(case, order, expires_at)

    def announce(public_key_sha256: str) -> Entry:
        data = {
            "stage": request.stage.name,
            "access": evidence(encode(grant.spec.access)),
            "decision": _decided(decision),
            "credential": announced_data(credential, public_key_sha256),
            "expiresAt": encode(expires_at),
        }
        return case.entry(f"credential/{credential.issuance}", EntryType.GRANT_ISSUED, data)

    def new_status(outcome: Outcome) -> TaskGrantStatus:
        recorded = msgspec.structs.replace(
            credential, audit_index=outcome.index, secret_uid=outcome.secret_uid
        )
        return msgspec.structs.replace(
            case.settled(grant.status, _issued(recorded)),
            phase=follow(grant.status.phase, Happening.ALLOWED),
            decision=msgspec.structs.replace(decision, audit_index=outcome.index),
            credential=recorded,
            issuances=recorded.issuance,
            stage=request.stage.name,
            issued_at=moment.now,
            expires_at=expires_at,
        )

    note = f"{credential.spiffe_id} in Secret {grant.secret} until {expires_at:%Y-%m-%d %H:%M:%SZ}"
    return Plan(
        hold=not grant.metadata.is_held,
        release=Release(case.owner, grant.secret, order, "", announce),
        status=new_status,
        notices=(case.notice(Reason.ISSUED, "Issue", note),),
        recheck_at=min(expires_at, credential.renew_at),
    )


def _issued(credential: GrantCredentialStatus) -> Finding:
    message = f"credentials in Secret {credential.secret_name}"
    return Finding(ConditionType.READY, status=True, reason=Reason.ISSUED, message=message)


def _carry_on(case: _Case) -> Plan:
    """An active grant: renew its credentials when they are half through, if the task outlives them."""
    grant, moment = case.grant, case.moment
    credential, expires_at = grant.status.credential, grant.status.expires_at
    if credential is None or expires_at is None:
        raise ValueError("an active grant has a credential and an end")
    if credential.renew_at >= expires_at or _was_displaced(grant):
        return Plan(recheck_at=expires_at)
    if moment.now < credential.renew_at:
        return Plan(recheck_at=credential.renew_at)
    request = request_of(case.seen)
    if isinstance(request, Objection):
        return _lapse(case, request)
    objection = ask_all(RENEWAL_CHECKS, request)[-1].objection
    if objection is not None:
        return _lapse(case, objection)
    return _renew(case, request, credential, expires_at)


def _was_displaced(grant: TaskGrant) -> bool:
    """Whether something else was found in the place of the grant's Secret; it is not tried again."""
    ready = find(grant.status.conditions, ConditionType.READY)
    return ready is not None and ready.reason == Reason.SECRET_NAME_TAKEN


def _lapse(case: _Case, objection: Objection) -> Plan:
    """The decision would not be made again: nothing is renewed, what is out lapses by itself."""
    message = f"not renewed: {objection.message}"
    finding = Finding(ConditionType.READY, status=False, reason=objection.reason, message=message)
    wanted = case.settled(case.grant.status, finding)
    announced = case.seen.announced
    entries: tuple[Entry, ...] = ()
    if announced is not None:
        entries = (abandon(announced, case.moment),)
        wanted = msgspec.structs.replace(wanted, issuances=announced.announcement.issuance)
    if wanted == case.grant.status:
        return Plan(recheck_at=case.grant.status.expires_at)
    return Plan(
        entries=entries,
        status=lambda _: wanted,
        notices=(case.notice(objection.reason, "Lapse", message, warning=True),),
        recheck_at=case.grant.status.expires_at,
    )


def _renew(
    case: _Case,
    request: Request,
    before: GrantCredentialStatus,
    expires_at: dt.datetime,
) -> Plan:
    """Replace the credentials in place, with a new key; what they replace lapses."""
    grant = case.grant
    order = _order(case, request, expires_at)
    credential = _credential(case, order, expires_at)

    def announce(public_key_sha256: str) -> Entry:
        data = {
            "stage": request.stage.name,
            "replaces": before.id,
            "credential": announced_data(credential, public_key_sha256),
            "policyDigest": policy_digest(request.stage),
            "pilotDigest": pilot_digest(request.pilot),
        }
        return case.entry(f"credential/{credential.issuance}", EntryType.GRANT_RENEWED, data)

    def new_status(outcome: Outcome) -> TaskGrantStatus:
        recorded = msgspec.structs.replace(
            credential, audit_index=outcome.index, secret_uid=outcome.secret_uid
        )
        return msgspec.structs.replace(
            case.settled(grant.status, _issued(recorded)), credential=recorded, issuances=recorded.issuance
        )

    return Plan(
        release=Release(case.owner, grant.secret, order, before.id, announce),
        status=new_status,
        recheck_at=min(expires_at, credential.renew_at),
    )
