"""Definitions: what people wrote, told to the log in full and once, before anything rests on it.

Decisions name what they looked at by the digest of its spec. So that they can be made again from the log
alone, the spec is in the log before them: a policy when its stage takes it up, a pilot's and a grant's in the
same group as the first decision that looks at them. Whoever decides tells them each time; an entry's id has
the object's UID and what is said of it, and the log takes an id once.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from typing import Any

import msgspec

from pilot_identity.core.audit.canonical import canonical
from pilot_identity.core.audit.entries import Entry, EntryType, evidence
from pilot_identity.core.resources import PilotIdentity, TaskGrant
from pilot_identity.core.resources.conditions import cut
from pilot_identity.core.resources.digests import grant_digest, pilot_digest
from pilot_identity.core.resources.metadata import View
from pilot_identity.core.resources.parsing import encode
from pilot_identity.core.resources.task_grant import TaskGrantSpec

_DIGITS = 16


def definition_digest(spec: View) -> str:
    """Digest a whole spec, as the log has it; where an entry is too small for it, that has this digest.

    It is of what the spec says, not of what it means: `workload: {}` is another definition than none.
    """
    return "sha256:" + hashlib.sha256(canonical(encode(spec))).hexdigest()


def short(digest: str) -> str:
    """The first 64 bits of a digest, for an entry's id beside an object's UID."""
    return digest.removeprefix("sha256:")[:_DIGITS]


def asked(grant: TaskGrant) -> TaskGrantSpec:
    """What a grant asks for: all of its spec but how it ends, which alone may change."""
    return msgspec.structs.replace(grant.spec, completed=False, revoke=None)


def defined(pilot: PilotIdentity, now: dt.datetime) -> Entry:
    """The entry that has a pilot's definition.

    Made again it is the same, whoever makes it. The generation is in its id: who goes back to an earlier
    definition is told, too. So is the digest: another version of this program may read more of the same spec.
    """
    uid, generation, digest = pilot.metadata.uid, pilot.metadata.generation, definition_digest(pilot.spec)
    unreadable = pilot.metadata.unreadable
    return Entry(
        id=f"{uid}/defined/{generation}/{short(digest)}",
        type=EntryType.PILOT_DEFINED,
        subject=str(pilot.key),
        subject_uid=uid,
        time=now,
        data={
            "generation": generation,
            "changedBy": pilot.metadata.changed_by,
            "pilotDigest": pilot_digest(pilot),
            "definition": evidence(encode(pilot.spec)),
            **({"unreadable": cut(unreadable)} if unreadable else {}),
        },
    )


def request_facts(grant: TaskGrant, parent: TaskGrant | None) -> dict[str, Any]:
    """What every entry about a grant says of it; `parent` as far as it is there."""
    facts = {
        "pilot": grant.spec.pilot,
        "requestedBy": grant.spec.requested_by,
        "task": encode(grant.spec.task),
        "grantDigest": grant_digest(grant),
    }
    if grant.spec.parent:
        uid = parent.metadata.uid if parent is not None else grant.status.parent_uid
        facts["parent"] = {"name": grant.spec.parent, "uid": uid}
    return facts


def requested(grant: TaskGrant, parent: TaskGrant | None, now: dt.datetime) -> Entry:
    """The entry that has a grant's request."""
    created_at = grant.metadata.creation_timestamp
    return Entry(
        id=f"{grant.metadata.uid}/requested",
        type=EntryType.GRANT_REQUESTED,
        subject=str(grant.key),
        subject_uid=grant.metadata.uid,
        time=now,
        data={
            **request_facts(grant, parent),
            "spec": evidence(encode(asked(grant))),
            **({"createdAt": encode(created_at)} if created_at is not None else {}),
        },
    )
