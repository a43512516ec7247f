"""The entries that tell of an Approval: what was said, what it was used for, that it counts for nothing."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from pilot_identity.core.audit.entries import Entry, EntryType
from pilot_identity.core.resources import Approval
from pilot_identity.core.resources.conditions import Reason, cut
from pilot_identity.core.resources.parsing import encode

VERDICT = frozenset({"verdict", "why"})
"""What an entry says of an approval beside its spec."""


def given(approval: Approval, now: dt.datetime) -> Entry:
    """A person who may has spoken; the log takes it once, whoever comes first to tell it."""
    return _entry(approval, EntryType.APPROVAL_GIVEN, "given", now, encode(approval.spec))


def used(approval: Approval, by: str, index: int | None, now: dt.datetime) -> Entry:
    """It was counted, once: for which object, and by which entry of the log where that is known."""
    subject = approval.spec.subject
    data: dict[str, Any] = {"approver": approval.spec.approver, "usedBy": by, "usedByUID": subject.uid}
    if index is not None:
        data["decidedBy"] = index
    return _entry(approval, EntryType.APPROVAL_USED, "used", now, data)


def void(approval: Approval, reason: Reason, why: str, nonce: str, now: dt.datetime) -> Entry:
    """What was said counts for nothing; `nonce` makes the entry another one each time that this is found."""
    data = {**encode(approval.spec), "verdict": reason, "why": cut(why)}
    return _entry(approval, EntryType.APPROVAL_VOID, f"void/{nonce}", now, data)


def _entry(
    approval: Approval, kind: EntryType, step: str, now: dt.datetime, data: Mapping[str, Any]
) -> Entry:
    uid = approval.metadata.uid
    return Entry(f"{uid}/{step}", kind, str(approval.key), uid, now, data)
