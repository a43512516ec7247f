"""Delegation: a grant's holder passes a piece of it on, never more (promise 4).

A child grant names its parent. What it gives must lie within what *each* of its ancestors gives, by each
ancestor's pilot as that stands now: so nothing rests on the order in which a change reaches a tree, and the
proof for a chain of any length is the proof for two. Coverage is transitive, since each entry must lie within
one entry of the ancestor and `resources.patterns` is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from pilot_identity.core.decisions.credentials import audiences, granted_access
from pilot_identity.core.resources import PilotIdentity, TaskGrant
from pilot_identity.core.resources.metadata import Key
from pilot_identity.core.resources.patterns import actions_cover, resources_cover
from pilot_identity.core.resources.pilot_identity import AccessEntry, KubernetesAccess, ToolAccess
from pilot_identity.core.resources.task_grant import AskedAccess

MAX_ANCESTORS = 8
"""`delegation.maxDepth` allows no more (crds/pilotidentities.yaml)."""


def lineage(grant: TaskGrant, find: Callable[[Key], TaskGrant | None]) -> tuple[TaskGrant, ...]:
    """Follow `spec.parent` upwards; returns the ancestors, the parent last.

    Short where one is missing, or is a namesake of the one that its child was first looked at with. Longer by
    one than may be at most, so that a cycle ends.
    """
    found: list[TaskGrant] = []
    child = grant
    while len(found) <= MAX_ANCESTORS and (key := child.parent_key) is not None:
        parent = find(key)
        if parent is None or child.status.parent_uid not in {"", parent.metadata.uid}:
            break
        found.append(parent)
        child = parent
    return tuple(reversed(found))


def given_access(grant: TaskGrant, pilot: PilotIdentity) -> tuple[AccessEntry, ...]:
    """What a grant gives: the pilot's entries that it names, as narrow as it asked for them.

    A tool that `spec.audience` leaves out gets no token, so it is not given and cannot be passed on; nor can
    what was asked for and is no longer the pilot's.
    """
    reached = audiences(grant, pilot)
    return tuple(
        _narrowed(asked, entry, grant.metadata.namespace)
        for asked, entry in granted_access(grant, pilot)
        if entry.tool is None or (entry.tool.audience in reached and _is_within(asked, entry.tool))
    )


def _is_within(asked: AskedAccess, tool: ToolAccess) -> bool:
    return actions_cover(tool.actions, asked.actions) and resources_cover(tool.resources, asked.resources)


def _narrowed(asked: AskedAccess, entry: AccessEntry, namespace: str) -> AccessEntry:
    tool, kubernetes = entry.tool, entry.kubernetes
    if tool is not None:
        tool = ToolAccess(tool.audience, asked.actions or tool.actions, asked.resources or tool.resources)
    if kubernetes is not None:
        kubernetes = KubernetesAccess(kubernetes.role_ref, kubernetes.namespace or namespace)
    return msgspec.structs.replace(entry, tool=tool, kubernetes=kubernetes)


def covers(wide: AccessEntry, narrow: AccessEntry) -> bool:
    """Whether all that `narrow` allows is allowed by `wide` too, for data of the same class."""
    if wide.data_class != narrow.data_class:
        return False
    if wide.tool is not None and narrow.tool is not None:
        return (
            wide.tool.audience == narrow.tool.audience
            and actions_cover(wide.tool.actions, narrow.tool.actions)
            and resources_cover(wide.tool.resources, narrow.tool.resources)
        )
    return wide.kubernetes is not None and wide.kubernetes == narrow.kubernetes


def outside(
    child: TaskGrant, pilot: PilotIdentity, ancestor: TaskGrant, ancestor_pilot: PilotIdentity
) -> AccessEntry | None:
    """Return the first entry that the child would give and the ancestor does not, if there is one."""
    held = given_access(ancestor, ancestor_pilot)
    return next(
        (entry for entry in given_access(child, pilot) if not any(covers(wide, entry) for wide in held)), None
    )


def may_delegate(pilot: PilotIdentity, to: str) -> bool:
    """Whether a pilot's grants may have children for that pilot, as far as names go; itself always."""
    return to == pilot.metadata.name or to in pilot.spec.delegation.to


def names_of(ancestors: tuple[TaskGrant, ...]) -> tuple[str, ...]:
    """The chain as a status tells it: the names, first ancestor first."""
    return tuple(ancestor.metadata.name for ancestor in ancestors)


def told_chain(ancestors: tuple[TaskGrant, ...]) -> list[dict[str, Any]]:
    """The chain as a token and an entry tell it, first ancestor first: for whom and at whose word."""
    return [
        {
            "grant": ancestor.metadata.name,
            "uid": ancestor.metadata.uid,
            "pilot": ancestor.spec.pilot,
            "requestedBy": ancestor.spec.requested_by,
        }
        for ancestor in ancestors
    ]
