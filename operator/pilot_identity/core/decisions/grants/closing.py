"""The end of a grant: access is cut, that is recorded, and the object stays as a record."""

from __future__ import annotations

from typing import Any

import msgspec

from pilot_identity.core.audit.entries import EntryType
from pilot_identity.core.decisions.grants.case import Case
from pilot_identity.core.decisions.grants.endings import Ending
from pilot_identity.core.decisions.grants.lifecycle import follow
from pilot_identity.core.decisions.holding import is_overdue
from pilot_identity.core.decisions.plan import DeleteCredential, Outcome, Plan, Withdrawal
from pilot_identity.core.resources.conditions import ConditionType, Finding
from pilot_identity.core.resources.parsing import encode
from pilot_identity.core.resources.task_grant import ClosureStatus, TaskGrantStatus


def rest(case: Case) -> Plan:
    """A grant that ended stays as a record; only its deletion still wants our finalizer off.

    An announcement that is still open is one whose Secret was found foreign, or one that was made by
    another process after the end: its Secret, if it is ours, goes.
    """
    metadata = case.grant.metadata
    withdraw = (
        withdrawals(case) if case.seen.announced is not None and case.seen.announced.was_released else ()
    )
    return Plan(withdraw=withdraw, let_go=metadata.is_deleting and metadata.is_held)


def withdrawals(case: Case) -> tuple[Withdrawal, ...]:
    """Withdraw what is out: what the log announced and released, else what the status knows."""
    known, announced = case.grant.status.credential, case.seen.announced
    uid = known.secret_uid if known else ""
    if announced is not None and announced.was_released:
        uid = announced.secret_uid
    return (DeleteCredential(case.grant.metadata.namespace, case.grant.secret, uid),) if uid else ()


def end(case: Case, ending: Ending) -> Plan:
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
        withdraw=withdrawals(case),
        entries=(entry,),
        status=None if is_deleting else new_status,
        notices=(case.notice(ending.reason, "Close", f"{phase}: {ending.message}"),),
        let_go=is_deleting and grant.metadata.is_held,
        is_overdue=is_overdue(grant.metadata, now),
    )
