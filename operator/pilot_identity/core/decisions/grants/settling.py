"""What became of a credential that the log announced and the status does not know."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import msgspec

from pilot_identity.core.audit.entries import EntryType
from pilot_identity.core.decisions import kubernetes_access
from pilot_identity.core.decisions.announced import Announced, Holding, abandon, adopted
from pilot_identity.core.decisions.fresh import Moment
from pilot_identity.core.decisions.grants.case import Case
from pilot_identity.core.decisions.grants.closing import knowing_announced, withdrawals
from pilot_identity.core.decisions.grants.considering import deny
from pilot_identity.core.decisions.grants.endings import is_ending
from pilot_identity.core.decisions.grants.issuing import issued, lapse, place_of
from pilot_identity.core.decisions.grants.lifecycle import Happening, follow
from pilot_identity.core.decisions.hindrance import MOST_ABANDONED
from pilot_identity.core.decisions.objection import Objection
from pilot_identity.core.decisions.plan import DeleteCredential, Plan, Proving
from pilot_identity.core.decisions.proofs import storable
from pilot_identity.core.resources import Phase
from pilot_identity.core.resources.conditions import Reason, cut
from pilot_identity.core.resources.task_grant import DecisionStatus, GrantCredentialStatus


def settle_announced(case: Case, announced: Announced) -> Plan:
    """Say what became of the announced credential; the next pass goes on from there.

    Where the grant is to end, its access is cut before that, each part whatever becomes of the others: this
    waits neither for the log nor for another process. A Secret that holds what was announced goes one pass
    later: until the status names it, that Secret alone shows that it was released.
    """
    plan = _settle(case, announced)
    if not is_ending(case.seen, case.moment.now):
        return plan
    withdraw = tuple(
        one
        for one in withdrawals(knowing_announced(case))
        if not (announced.was_released and isinstance(one, DeleteCredential))
    )
    return Plan(withdraw=withdraw, prove=Proving((), lambda _: plan))


def _settle(case: Case, announced: Announced) -> Plan:
    if announced.was_released:
        return _adopt(case, announced)
    if announced.holding is Holding.FOREIGN:
        message = (
            f"a Secret {case.grant.secret!r} exists that is not this grant's; it is never overwritten: name "
            "another in spec.secretName of a new grant"
        )
        objection = Objection(Reason.SECRET_NAME_TAKEN, message)
        if case.grant.status.phase is Phase.ACTIVE:
            return lapse(case, objection)
        denied = deny(case, objection, _decision_against(objection, case.moment))
        return replace(denied, withdraw=kubernetes_access.withdrawals(case.seen))
    if announced.may_be_released(case.moment.now):
        return Plan(recheck_at=announced.settled_at)
    if _was_tried_enough(case, announced):
        message = (
            f"its credentials could not be delivered in {MOST_ABANDONED} tries; find out what is in the way "
            f"of Secret {case.grant.secret!r}, then ask again with a new grant"
        )
        objection = Objection(Reason.SECRET_REFUSED, message)
        denied = deny(case, objection, _decision_against(objection, case.moment))
        return replace(denied, withdraw=kubernetes_access.withdrawals(case.seen))
    status = msgspec.structs.replace(case.grant.status, issuances=announced.announcement.issuance)
    # What a first issue bound before its Secret failed to come is taken back; a renewal bound nothing new.
    is_first = case.grant.status.credential is None
    return Plan(
        withdraw=kubernetes_access.withdrawals(case.seen) if is_first else (),
        entries=(abandon(announced, case.moment),),
        status=lambda _: status,
        recheck_at=case.moment.now,
    )


def _was_tried_enough(case: Case, announced: Announced) -> bool:
    """Whether a grant that was never issued was announced so often that the log is owed an end."""
    is_first = case.grant.status.credential is None
    is_ended = is_ending(case.seen, case.moment.now) or case.grant.metadata.is_deleting
    return is_first and not is_ended and announced.announcement.issuance >= MOST_ABANDONED


def _adopt(case: Case, announced: Announced) -> Plan:
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
        if case.grant.spec.parent:
            chain = data["delegation"]
            status = msgspec.structs.replace(
                status,
                chain=tuple(ancestor["grant"] for ancestor in chain),
                parent_uid=chain[-1]["uid"],
            )
    wanted = storable(case.settled(status, issued(credential)), case.moment.now)
    note = f"{credential.spiffe_id} in {place_of(credential)} (audit entry {announced.index})"
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
