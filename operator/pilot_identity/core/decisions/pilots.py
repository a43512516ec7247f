"""A pilot's identity: given, renewed, moved between stages, suspended, retired."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace

import msgspec

from pilot_identity.core.audit.entries import Entry, EntryType
from pilot_identity.core.decisions.announced import Announced, Holding, abandon, adopted, announced_data
from pilot_identity.core.decisions.credentials import pilot_order
from pilot_identity.core.decisions.definitions import defined
from pilot_identity.core.decisions.exceptions_kept import decide_exceptions, ended_with, next_end
from pilot_identity.core.decisions.fresh import Moment
from pilot_identity.core.decisions.hindrance import asked_again_at
from pilot_identity.core.decisions.holding import HOLDING_BOUND, is_overdue
from pilot_identity.core.decisions.objection import Objection, ask_all
from pilot_identity.core.decisions.pilot_checks import CHECKS, PilotSeen, Placement
from pilot_identity.core.decisions.placement import Placed, place
from pilot_identity.core.decisions.plan import (
    AccountFacts,
    DeleteCredential,
    MakeServiceAccount,
    Notice,
    Outcome,
    Owner,
    Plan,
    Preparation,
    PublishBundle,
    Release,
    RemoveBundle,
    Withdrawal,
)
from pilot_identity.core.decisions.review_dates import deadline_of, due_at
from pilot_identity.core.decisions.reviews import decide_review
from pilot_identity.core.resources import PilotIdentity, StagePolicy
from pilot_identity.core.resources.conditions import ConditionType, Finding, Reason, cut, find, settle
from pilot_identity.core.resources.credential import CredentialStatus
from pilot_identity.core.resources.digests import pilot_digest
from pilot_identity.core.resources.pilot_identity import BundleStatus, PilotIdentityStatus, bundle_name

TAKEN_RECHECK = dt.timedelta(minutes=1)
"""How soon a name that is taken by a foreign object is looked at again; foreign objects are not watched."""

NOT_KNOWN_TO_BE_PUBLISHED = 0
"""The sequence of a bundle of which nobody knows what is in it; those of bundles begin with 1."""


@dataclass(frozen=True, slots=True)
class _Case:
    """One pilot at one moment, with what every branch below needs."""

    seen: PilotSeen
    moment: Moment

    @property
    def pilot(self) -> PilotIdentity:
        return self.seen.pilot

    @property
    def owner(self) -> Owner:
        return Owner(self.pilot.key, self.pilot.metadata.uid)

    @property
    def issuance(self) -> int:
        """The number of the next credential; numbers are never used twice."""
        return self.pilot.status.issuances + 1

    def entry(self, step: str, kind: EntryType, data: dict[str, object]) -> Entry:
        """Make an entry about this pilot; `step` is unique in its life and the same after a crash.

        It names the definition by its generation; `defined` has that in full and goes before it.
        """
        return Entry(
            id=f"{self.pilot.metadata.uid}/{step}",
            type=kind,
            subject=str(self.pilot.key),
            subject_uid=self.pilot.metadata.uid,
            time=self.moment.now,
            data={
                "generation": self.pilot.metadata.generation,
                "changedBy": self.pilot.metadata.changed_by,
                "pilotDigest": pilot_digest(self.pilot),
                **data,
            },
        )

    @property
    def defined(self) -> Entry:
        """The entry that has the definition, which the log takes once."""
        return defined(self.pilot, self.moment.now)

    def stage_asked(self) -> tuple[Entry, ...]:
        """The entry for a stage change that the spec asks for, before it is held or made."""
        pilot = self.pilot
        if not pilot.status.stage or pilot.spec.stage == pilot.status.stage:
            return ()
        data: dict[str, object] = {"stage": pilot.status.stage, "asked": pilot.spec.stage}
        return (self.entry(f"stage-asked/{pilot.metadata.generation}", EntryType.STAGE_CHANGE_ASKED, data),)

    def notice(self, reason: Reason, action: str, note: str, *, warning: bool = False) -> Notice:
        return Notice(self.owner, "Warning" if warning else "Normal", reason, action, note)

    def cut(self) -> tuple[Withdrawal, ...]:
        """Withdraw the pilot's own credential, if one is out."""
        known = self.pilot.status.credential
        if known is None:
            return ()
        return (DeleteCredential(self.pilot.metadata.namespace, known.secret_name, known.secret_uid),)

    def tidy(self, stage: str = "") -> tuple[Withdrawal, ...]:
        """Remove the bundle of a stage other than `stage` that nobody in the namespace needs any more."""
        bundle = self.pilot.status.bundle
        if bundle is None or bundle.stage == stage or bundle.stage in self.seen.stages_of_neighbours:
            return ()
        return (RemoveBundle(self.owner, bundle.stage),)


def decide_pilot(seen: PilotSeen, moment: Moment) -> Plan:
    """Decide what is to be done for a pilot.

    It is looked at again when a review is overdue, and when an exception ends.
    """
    plan = _decide(seen, moment)
    if plan.status is None and not plan.withdraw and not plan.let_go:
        plan = _brought_up_to_date(_Case(seen, moment), plan)
    if seen.pilot.metadata.is_deleting:
        return plan
    deadline = deadline_of(seen.pilot, seen.stages.get(seen.pilot.status.stage))
    review_at = deadline.at if deadline is not None and deadline.at > moment.now else None
    dates = (plan.recheck_at, review_at, next_end(seen.pilot, moment.now))
    return replace(plan, recheck_at=min((date for date in dates if date is not None), default=None))


def _decide(seen: PilotSeen, moment: Moment) -> Plan:
    case = _Case(seen, moment)
    pilot = seen.pilot
    if seen.announced is not None:
        # What the log announced is settled before anything else is decided, so that no other branch can
        # forget it: a credential that is out is known, a number that was used is never used again.
        return _adopt(case, seen.announced) if seen.announced.was_released else _abandon(case, seen.announced)
    if pilot.metadata.is_deleting:
        return _retire(case) if pilot.metadata.is_held else Plan()
    if pilot.metadata.unreadable:
        return _suspend(case)
    review = decide_review(seen, moment)
    if review is not None:
        return review
    excepted = decide_exceptions(seen, moment)
    if excepted is not None:
        return excepted
    return _suspend(case) if pilot.spec.suspend else _live(case)


def _live(case: _Case) -> Plan:
    """A pilot that wants to work: place it, check it, and maintain its identity."""
    seen, pilot = case.seen, case.pilot
    placed = place(seen, case.moment.now)
    if placed.stage is None or placed.objection is not None:
        objection = placed.objection or Objection(Reason.UNKNOWN_STAGE, "the pilot has no stage")
        return _refuse(case, placed, objection)
    if pilot.status.stage and placed.stage.name != pilot.status.stage:
        return _move(case, placed.stage)
    against = ask_all(CHECKS, Placement(seen, placed.stage))[-1].objection
    if against is not None:
        return _refuse(case, placed, against)
    return _maintain(case, placed, placed.stage)


def _brought_up_to_date(case: _Case, plan: Plan) -> Plan:
    """Publish a bundle anew that is not the stage's any more, whatever else is the matter with the pilot.

    Who reads it may have nothing to do with this pilot, and must know a key before it signs.
    """
    bundle = case.pilot.status.bundle
    if bundle is None or case.pilot.metadata.is_deleting:
        return plan
    sequence = case.seen.bundle_sequences.get(bundle.stage, bundle.sequence)
    if sequence == bundle.sequence:
        return plan
    published = msgspec.structs.replace(bundle, sequence=sequence)
    wanted = msgspec.structs.replace(case.pilot.status, bundle=published)
    publish = PublishBundle(case.pilot.metadata.namespace, bundle.stage)
    return replace(plan, prepare=(*plan.prepare, publish), status=lambda _: wanted)


def _adopt(case: _Case, announced: Announced) -> Plan:
    """The announced credential was released before the status said so: say so now, then look again."""
    status = case.pilot.status
    recorded = msgspec.convert(adopted(announced), CredentialStatus)
    stage = str(announced.entry.data["stage"])
    message = f"has identity {recorded.spiffe_id}"
    ready = Finding(ConditionType.READY, status=True, reason=Reason.IDENTITY_ISSUED, message=message)
    wanted = msgspec.structs.replace(
        _settled(case, status, (ready,)),
        stage=stage,
        stage_since=status.stage_since if stage == status.stage else announced.entry.time,
        spiffe_id=recorded.spiffe_id,
        service_account_name=case.pilot.service_account,
        digest=str(announced.entry.data["pilotDigest"]),
        credential=recorded,
        issuances=recorded.issuance,
        bundle=_adopted_bundle(status, stage),
    )
    note = f"{recorded.spiffe_id} (audit entry {announced.index})"
    return Plan(
        status=lambda _: wanted,
        notices=(case.notice(Reason.IDENTITY_ISSUED, "Issue", note),),
        recheck_at=case.moment.now,
    )


def _adopted_bundle(status: PilotIdentityStatus, stage: str) -> BundleStatus:
    """Name the bundle of the stage, so that it stays; one that a status did not name is published again."""
    if status.bundle is not None and status.bundle.stage == stage:
        return status.bundle
    return BundleStatus(stage, bundle_name(stage), NOT_KNOWN_TO_BE_PUBLISHED)


def _abandon(case: _Case, announced: Announced) -> Plan:
    """The announced credential was never released: record that, keep its number used, then look again."""
    if announced.may_be_released(case.moment.now):
        is_ending = case.pilot.metadata.is_deleting or case.pilot.spec.suspend
        return Plan(withdraw=case.cut() if is_ending else (), recheck_at=announced.settled_at)
    wanted = msgspec.structs.replace(case.pilot.status, issuances=announced.announcement.issuance)
    if announced.holding is Holding.FOREIGN:
        # Remembered here, so that the next pass asks again what stands in our place and tells it.
        wanted = _settled(case, wanted, (_not_ready(Reason.SECRET_NAME_TAKEN, "is looked at again"),))
    return Plan(
        entries=(abandon(announced, case.moment),), status=lambda _: wanted, recheck_at=case.moment.now
    )


def _move(case: _Case, stage: StagePolicy) -> Plan:
    """Leave a stage: its identity ends at once; the next pass gives one in the new stage."""
    status = case.pilot.status
    message = f"moved from {status.stage!r} to {stage.name!r}; gets an identity there"
    wanted = msgspec.structs.replace(
        _settled(case, status, (_not_ready(Reason.STAGE_CHANGED, message),)),
        stage=stage.name,
        stage_since=case.moment.now,
        credential=None,
        spiffe_id="",
    )
    data: dict[str, object] = {"stage": stage.name, "stageBefore": status.stage}
    moved = case.entry(f"stage/{case.pilot.metadata.generation}", EntryType.STAGE_CHANGED, data)
    return Plan(
        withdraw=case.cut(),
        entries=(case.defined, *case.stage_asked(), moved),
        status=lambda _: wanted,
        notices=(case.notice(Reason.STAGE_CHANGED, "ChangeStage", message),),
        recheck_at=case.moment.now,
    )


def _retire(case: _Case) -> Plan:
    """Withdraw everything; wait, within bounds, until the grants are closed too."""
    pilot = case.pilot
    since = pilot.metadata.deletion_timestamp or case.moment.now
    entry = case.entry("retired", EntryType.PILOT_RETIRED, {"openGrants": case.seen.open_grants})
    if case.seen.open_grants and not is_overdue(pilot.metadata, case.moment.now):
        finding = _not_ready(Reason.DELETING, "waits for its grants to close")
        wanted = msgspec.structs.replace(_settled(case, pilot.status, (finding,)), credential=None)
        changed = wanted != pilot.status
        return Plan(
            withdraw=case.cut(),
            status=(lambda _: wanted) if changed else None,
            recheck_at=since + HOLDING_BOUND,
        )
    note = "everything issued for the pilot is withdrawn"
    if case.seen.open_grants:
        note = f"let go with {case.seen.open_grants} grants not closed yet; they are being closed"
    return Plan(
        withdraw=(*case.cut(), *case.tidy()),
        entries=(*ended_with(pilot, "the pilot was deleted", case.moment.now), entry),
        notices=(case.notice(Reason.DELETING, "Retire", note),),
        let_go=True,
        is_overdue=is_overdue(pilot.metadata, case.moment.now),
    )


def _suspend(case: _Case) -> Plan:
    status = case.pilot.status
    unreadable = case.pilot.metadata.unreadable
    data: dict[str, object] = {"by": case.pilot.metadata.changed_by}
    if unreadable:
        message = f"counts as suspended, since its spec cannot be read; correct it: {unreadable}"
        objection = Objection(Reason.SPEC_UNREADABLE, message)
        findings: tuple[Finding, ...] = (_not_ready(objection.reason, message), _stalled(objection))
        data["unreadable"] = cut(unreadable)
    else:
        message = "suspended by its owner (spec.suspend); nothing is issued"
        findings = (_not_ready(Reason.SUSPENDED, message),)
    reason = findings[0].reason
    wanted = msgspec.structs.replace(_settled(case, status, findings), credential=None)
    if wanted == status:
        return Plan()
    if _said(status, reason) and status.credential is None:
        return Plan(entries=(case.defined,), status=lambda _: wanted)
    generation = case.pilot.metadata.generation
    # Another version of the operator may read, and another again not read, one and the same generation.
    step = f"unreadable/{generation}/{case.moment.nonce}" if unreadable else f"suspended/{generation}"
    note = f"its SVID is withdrawn: {message}" if unreadable else "its SVID is withdrawn"
    return Plan(
        withdraw=case.cut(),
        entries=(case.defined, case.entry(step, EntryType.PILOT_SUSPENDED, data)),
        status=lambda _: wanted,
        notices=(case.notice(reason, "Suspend", note, warning=True),),
    )


def _refuse(case: _Case, placed: Placed, objection: Objection) -> Plan:
    """Say why not. What the pilot has lapses by itself: nothing is renewed while it is refused."""
    pilot, status = case.pilot, case.pilot.status
    findings = [_not_ready(objection.reason, objection.message)]
    if objection.is_final:
        findings.append(_stalled(objection))
    if placed.promoted is not None and status.stage:
        findings.append(placed.promoted)
    wanted = _settled(case, status, tuple(findings))
    recheck = case.moment.now + TAKEN_RECHECK if objection.reason in _TAKEN else None
    if objection.reason is Reason.SECRET_REFUSED:
        recheck = asked_again_at(status.conditions, case.moment.now)
    if wanted == status:
        return Plan(recheck_at=recheck)
    before = find(status.conditions, ConditionType.READY)
    if before is not None and (before.reason, before.message) == (findings[0].reason, cut(objection.message)):
        return Plan(entries=(case.defined,), status=lambda _: wanted, recheck_at=recheck)
    entries: tuple[Entry, ...] = (case.defined,)
    if objection.is_final:
        data: dict[str, object] = {"reason": objection.reason, "message": cut(objection.message)}
        step = f"refused/{pilot.metadata.generation}/{objection.reason}/{case.moment.nonce}"
        refused = case.entry(step, EntryType.PILOT_REFUSED, data)
        entries = (*entries, *case.stage_asked(), refused)
    return Plan(
        entries=entries,
        status=lambda _: wanted,
        notices=(case.notice(objection.reason, "Refuse", objection.message, warning=True),),
        recheck_at=recheck,
    )


_TAKEN = frozenset({Reason.SECRET_NAME_TAKEN, Reason.SERVICE_ACCOUNT_TAKEN})


def _maintain(case: _Case, placed: Placed, stage: StagePolicy) -> Plan:
    """All is in order: issue or renew where due, keep status, account and bundle as they should be."""
    pilot, status = case.pilot, case.pilot.status
    credential = status.credential
    entries: list[Entry] = []
    held = placed.promoted is not None and not placed.promoted.status
    notices: list[Notice] = []
    if held and placed.promoted is not None and not _promotion_said(status, placed.promoted):
        entries += case.stage_asked()
        entries.append(
            case.entry(
                f"held/{pilot.metadata.generation}",
                EntryType.STAGE_CHANGE_HELD,
                {"stage": stage.name, "asked": pilot.spec.stage, "message": placed.promoted.message},
            )
        )
        notices.append(
            case.notice(Reason.PROMOTION_HELD, "HoldPromotion", placed.promoted.message, warning=True)
        )
    if credential is not None and case.moment.now < credential.renew_at:
        plan = _keep(case, placed, stage, credential)
    else:
        plan = _issue(case, placed, stage)
    if plan.status is not None:
        entries.insert(0, case.defined)
    return replace(plan, entries=(*entries, *plan.entries), notices=(*notices, *plan.notices))


def _keep(case: _Case, placed: Placed, stage: StagePolicy, credential: CredentialStatus) -> Plan:
    pilot, status = case.pilot, case.pilot.status
    digest = pilot_digest(pilot)
    prepare: list[Preparation] = []
    bundle = status.bundle
    if bundle != _bundle_status(case, stage):
        prepare.append(PublishBundle(pilot.metadata.namespace, stage.name))
        bundle = _bundle_status(case, stage)
    if status.service_account_name != pilot.service_account and pilot.makes_service_account:
        prepare.append(MakeServiceAccount(case.owner, pilot.service_account))
    wanted = msgspec.structs.replace(
        _settled(case, status, _ready_findings(placed, credential)),
        digest=digest,
        service_account_name=pilot.service_account,
        bundle=bundle,
    )
    if wanted == status:
        return Plan(recheck_at=credential.renew_at)
    entries: tuple[Entry, ...] = ()
    if digest != status.digest:
        data: dict[str, object] = {"before": status.digest, "after": digest}
        entries = (case.entry(f"changed/{pilot.metadata.generation}", EntryType.PILOT_CHANGED, data),)
    return Plan(
        prepare=tuple(prepare), entries=entries, status=lambda _: wanted, recheck_at=credential.renew_at
    )


def _issue(case: _Case, placed: Placed, stage: StagePolicy) -> Plan:
    """Announce and release a fresh SVID."""
    pilot, status = case.pilot, case.pilot.status
    order = pilot_order(pilot, stage, case.seen.ca_not_after[stage.name], case.moment)
    credential = CredentialStatus(
        id=order.id,
        issuance=case.issuance,
        spiffe_id=order.spiffe_id.uri,
        serial=f"{order.serial:x}",
        not_before=order.not_before,
        not_after=order.not_after,
        renew_at=case.moment.renewal(case.moment.second, order.not_after),
        secret_name=pilot.svid_secret,
        secret_uid="",
        audit_index=-1,
    )
    kind, reason, action = _occasion(status)
    since = status.stage_since or case.moment.now
    review_due = due_at(msgspec.structs.replace(status, stage_since=since), stage)

    def announce(public_key_sha256: str, _: AccountFacts | None = None, /) -> Entry:
        data: dict[str, object] = {
            "stage": stage.name,
            "credential": announced_data(credential, public_key_sha256),
        }
        return case.entry(f"credential/{credential.issuance}", kind, data)

    def new_status(outcome: Outcome) -> PilotIdentityStatus:
        recorded = msgspec.structs.replace(
            credential, audit_index=outcome.index, secret_uid=outcome.secret_uid
        )
        return msgspec.structs.replace(
            _settled(case, status, _ready_findings(placed, recorded)),
            stage=stage.name,
            stage_since=since,
            review_due=review_due,
            spiffe_id=credential.spiffe_id,
            service_account_name=pilot.service_account,
            digest=pilot_digest(pilot),
            credential=recorded,
            issuances=credential.issuance,
            bundle=_bundle_status(case, stage),
        )

    prepare: list[Preparation] = [PublishBundle(pilot.metadata.namespace, stage.name)]
    if pilot.makes_service_account and status.service_account_name != pilot.service_account:
        prepare.append(MakeServiceAccount(case.owner, pilot.service_account))
    note = f"{credential.spiffe_id} until {credential.not_after:%Y-%m-%d %H:%M:%SZ}"
    return Plan(
        hold=not pilot.metadata.is_held,
        withdraw=case.tidy(stage.name),
        prepare=tuple(prepare),
        release=Release(
            case.owner, pilot.svid_secret, order, status.credential.id if status.credential else "", announce
        ),
        status=new_status,
        notices=(case.notice(reason, action, note),),
        recheck_at=min(credential.renew_at, review_due or credential.renew_at),
    )


def _occasion(status: PilotIdentityStatus) -> tuple[EntryType, Reason, str]:
    """What an issuance is: the first, a renewal, or a new start after a suspension or a move.

    A move leaves the identity behind; a suspension withdraws it, and it is the same one afterwards.
    """
    if not status.stage:
        return EntryType.PILOT_REGISTERED, Reason.IDENTITY_ISSUED, "Register"
    if status.credential is not None:
        return EntryType.PILOT_RENEWED, Reason.RENEWED, "Renew"
    kind = EntryType.PILOT_RESUMED if status.spiffe_id else EntryType.PILOT_ADMITTED
    return kind, Reason.IDENTITY_ISSUED, "Issue"


def _bundle_status(case: _Case, stage: StagePolicy) -> BundleStatus:
    return BundleStatus(stage.name, bundle_name(stage.name), case.seen.bundle_sequences[stage.name])


def _settled(case: _Case, status: PilotIdentityStatus, findings: tuple[Finding, ...]) -> PilotIdentityStatus:
    generation = case.pilot.metadata.generation
    settled = settle(status.conditions, findings, generation=generation, now=case.moment.now)
    # A review is overdue whatever else is the matter; `decide_review` alone says so, and takes it back.
    overdue = find(status.conditions, ConditionType.REVIEW_OVERDUE)
    return msgspec.structs.replace(
        status,
        observed_generation=generation,
        conditions=settled if overdue is None else (*settled, overdue),
    )


def _ready_findings(placed: Placed, credential: CredentialStatus) -> tuple[Finding, ...]:
    message = f"has identity {credential.spiffe_id}"
    ready = Finding(ConditionType.READY, status=True, reason=Reason.IDENTITY_ISSUED, message=message)
    return (ready, placed.promoted) if placed.promoted is not None else (ready,)


def _not_ready(reason: Reason, message: str) -> Finding:
    return Finding(ConditionType.READY, status=False, reason=reason, message=message)


def _stalled(objection: Objection) -> Finding:
    return Finding(ConditionType.STALLED, status=True, reason=objection.reason, message=objection.message)


def _said(status: PilotIdentityStatus, reason: Reason) -> bool:
    ready = find(status.conditions, ConditionType.READY)
    return ready is not None and ready.reason == reason


def _promotion_said(status: PilotIdentityStatus, finding: Finding) -> bool:
    """Whether exactly this hold was told already."""
    before = find(status.conditions, ConditionType.PROMOTED)
    return before is not None and (before.reason, before.message) == (finding.reason, cut(finding.message))
