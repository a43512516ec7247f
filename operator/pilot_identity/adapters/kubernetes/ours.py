"""The marks by which the operator's own objects are known, to it and to the admission policies."""

from __future__ import annotations

from typing import Any

from pilot_identity.core.decisions.plan import Owner
from pilot_identity.core.resources.metadata import API_VERSION

MANAGED_BY = {"app.kubernetes.io/managed-by": "pilot-identity"}


def owner_reference(owner: Owner) -> dict[str, Any]:
    """Tie an object's life to its owner's, which is its controller."""
    return {
        "apiVersion": API_VERSION,
        "kind": owner.key.kind,
        "name": owner.key.name,
        "uid": owner.uid,
        "controller": True,
    }
