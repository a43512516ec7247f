"""Digests of what was decided upon, so that an approval or a decision is bound to exactly that.

A digest is `sha256:` and the hex SHA-256 of the canonical JSON (RFC 8785) of the material part of a spec:
what a reviewer must see again when it changes.
"""

from __future__ import annotations

import hashlib
from typing import Any

import rfc8785

from pilot_identity.core.resources.parsing import encode
from pilot_identity.core.resources.pilot_identity import PilotIdentity
from pilot_identity.core.resources.stage_policy import StagePolicy
from pilot_identity.core.resources.task_grant import TaskGrant

_PILOT_MATERIAL = ("owners", "stage", "workload", "access", "delegation", "material", "exceptions")
_PILOT_REACH = tuple(name for name in _PILOT_MATERIAL if name not in {"stage", "exceptions"})
_POLICY_IMMATERIAL = ("freeze", "keys")
_GRANT_IMMATERIAL = ("completed", "revoke")


def digest_json(value: Any) -> str:
    """Digest plain JSON values.

    >>> digest_json({"b": 1, "a": []}) == digest_json({"a": [], "b": 1})
    True
    """
    return "sha256:" + hashlib.sha256(rfc8785.dumps(value)).hexdigest()


def pilot_digest(pilot: PilotIdentity) -> str:
    """Digest what counts as material in a pilot: purpose and workflow may be reworded freely.

    A section that says nothing, such as `workload: {}`, is as good as none.
    """
    spec = encode(pilot.spec)
    return digest_json({name: spec[name] for name in _PILOT_MATERIAL if spec.get(name)})


def reach_digest(pilot: PilotIdentity) -> str:
    """Digest what is material in a pilot but for the stage and the exceptions that it asks for."""
    spec = encode(pilot.spec)
    return digest_json({name: spec[name] for name in _PILOT_REACH if spec.get(name)})


def policy_digest(policy: StagePolicy) -> str:
    """Digest a stage's rules: all of its policy but whether it is frozen, and how its keys are rotated."""
    spec = encode(policy.spec)
    return digest_json({name: value for name, value in spec.items() if name not in _POLICY_IMMATERIAL})


def grant_digest(grant: TaskGrant) -> str:
    """Digest what a grant asks for: all of its spec but how it ends."""
    spec = encode(grant.spec)
    return digest_json({name: value for name, value in spec.items() if name not in _GRANT_IMMATERIAL})
