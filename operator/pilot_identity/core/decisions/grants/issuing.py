"""Credentials of a grant: the first, and those that follow while the task goes on."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from pilot_identity.core.audit.entries import Entry, EntryType, evidence
from pilot_identity.core.decisions.announced import abandon, announced_data
from pilot_identity.core.decisions.credentials import grant_order
from pilot_identity.core.decisions.delegation import told_chain
from pilot_identity.core.decisions.grants.case import Case
from pilot_identity.core.decisions.grants.checks.rules import lifted
from pilot_identity.core.decisions.grants.checks.table import renewal_checks_of
from pilot_identity.core.decisions.grants.deciding import Decided, told
from pilot_identity.core.decisions.grants.lifecycle import Happening, follow
from pilot_identity.core.decisions.grants.observing import observed
from pilot_identity.core.decisions.grants.seen import Request, request_of, wait
from pilot_identity.core.decisions.hindrance import MOST_ABANDONED, asked_again_at, refused
from pilot_identity.core.decisions.kubernetes_access import account_order, credential_of
from pilot_identity.core.decisions.objection import Objection, ask_all
from pilot_identity.core.decisions.plan import AccountFacts, CredentialOrder, Outcome, Plan, Release
from pilot_identity.core.decisions.proofs import MOST_SUPERSEDED, room_at, superseded
from pilot_identity.core.resources import TaskGrant
from pilot_identity.core.resources.conditions import ConditionType, Finding, Reason, find
from pilot_identity.core.resources.digests import pilot_digest, policy_digest
from pilot_identity.core.resources.parsing import encode
from pilot_identity.core.resources.task_grant import (
    GrantCredentialStatus,
    IssuedToken,
    TaskGrantStatus,
)

LONGEST_OVERLAP = 12
"""Nothing lives longer than so many lives of the shortest-lived that is renewed with it.

A renewal comes at two fifths of that life at the soonest, so at most 30 of its predecessors live.
"""


def _order(case: Case, request: Request, expires_at: dt.datetime) -> CredentialOrder:
    order = grant_order(
        case.grant,
        request.pilot,
        request.stage,
        expires_at=expires_at,
        ca_not_after=request.ca_not_after,
        chain=told_chain(case.seen.ancestors),
        moment=case.moment,
    )
    left = expires_at - case.moment.second
    account = account_order(case.grant, request.pilot, request.stage, left)
    return _overlapping_little(case, replace(order, kubernetes=account))


def _overlapping_little(case: Case, order: CredentialOrder) -> CredentialOrder:
    """Shorten what would outlive many renewals: each leaves a copy that a revocation must name.

    All is renewed together, as often as the shortest-lived of it asks.
    """
    start = case.moment.second
    bound = start + LONGEST_OVERLAP * (_soonest(case, order) - start)
    return replace(
        order,
        not_after=min(order.not_after, bound),
        tokens=tuple(replace(token, expires_at=min(token.expires_at, bound)) for token in order.tokens),
    )


def _soonest(case: Case, order: CredentialOrder) -> dt.datetime:
    """When the first of what `order` orders lapses."""
    ends = [order.not_after, *(token.expires_at for token in order.tokens)]
    if order.kubernetes is not None:
        ends.append(case.moment.second + order.kubernetes.lifetime)
    return min(ends)


def _credential(case: Case, order: CredentialOrder, expires_at: dt.datetime) -> GrantCredentialStatus:
    """Say what `order` orders; where nothing lapses before the task ends there is nothing to renew."""
    tokens = {
        token.token_id: IssuedToken(token.audience, token.token_id, token.expires_at)
        for token in order.tokens
    }
    soonest = _soonest(case, order)
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


def _with_account(
    credential: GrantCredentialStatus, order: CredentialOrder, account: AccountFacts | None
) -> GrantCredentialStatus:
    """Add what only making the Kubernetes access told, where some was ordered."""
    if order.kubernetes is None or account is None:
        return credential
    return msgspec.structs.replace(credential, kubernetes=credential_of(order.kubernetes, account))


@dataclass(frozen=True, slots=True)
class Given:
    """What follows from an allowed request: until when, and what is ordered and told of the credentials."""

    expires_at: dt.datetime
    order: CredentialOrder
    credential: GrantCredentialStatus


def given_for(case: Case, request: Request) -> Given:
    """Say what an allowed request gives; `reissuing` asks here too."""
    # What only an exception allows ends with that.
    ends = (case.moment.second + case.grant.spec.duration, *(one.until for one in lifted(request)))
    expires_at = min(ends)
    order = _order(case, request, expires_at)
    return Given(expires_at, order, _credential(case, order, expires_at))


def told_given(
    case: Case, request: Request, given: Given, public_key_sha256: str, account: AccountFacts | None
) -> dict[str, Any]:
    """What the entry of an issue tells beside the decision: all that is given."""
    credential = _with_account(given.credential, given.order, account)
    data = {
        "stage": request.stage.name,
        "access": evidence(encode(case.grant.spec.access)),
        "credential": announced_data(credential, public_key_sha256),
        "expiresAt": encode(given.expires_at),
    }
    if case.seen.ancestors:
        data["delegation"] = told_chain(case.seen.ancestors)
    return data


def issue(case: Case, request: Request, decided: Decided) -> Plan:
    """Announce and release the first credentials; the task's time begins."""
    grant, moment, decision = case.grant, case.moment, decided.status
    observation = observed(request, decided.heard)
    given = given_for(case, request)
    expires_at, order, credential = given.expires_at, given.order, given.credential

    def announce(public_key_sha256: str, account: AccountFacts | None = None, /) -> Entry:
        data = told_given(case, request, given, public_key_sha256, account)
        said = {"decision": told(decision), "observation": observation}
        return case.entry(f"credential/{credential.issuance}", EntryType.GRANT_ISSUED, {**data, **said})

    def new_status(outcome: Outcome) -> TaskGrantStatus:
        recorded = msgspec.structs.replace(
            _with_account(credential, order, outcome.account),
            audit_index=outcome.index,
            secret_uid=outcome.secret_uid,
            certificate=outcome.certificate,
        )
        return msgspec.structs.replace(
            case.settled(grant.status, issued(recorded)),
            phase=follow(grant.status.phase, Happening.ALLOWED),
            decision=msgspec.structs.replace(decision, audit_index=outcome.index),
            credential=recorded,
            issuances=recorded.issuance,
            stage=request.stage.name,
            issued_at=moment.now,
            expires_at=expires_at,
        )

    note = f"{credential.spiffe_id} in {place_of(credential)} until {expires_at:%Y-%m-%d %H:%M:%SZ}"
    return Plan(
        hold=not grant.metadata.is_held,
        release=Release(case.owner, grant.secret, order, "", announce),
        status=new_status,
        notices=(case.notice(Reason.ISSUED, "Issue", note),),
        recheck_at=min(expires_at, credential.renew_at),
    )


def issued(credential: GrantCredentialStatus) -> Finding:
    """What a grant says of itself while its credentials are out."""
    message = f"credentials in {place_of(credential)}"
    return Finding(ConditionType.READY, status=True, reason=Reason.ISSUED, message=message)


def place_of(credential: GrantCredentialStatus) -> str:
    """Say where whoever may use a credential finds it."""
    return f"Secret {credential.secret_name}" if credential.secret_name else "status.credential.certificate"


def carry_on(case: Case) -> Plan:
    """An active grant: renew its credentials when they are half through, if the task outlives them.

    A decision that would not be made again is told as soon as that is seen, and nothing is renewed on it;
    what passes by itself, such as a pilot that is not ready for a moment, counts when the renewal is due.
    """
    grant, moment = case.grant, case.moment
    credential, expires_at = grant.status.credential, grant.status.expires_at
    if credential is None or expires_at is None:
        raise ValueError("an active grant has a credential and an end")
    if credential.renew_at >= expires_at or _was_displaced(grant):
        return Plan(recheck_at=expires_at)
    is_due = moment.now >= credential.renew_at
    request = request_of(case.seen, moment.now)
    if isinstance(request, Objection):
        return lapse(case, request) if is_due else Plan(recheck_at=credential.renew_at)
    objection = ask_all(renewal_checks_of(request.stage), request)[-1].objection
    if objection is not None and (is_due or objection.is_final):
        return lapse(case, objection)
    if is_due:
        return _renew_where_possible(case, request, credential, expires_at)
    return _stand(case, credential) if objection is None else Plan(recheck_at=credential.renew_at)


def _renew_where_possible(
    case: Case, request: Request, credential: GrantCredentialStatus, expires_at: dt.datetime
) -> Plan:
    """Renew, unless there is no room to tell of it, or nowhere to put it."""
    grant, moment = case.grant, case.moment
    if (free_at := room_at(credential, moment.now)) is not None:
        full = f"{MOST_SUPERSEDED} credentials that renewals replaced are not lapsed; waits for the first"
        return replace(lapse(case, wait(Reason.RENEWED_TOO_OFTEN, full)), recheck_at=min(free_at, expires_at))
    if grant.status.issuances - credential.issuance >= MOST_ABANDONED:
        message = f"its credentials could not be delivered in {MOST_ABANDONED} tries"
        return lapse(case, Objection(Reason.SECRET_REFUSED, message))
    if case.seen.refusal:
        again_at = asked_again_at(grant.status.conditions, moment.now)
        plan = lapse(case, refused(grant.secret, case.seen.refusal))
        return replace(plan, recheck_at=min(expires_at, again_at))
    return _renew(case, request, credential, expires_at)


def _stand(case: Case, credential: GrantCredentialStatus) -> Plan:
    """Nothing is due, and what kept the grant from being renewed, if anything did, is gone."""
    ready = find(case.grant.status.conditions, ConditionType.READY)
    if ready is None or ready.status == "True":
        return Plan(recheck_at=credential.renew_at)
    wanted = case.settled(case.grant.status, issued(credential))
    return Plan(status=lambda _: wanted, recheck_at=credential.renew_at)


def _was_displaced(grant: TaskGrant) -> bool:
    """Whether something else was found in the place of the grant's Secret; it is not tried again."""
    ready = find(grant.status.conditions, ConditionType.READY)
    return ready is not None and ready.reason == Reason.SECRET_NAME_TAKEN


def lapse(case: Case, objection: Objection) -> Plan:
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
    case: Case,
    request: Request,
    before: GrantCredentialStatus,
    expires_at: dt.datetime,
) -> Plan:
    """Replace the credentials in place, with a new key; what they replace lapses."""
    grant = case.grant
    order = _order(case, request, expires_at)
    credential = msgspec.structs.replace(
        _credential(case, order, expires_at), superseded=superseded(before, case.moment.now)
    )

    def announce(public_key_sha256: str, account: AccountFacts | None = None, /) -> Entry:
        data = {
            "stage": request.stage.name,
            "replaces": before.id,
            "credential": announced_data(_with_account(credential, order, account), public_key_sha256),
            "policyDigest": policy_digest(request.stage),
            "pilotDigest": pilot_digest(request.pilot),
        }
        return case.entry(f"credential/{credential.issuance}", EntryType.GRANT_RENEWED, data)

    def new_status(outcome: Outcome) -> TaskGrantStatus:
        recorded = msgspec.structs.replace(
            _with_account(credential, order, outcome.account),
            audit_index=outcome.index,
            secret_uid=outcome.secret_uid,
            certificate=outcome.certificate,
        )
        return msgspec.structs.replace(
            case.settled(grant.status, issued(recorded)), credential=recorded, issuances=recorded.issuance
        )

    return Plan(
        release=Release(case.owner, grant.secret, order, before.id, announce),
        status=new_status,
        recheck_at=min(expires_at, credential.renew_at),
    )
