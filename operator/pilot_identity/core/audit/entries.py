"""Entries: what the log says happened, as CloudEvents 1.0 in canonical JSON (RFC 8785)."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

from pilot_identity.core.audit.canonical import canonical
from pilot_identity.core.resources.timestamps import format_timestamp

MAX_ENTRY_BYTES = 65_535
"""C2SP tlog-tiles: an entry bundle frames each entry with a 16-bit length."""


MAX_EVIDENCE_BYTES = 16_384
"""Of one piece of evidence inside an entry; a few of them fit into one."""


class EntryError(ValueError):
    """An entry cannot be in the log; the message says why."""


class EntryType(StrEnum):
    """What an entry tells. The docstring below each is the question that it answers, and its meaning."""

    LOG_STARTED = "dev.pilotidentity.log.started.v1"
    """Since when is there a log, and who began it? Its first entry."""
    LOG_STRAY_REMOVED = "dev.pilotidentity.log.stray-removed.v1"
    """What stood beside the log and is gone? A group that was no part of it; its digest, and what it held.

    It was written too late: bundles had its place, and other entries. Nobody was told that it counts.
    """
    OPERATOR_STARTED = "dev.pilotidentity.operator.started.v1"
    """Who has decided since then? A replica took the lead: its name, its version, Python's."""
    OPERATOR_STOPPED = "dev.pilotidentity.operator.stopped.v1"
    """Did it stop as it was asked to? A replica gave up the lead, and why; without it, it was cut off."""
    STAGE_KEYS_MADE = "dev.pilotidentity.stage.keys-made.v1"
    """Whose signature may be on a stage's credentials? It got keys; their public fingerprints, and why.

    The first generation signs at once. A later one is made because of the age of the one that signs, on an
    admin's word, or because that is distrusted, and is only published: `stage.keys-rotated` says since when
    it signs. Of two entries for one generation the later counts: the keys of the other were never stored.
    """
    STAGE_KEYS_ROTATED = "dev.pilotidentity.stage.keys-rotated.v1"
    """Whose signature is on a stage's credentials since then, and whose before? Both generations, and why."""
    STAGE_KEYS_RETIRED = "dev.pilotidentity.stage.keys-retired.v1"
    """Since when is a signature worth nothing? A generation left the bundle; its private keys are deleted."""
    STAGE_POLICY_CHANGED = "dev.pilotidentity.stage.policy-changed.v1"
    """Who changed a stage's rules, froze or thawed it, and what do they say now? In full, and the digests."""
    STAGE_REFUSED = "dev.pilotidentity.stage.refused.v1"
    """Why does a stage issue nothing? Its StagePolicy cannot be used; what is to be changed."""
    PILOT_REGISTERED = "dev.pilotidentity.pilot.registered.v1"
    """Since when is a pilot known? It was accepted into the lowest stage and got its first SVID."""
    PILOT_DEFINED = "dev.pilotidentity.pilot.defined.v1"
    """What did a pilot's team declare, and who wrote it? Each definition once, before anything rests on it.

    Its owners, purpose, ceiling and all else; `unreadable` says why this version could not read all of it.
    """
    PILOT_REFUSED = "dev.pilotidentity.pilot.refused.v1"
    """Why does a pilot have no identity? Its definition cannot be accepted; what is to be changed."""
    PILOT_ADMITTED = "dev.pilotidentity.pilot.admitted.v1"
    """Since when is a pilot in its new stage with an identity? It got an SVID there after a move."""
    PILOT_RESUMED = "dev.pilotidentity.pilot.resumed.v1"
    """Who let a suspended pilot work again? Its suspension ended, and it got an SVID again."""
    PILOT_CHANGED = "dev.pilotidentity.pilot.changed.v1"
    """Who changed what is material in a pilot, so that approvals and reviews are void? Both digests."""
    PILOT_RENEWED = "dev.pilotidentity.pilot.renewed.v1"
    """Which SVID does a pilot have since then? The one before was replaced by a fresh one."""
    PILOT_SUSPENDED = "dev.pilotidentity.pilot.suspended.v1"
    """Who stopped a pilot? Its SVID was withdrawn: it was suspended, or its spec could not be read."""
    PILOT_RETIRED = "dev.pilotidentity.pilot.retired.v1"
    """Since when is a pilot gone? It was deleted, and everything issued for it is withdrawn."""
    STAGE_CHANGE_ASKED = "dev.pilotidentity.pilot.stage-asked.v1"
    """Who asked for another stage, from which, to which? Before it is held or made."""
    STAGE_CHANGE_HELD = "dev.pilotidentity.pilot.stage-held.v1"
    """Why did a pilot not rise? It asked to and was held; what evidence is missing."""
    STAGE_CHANGED = "dev.pilotidentity.pilot.stage-changed.v1"
    """Since when is a pilot in its stage? It moved there; its identity in the old one is withdrawn."""
    GRANT_REQUESTED = "dev.pilotidentity.grant.requested.v1"
    """Who asked for this, and for what exactly? A grant was looked at for the first time; all of its spec."""
    GRANT_DECIDED = "dev.pilotidentity.grant.decided.v1"
    """Why does a grant wait? Every check and its result, and what they looked at; once for each outcome.

    Not for a limit that is reached for the moment: that passes by itself. A grant that need not wait has
    its decision in `grant.issued` or `grant.denied`.
    """
    GRANT_APPROVED = "dev.pilotidentity.grant.approved.v1"
    """Who agreed? All the approvals that a grant needed are there; whose, and to exactly what."""
    GRANT_DENIED = "dev.pilotidentity.grant.denied.v1"
    """Why was this refused? A grant was denied for good.

    The decision, with every check and what it looked at.
    """
    GRANT_ISSUED = "dev.pilotidentity.grant.issued.v1"
    """Why was this allowed, and what was given? A grant's credentials may be released.

    The decision, with every check and what it looked at, and the identifiers of what is issued.
    """
    GRANT_RENEWED = "dev.pilotidentity.grant.renewed.v1"
    """Which credentials does a grant have since then? Fresh ones replaced those before, within the task."""
    CREDENTIAL_ABANDONED = "dev.pilotidentity.credential.abandoned.v1"
    """Was an announced credential ever out? It was not found in its place: it was not released.

    Should someone have taken it away before that was looked at, it lapses by itself at `notAfter`.
    """
    GRANT_EMERGENCY = "dev.pilotidentity.grant.emergency.v1"
    """Who broke the glass? A grant is issued without approvals; what for, and the review's date."""
    GRANT_CLOSED = "dev.pilotidentity.grant.closed.v1"
    """How was access revoked, why, and what showed that it is? A grant ended; when it was withdrawn."""
    APPROVAL_GIVEN = "dev.pilotidentity.approval.given.v1"
    """Who said Approve or Deny, of what groups, to exactly what, and why? A person who may."""
    APPROVAL_USED = "dev.pilotidentity.approval.used.v1"
    """What was an approval used for? It counted for one decision, named here, and counts for no other."""
    APPROVAL_VOID = "dev.pilotidentity.approval.void.v1"
    """Why does an approval count for nothing? Its approver has no say, or what it was about changed."""
    REVIEW_OWED = "dev.pilotidentity.pilot.review-owed.v1"
    """Who must look at a pilot, by when? It owes a review because of emergency grants; who asked for them."""
    PILOT_REVIEWED = "dev.pilotidentity.pilot.reviewed.v1"
    """Who reviewed a pilot, why, and after which emergency grants, if there were some?"""
    REVIEW_OVERDUE = "dev.pilotidentity.pilot.review-overdue.v1"
    """Why does a pilot get nothing? Nobody reviewed it in time; no grant is made or renewed until then."""
    EXCEPTION_OPENED = "dev.pilotidentity.pilot.exception-opened.v1"
    """Who let a pilot off a rule, at whose wish, why, and until when? Now its grants may rest on that."""
    EXCEPTION_ENDED = "dev.pilotidentity.pilot.exception-ended.v1"
    """Why does a rule hold for a pilot again, or still? An exception that people were asked about is over.

    Its time is up, somebody denied it, or it was withdrawn or changed; `wasInForce` says whether it ever was.
    """
    GRANT_PROVEN = "dev.pilotidentity.grant.proven.v1"
    """Since when is it shown that nothing of a grant gives access? It could not be when it ended."""
    GRANT_UNPROVEN = "dev.pilotidentity.grant.unproven.v1"
    """What of an ended grant may still give access? Its end is not shown; with `letGo` the object is gone.

    Then this is the tombstone: `left` names what could not be shown to be gone, and when it lapses by itself.
    """
    ACTIVITY_RECORDED = "dev.pilotidentity.activity.recorded.v1"
    """What does a grant's agent, or a tool, say was done? Their claim, tied to one credential."""
    ACCESS_SEEN = "dev.pilotidentity.access.seen.v1"
    """What was accessed? What a grant's account asked the API server for since, by the server's own word."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry before it has an index.

    Attributes:
        id: unique in the log, and the same when the same step is decided again after a crash: the log
            takes an id once, so that a step is recorded once.
        type: what happened.
        subject: the object as `Kind namespace/name`.
        subject_uid: the object's UID; a later object of the same name is another subject.
        time: when it was decided.
        data: the particulars, plain JSON values.
    """

    id: str
    type: EntryType
    subject: str
    subject_uid: str
    time: dt.datetime
    data: Mapping[str, Any]


class RecordedEntry(msgspec.Struct, frozen=True, rename={"subject_uid": "subjectuid"}):
    """An entry as it stands in the log: CloudEvents attributes and data."""

    id: str
    type: str
    subject: str
    subject_uid: str
    time: dt.datetime
    data: dict[str, Any]


def evidence(value: Any) -> Any:
    """Return `value` itself, or its SHA-256 and size where it is too big for an entry.

    >>> evidence({"a": 1})
    {'a': 1}
    """
    encoded = canonical(value)
    if len(encoded) <= MAX_EVIDENCE_BYTES:
        return value
    return {"sha256": hashlib.sha256(encoded).hexdigest(), "bytes": len(encoded)}


def encode_entry(entry: Entry, source: str) -> bytes:
    """Encode `entry` as one canonical JSON object; `source` is the log's origin.

    `subjectuid` is a CloudEvents extension attribute (lower-case letters only, CloudEvents 1.0 §3.1).

    Raises:
        EntryError: the encoding is larger than the log's format allows.
    """
    encoded = canonical(
        {
            "specversion": "1.0",
            "id": entry.id,
            "source": source,
            "type": str(entry.type),
            "subject": entry.subject,
            "subjectuid": entry.subject_uid,
            "time": format_timestamp(entry.time),
            "datacontenttype": "application/json",
            "data": dict(entry.data),
        }
    )
    if len(encoded) > MAX_ENTRY_BYTES:
        raise EntryError(f"an entry is at most {MAX_ENTRY_BYTES} bytes, {entry.id} has {len(encoded)}")
    return encoded


def decode_entry(encoded: bytes | str) -> RecordedEntry:
    """Decode an entry of the log.

    Raises:
        EntryError: it is not an entry that this version writes.
    """
    try:
        return msgspec.json.decode(encoded, type=RecordedEntry)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise EntryError(f"an entry is a CloudEvent with a subject and its UID: {error}") from error
