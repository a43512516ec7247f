"""From the API server's JSON to typed views: the border, crossed once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import msgspec

from pilot_identity.core.resources.approval import Approval
from pilot_identity.core.resources.durations import Duration
from pilot_identity.core.resources.pilot_identity import PilotIdentity
from pilot_identity.core.resources.stage_policy import StagePolicy
from pilot_identity.core.resources.task_grant import TaskGrant

Resource: TypeAlias = StagePolicy | PilotIdentity | TaskGrant | Approval


class ResourceError(ValueError):
    """An object does not fit its view: the CRD in the cluster is not this version's."""


class Kind(NamedTuple):
    """A kind of the API: its name, its plural in URLs, its view, and whether it lives in namespaces."""

    name: str
    plural: str
    view: type[Resource]
    is_namespaced: bool


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("StagePolicy", "stagepolicies", StagePolicy, is_namespaced=False),
        Kind("PilotIdentity", "pilotidentities", PilotIdentity, is_namespaced=True),
        Kind("TaskGrant", "taskgrants", TaskGrant, is_namespaced=True),
        Kind("Approval", "approvals", Approval, is_namespaced=True),
    )
}


def parse(body: Mapping[str, Any]) -> Resource:
    """Parse one object as the API server sent it.

    Raises:
        ResourceError: its kind is not ours or a field does not fit; the message names the field.
    """
    kind = KINDS.get(body.get("kind", ""))
    if kind is None:
        raise ResourceError(f"expected one of {', '.join(KINDS)}, got kind {body.get('kind')!r}")
    return parse_as(body, kind)


def parse_as(body: Mapping[str, Any], kind: Kind) -> Resource:
    """Parse one object of a known kind; items of a LIST have no `kind` of their own."""
    try:
        return msgspec.convert({**body, "kind": kind.name}, kind.view, dec_hook=_decode)
    except (msgspec.ValidationError, ValueError) as error:
        metadata = body.get("metadata", {})
        name = f"{metadata.get('namespace', '')}/{metadata.get('name', '')}".lstrip("/")
        raise ResourceError(f"{kind.name} {name}: {error}") from error


_BLANKS: Mapping[str, Mapping[str, Any]] = {
    "StagePolicy": {"rank": -1, "trustDomain": "", "dataClasses": ()},
    "PilotIdentity": {
        "workflow": "",
        "purpose": "",
        "owners": {"business": "", "technical": ""},
        "stage": "",
    },
    "TaskGrant": {"pilot": "", "task": {"id": ""}, "access": (), "revoke": {"reason": ""}},
}
"""What stands for a field that is demanded and cannot be read; it is never written to the cluster."""

_STOPS: Mapping[str, Mapping[str, Any]] = {
    "StagePolicy": {"freeze": True},
    "PilotIdentity": {"suspend": True},
    "TaskGrant": {},
}


def read_as(body: Mapping[str, Any], kind: Kind) -> Resource:
    """Parse one object; where its spec does not fit, read what does and let the object count as stopped.

    Whoever writes a spec that this version cannot read must not win by it that his pilot's suspension,
    a grant's revocation or a deletion goes unseen. So a pilot reads as suspended then, a grant as revoked,
    a stage as frozen, and `metadata.unreadable` says why. The status is the operator's own.

    Raises:
        ResourceError: not even that: the status does not fit, or it is an Approval, which cannot change.
    """
    try:
        return parse_as(body, kind)
    except ResourceError as error:
        if kind.name not in _BLANKS:
            raise
        spec = body.get("spec")
        told = dict(spec) if isinstance(spec, Mapping) else {}
        blank = _BLANKS[kind.name]
        parts = {
            name: value
            for name, value in told.items()
            if value is not None and _fits({**body, "spec": {**blank, name: value}}, kind)
        }
        metadata = {**body["metadata"], "unreadable": str(error)}
        return parse_as({**body, "metadata": metadata, "spec": {**blank, **parts, **_STOPS[kind.name]}}, kind)


def _fits(body: Mapping[str, Any], kind: Kind) -> bool:
    try:
        parse_as(body, kind)
    except ResourceError:
        return False
    return True


def _decode(wanted: type, value: Any) -> Any:
    if wanted is Duration:
        return Duration.parse(str(value))
    raise NotImplementedError(f"no rule to parse a {wanted.__name__} from {value!r}")


def encode(value: object) -> Any:
    """Turn a view back into plain JSON values, defaults left out, as for a status patch."""
    return msgspec.to_builtins(value, enc_hook=_encode)


def _encode(value: Any) -> Any:
    if isinstance(value, Duration):
        return str(value)
    raise NotImplementedError(f"no rule to write a {type(value).__name__}")
