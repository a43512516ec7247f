"""Entries: what the log says happened, as CloudEvents 1.0 in canonical JSON (RFC 8785)."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec
import rfc8785

from pilot_identity.core.audit.canonical import canonical
from pilot_identity.core.resources.timestamps import format_timestamp

MAX_ENTRY_BYTES = 65_535
"""C2SP tlog-tiles: an entry bundle frames each entry with a 16-bit length."""


MAX_EVIDENCE_BYTES = 16_384
"""Of one piece of evidence inside an entry; a few of them fit into one."""


class EntryError(ValueError):
    """An entry cannot be in the log; the message says why."""


class EntryType(StrEnum):
    """What an entry tells. The docstring below each is its meaning in plain words."""

    LOG_STARTED = "dev.pilotidentity.log.started.v1"
    """The log's first entry: which key signs it, and since when."""
    STAGE_KEYS_MADE = "dev.pilotidentity.stage.keys-made.v1"
    """A stage got its CA and JWT key; says their public fingerprints."""
    STAGE_POLICY_CHANGED = "dev.pilotidentity.stage.policy-changed.v1"
    """A stage's rules changed, or it was frozen or thawed; by whom, the digests, the rules as they are."""
    STAGE_REFUSED = "dev.pilotidentity.stage.refused.v1"
    """A StagePolicy cannot be used, and why."""
    PILOT_REGISTERED = "dev.pilotidentity.pilot.registered.v1"
    """A pilot was accepted into the lowest stage and got its first SVID; who owns it, what it may reach."""
    PILOT_REFUSED = "dev.pilotidentity.pilot.refused.v1"
    """A pilot's definition cannot be accepted, and why."""
    PILOT_ADMITTED = "dev.pilotidentity.pilot.admitted.v1"
    """A pilot got an SVID again, after a move to another stage or a suspension."""
    PILOT_CHANGED = "dev.pilotidentity.pilot.changed.v1"
    """What is material in a pilot changed; the digests before and after."""
    PILOT_RENEWED = "dev.pilotidentity.pilot.renewed.v1"
    """A pilot's SVID was replaced by a fresh one."""
    PILOT_SUSPENDED = "dev.pilotidentity.pilot.suspended.v1"
    """A pilot's SVID was withdrawn because its owner suspended it, or its spec could not be read."""
    PILOT_RETIRED = "dev.pilotidentity.pilot.retired.v1"
    """A pilot was deleted and everything issued for it is withdrawn."""
    STAGE_CHANGE_HELD = "dev.pilotidentity.pilot.stage-held.v1"
    """A pilot asked to rise and was held; what evidence is missing."""
    STAGE_CHANGED = "dev.pilotidentity.pilot.stage-changed.v1"
    """A pilot moved to another stage; its identity in the old one is withdrawn."""
    GRANT_DENIED = "dev.pilotidentity.grant.denied.v1"
    """A grant was refused for good; every check and its result."""
    GRANT_ISSUED = "dev.pilotidentity.grant.issued.v1"
    """A grant's credentials may be released; who asked, what for, every check, the identifiers."""
    GRANT_RENEWED = "dev.pilotidentity.grant.renewed.v1"
    """A grant's credentials were replaced by fresh ones within the same task."""
    CREDENTIAL_ABANDONED = "dev.pilotidentity.credential.abandoned.v1"
    """An announced credential was not found in its place: the operator stopped before it was released.

    Should someone have taken it away before that was looked at, it lapses by itself at `notAfter`.
    """
    GRANT_EMERGENCY = "dev.pilotidentity.grant.emergency.v1"
    """Someone broke the glass: a grant is issued without approvals; who, what for, the review's date."""
    GRANT_CLOSED = "dev.pilotidentity.grant.closed.v1"
    """A grant ended; how, why, when its credentials were withdrawn, and what showed that they are."""
    APPROVAL_GIVEN = "dev.pilotidentity.approval.given.v1"
    """A person who may said Approve or Deny: who, of what groups, to exactly what, why."""
    APPROVAL_VOID = "dev.pilotidentity.approval.void.v1"
    """An approval counts for nothing, and why: its approver has no say, or what it was about changed."""
    REVIEW_OWED = "dev.pilotidentity.pilot.review-owed.v1"
    """A pilot must be reviewed because of an emergency grant: by when, and who asked for the grant."""
    PILOT_REVIEWED = "dev.pilotidentity.pilot.reviewed.v1"
    """A person reviewed a pilot: who, why, and after which emergency grants, if there were some."""
    REVIEW_OVERDUE = "dev.pilotidentity.pilot.review-overdue.v1"
    """Nobody reviewed a pilot in time: it gets no grants, and none is renewed, until somebody does."""
    GRANT_PROVEN = "dev.pilotidentity.grant.proven.v1"
    """What could not be shown when the grant ended is shown now: nothing of it gives access any more."""
    GRANT_UNPROVEN = "dev.pilotidentity.grant.unproven.v1"
    """The end of a grant's access is not shown after a while; with `letGo` the object is gone nevertheless.

    Then this is the tombstone: `left` names what could not be shown to be gone, and when it lapses by itself.
    """
    ACTIVITY_RECORDED = "dev.pilotidentity.activity.recorded.v1"
    """What a grant's agent, or a tool that it uses, says was done: their claim, tied to one credential."""
    ACCESS_SEEN = "dev.pilotidentity.access.seen.v1"
    """What a grant's account asked the API server for since the last such entry, by the server's own word."""


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
    encoded = rfc8785.dumps(value)
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
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise EntryError(f"an entry is a CloudEvent with a subject and its UID: {error}") from error
