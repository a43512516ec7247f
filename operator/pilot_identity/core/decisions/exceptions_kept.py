"""An exception's life in its pilot's status: asked for, opened, ended; and what the log has of it.

That one is in force stands in the status only once the entry about it is durable, and grants read the status.
That it is over needs no entry to count (`exceptions.lifting`); the entry follows.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from pilot_identity.core.audit.entries import Entry, EntryType
from pilot_identity.core.decisions.definitions import defined, short
from pilot_identity.core.decisions.exceptions import (
    ExceptionQuestion,
    Verdicts,
    counted,
    declared_of,
    end_of,
    exception_digest,
    known_of,
    required_by,
    rule_of,
    verdicts,
)
from pilot_identity.core.decisions.fresh import Moment
from pilot_identity.core.decisions.given import given
from pilot_identity.core.decisions.pilot_checks import PilotSeen
from pilot_identity.core.decisions.plan import Notice, Outcome, Owner, Plan
from pilot_identity.core.resources import Approval, PilotIdentity, StagePolicy
from pilot_identity.core.resources.approval import CountedApproval
from pilot_identity.core.resources.conditions import Reason, cut
from pilot_identity.core.resources.digests import digest_json, policy_digest
from pilot_identity.core.resources.durations import format_duration
from pilot_identity.core.resources.parsing import encode
from pilot_identity.core.resources.pilot_identity import (
    ExceptionState,
    ExceptionStatus,
    PilotException,
    PilotIdentityStatus,
)
from pilot_identity.core.resources.timestamps import format_timestamp

_BY_NO_DEFINITION: Mapping[str, int] = {}


def next_end(pilot: PilotIdentity, now: dt.datetime) -> dt.datetime | None:
    """When the next exception ends by itself."""
    ends = (one.until for one in pilot.status.exceptions if one.is_open and one.until > now)
    return min(ends, default=None)


def decide_exceptions(seen: PilotSeen, moment: Moment) -> Plan | None:
    """Bring the status' exceptions one step on; `None` where they are as they should be."""
    stage = seen.stages.get(seen.pilot.status.stage)
    if stage is None or stage.metadata.unreadable:
        # Nothing is issued then that a rule could be lifted for; what cannot be read has not changed.
        return None
    if not seen.pilot.spec.exceptions and not seen.pilot.status.exceptions:
        return None
    keeping = _Keeping(seen.pilot, stage, moment)
    for known in seen.pilot.status.exceptions:
        keeping.carry_on(known, seen.reviews)
    for declared in seen.pilot.spec.exceptions:
        if known_of(seen.pilot, declared.rule) is None:
            keeping.ask(declared)
    return keeping.plan()


def ended_with(pilot: PilotIdentity, why: str, now: dt.datetime) -> tuple[Entry, ...]:
    """The entries that end all of a pilot's exceptions, with the pilot itself."""
    return tuple(_ended(pilot, known, why, now) for known in pilot.status.exceptions if known.is_open)


@dataclass(slots=True)
class _Keeping:
    """What becomes of a pilot's exceptions in one pass.

    One is opened in a pass, last of all, so that its entry is the group's last and the status can name it.
    """

    pilot: PilotIdentity
    stage: StagePolicy
    moment: Moment
    kept: list[ExceptionStatus] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    opening: tuple[Entry, ...] = ()

    def carry_on(self, known: ExceptionStatus, approvals: tuple[Approval, ...]) -> None:
        """Look at one that the status knows."""
        declared = declared_of(self.pilot, known.rule)
        question = ExceptionQuestion.of(self.pilot, self.stage, known)
        if declared is None or self._is_another(known, declared):
            self._drop(known, declared)
        elif question is None:
            self.kept.append(known)
        elif self.moment.now >= known.until:
            self._end(known, ExceptionState.ENDED, f"its time was up at {format_timestamp(known.until)}")
        else:
            self._hear(question, verdicts(question, approvals))

    def _hear(self, question: ExceptionQuestion, said: Verdicts) -> None:
        """Do as people say."""
        known, approvals = question.known, said.approvals[: question.known.required]
        if said.denial is not None:
            self._deny(known, said.denial)
        elif known.state is ExceptionState.IN_FORCE:
            self.kept.append(known)
        elif len(approvals) == known.required and not self.opening:
            self._open(known, question.declared, approvals)
        else:
            names = tuple(counted(one) for one in approvals)
            message = _so_far(known, names)
            self.kept.append(msgspec.structs.replace(known, approvals=names, message=message))

    def ask(self, declared: PilotException) -> None:
        """Take up one that is new, or another than before."""
        now = self.moment.now
        asked = ExceptionStatus(
            rule=declared.rule,
            digest=exception_digest(self.pilot, self.stage, declared, now),
            since=now,
            until=end_of(declared),
            state=ExceptionState.WAITING,
            rule_text=rule_of(self.stage, declared.rule),
            required=required_by(self.stage),
        )
        against = self._against(declared)
        state = ExceptionState.REFUSED if against else ExceptionState.WAITING
        message = cut(against) or _so_far(asked, ())
        self.kept.append(msgspec.structs.replace(asked, state=state, message=message))
        reason = Reason.EXCEPTION_REFUSED if against else Reason.EXCEPTION_ASKED
        self._tell(reason, declared.rule, message, warning=bool(against))

    def plan(self) -> Plan | None:
        """What is to be done; `None` where nothing is."""
        wanted = msgspec.structs.replace(self.pilot.status, exceptions=tuple(self.kept))
        if wanted == self.pilot.status:
            return None
        entries = (*self.entries, *self.opening)

        def status(outcome: Outcome) -> PilotIdentityStatus:
            named = tuple(
                msgspec.structs.replace(one, audit_index=outcome.index)
                if one.state is ExceptionState.IN_FORCE and one.audit_index is None
                else one
                for one in self.kept
            )
            return msgspec.structs.replace(wanted, exceptions=named)

        return Plan(
            entries=(defined(self.pilot, self.moment.now), *entries) if entries else (),
            status=status,
            notices=tuple(self.notices),
            recheck_at=self.moment.now,
        )

    def _against(self, declared: PilotException) -> str:
        """Why an exception could never be in force; empty where it could."""
        stage, now = self.stage, self.moment.now
        names = ", ".join(rule.name for rule in stage.spec.rules) or "none"
        longest = stage.spec.approvals.exception.max_duration
        if rule_of(stage, declared.rule) is None:
            return f"stage {stage.name!r} has no rule {declared.rule!r}; its rules are: {names}"
        if not declared.requested_by:
            return (
                "it does not say who asks for it, so nobody can be told apart from him: write it again, with "
                "your own user name as its requestedBy where the API server does not fill that in"
            )
        if end_of(declared) <= now:
            return f"its until, {format_timestamp(declared.until)}, is over"
        if end_of(declared) > now + longest:
            return (
                f"stage {stage.name!r} allows an exception {format_duration(longest)}; set its until to "
                f"{format_timestamp((now + longest).replace(microsecond=0))} or earlier"
            )
        return ""

    def _is_another(self, known: ExceptionStatus, declared: PilotException) -> bool:
        """Whether what people were asked about is not what stands there now."""
        return known.digest != exception_digest(self.pilot, self.stage, declared, known.since)

    def _open(
        self, known: ExceptionStatus, declared: PilotException, approvals: tuple[Approval, ...]
    ) -> None:
        names = tuple(counted(one) for one in approvals)
        by = ", ".join(one.approver for one in names)
        message = f"approved by {by}"
        opened = msgspec.structs.replace(
            known, state=ExceptionState.IN_FORCE, approvals=names, message=message
        )
        data = {
            **_facts(known),
            "stage": self.stage.name,
            "policyDigest": policy_digest(self.stage),
            "ruleText": encode(rule_of(self.stage, known.rule)),
            "reason": declared.reason,
            "requestedBy": declared.requested_by,
            "required": known.required,
            "approvals": [encode(one) for one in names],
        }
        # Should others have approved by the time that a crash is over, then it is opened on their word.
        step = f"exception-opened/{short(digest_json([known.digest, [one.uid for one in names]]))}"
        now = self.moment.now
        self.opening = (
            *(given(one, now) for one in approvals),
            _entry(self.pilot, step, EntryType.EXCEPTION_OPENED, data, now),
        )
        self.kept.append(opened)
        self._tell(Reason.EXCEPTION_OPENED, known.rule, f"{message}, until {format_timestamp(known.until)}")

    def _deny(self, known: ExceptionStatus, denial: Approval) -> None:
        self.entries.append(given(denial, self.moment.now))
        why = f"denied by {denial.spec.approver}: {denial.spec.reason}"
        self._end(msgspec.structs.replace(known, denied_by=counted(denial)), ExceptionState.DENIED, why)

    def _end(self, known: ExceptionStatus, state: ExceptionState, why: str) -> None:
        """End one that the spec still asks for; the status goes on telling why."""
        self._tell_end(known, why)
        self.kept.append(msgspec.structs.replace(known, state=state, message=cut(why)))

    def _drop(self, known: ExceptionStatus, declared: PilotException | None) -> None:
        """End one that is not there any more; the next pass asks for what stands in its place."""
        if known.is_open:
            # Whoever reads the log must know by which definitions: they may be taken back at once.
            by = {
                "generation": self.pilot.metadata.generation,
                "policyGeneration": self.stage.metadata.generation,
            }
            self._tell_end(known, self._why_dropped(known, declared), by)

    def _why_dropped(self, known: ExceptionStatus, declared: PilotException | None) -> str:
        """What became of it, as far as that can be told."""
        if declared is None:
            return "it was taken out of spec.exceptions"
        if rule_of(self.stage, known.rule) is None:
            return f"stage {self.stage.name!r} has no such rule"
        if end_of(declared) != known.until:
            return "its until was changed, so that it is asked for anew"
        return (
            "some of what was approved was changed, so that it is asked for anew: the exception, its rule, "
            "the pilot's stage or reach, or how the stage wants it approved"
        )

    def _tell_end(self, known: ExceptionStatus, why: str, by: Mapping[str, int] = _BY_NO_DEFINITION) -> None:
        self.entries.append(_ended(self.pilot, known, why, self.moment.now, by))
        is_early = known.state is ExceptionState.IN_FORCE and self.moment.now < known.until
        self._tell(Reason.EXCEPTION_ENDED, known.rule, why, warning=is_early)

    def _tell(self, reason: Reason, rule: str, note: str, *, warning: bool = False) -> None:
        owner = Owner(self.pilot.key, self.pilot.metadata.uid)
        told = cut(f"exception from rule {rule!r}: {note}")
        self.notices.append(Notice(owner, "Warning" if warning else "Normal", reason, "Except", told))


def _so_far(known: ExceptionStatus, approvals: tuple[CountedApproval, ...]) -> str:
    """What it waits for."""
    by = f" ({', '.join(one.approver for one in approvals)})" if approvals else ""
    return f"waits for approvals: {len(approvals)} of {known.required}{by}"


def _facts(known: ExceptionStatus) -> dict[str, Any]:
    """What every entry about an exception says of it."""
    return {
        "rule": known.rule,
        "digest": known.digest,
        "since": encode(known.since),
        "until": format_timestamp(known.until),
    }


def _ended(
    pilot: PilotIdentity,
    known: ExceptionStatus,
    why: str,
    now: dt.datetime,
    by: Mapping[str, int] = _BY_NO_DEFINITION,
) -> Entry:
    data: dict[str, Any] = {
        **_facts(known),
        **by,
        "why": cut(why),
        "wasInForce": known.state is ExceptionState.IN_FORCE,
    }
    if known.audit_index is not None:
        data["openedBy"] = known.audit_index
    step = f"exception-ended/{short(known.digest)}"
    return _entry(pilot, step, EntryType.EXCEPTION_ENDED, data, now)


def _entry(
    pilot: PilotIdentity, step: str, kind: EntryType, data: Mapping[str, Any], now: dt.datetime
) -> Entry:
    uid = pilot.metadata.uid
    return Entry(f"{uid}/{step}", kind, str(pilot.key), uid, now, data)
