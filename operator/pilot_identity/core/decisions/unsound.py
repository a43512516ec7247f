"""What to tell of a credential that was not signed, because it would have broken its own standard.

The checks let nothing through that cannot be signed. Should one of them be wrong, this is how it is seen: the
object says so, once, and it is tried again at leisure, since only another version or another spec helps.
"""

from __future__ import annotations

import datetime as dt

import msgspec

from pilot_identity.core.decisions.fresh import Moment
from pilot_identity.core.decisions.plan import Notice, Owner, Plan
from pilot_identity.core.resources import Resource, TaskGrant
from pilot_identity.core.resources.conditions import ConditionType, Finding, Reason, find, settle

TRIED_AGAIN_AFTER = dt.timedelta(minutes=1)
"""How soon the same is tried again; what ends the object before then ends it on time."""


def tell_unsound(resource: Resource, why: str, moment: Moment) -> Plan:
    """Say that nothing was signed for an object, and why; its other conditions stay."""
    message = f"nothing was signed, since it would not be sound: {why}"
    finding = Finding(ConditionType.READY, status=False, reason=Reason.CREDENTIAL_UNSOUND, message=message)
    before = resource.status.conditions
    others = tuple(one for one in before if one.type != ConditionType.READY)
    ready = [one for one in before if one.type == ConditionType.READY]
    told = settle(ready, (finding,), generation=resource.metadata.generation, now=moment.now)
    wanted = msgspec.structs.replace(resource.status, conditions=(*told, *others))
    was = find(before, ConditionType.READY)
    is_new = was is None or (was.reason, was.message) != (told[0].reason, told[0].message)
    owner = Owner(resource.key, resource.metadata.uid)
    notice = Notice(owner, "Warning", Reason.CREDENTIAL_UNSOUND, "Sign", message)
    return Plan(
        status=lambda _: wanted,
        notices=(notice,) if is_new else (),
        recheck_at=min((moment.now + TRIED_AGAIN_AFTER, *_ends(resource, moment.now))),
    )


def _ends(resource: Resource, now: dt.datetime) -> list[dt.datetime]:
    """When a grant ends by itself: that waits for no other try."""
    if not isinstance(resource, TaskGrant):
        return []
    status = resource.status
    ends = [status.expires_at, status.approval.expires_at if status.approval is not None else None]
    return [end for end in ends if end is not None and end > now]
