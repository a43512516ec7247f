"""The four kinds of the API as typed views, parsed once at the border.

`crds/*.yaml` is the one source of the API; `tests/core/resources/test_crd_parity.py` holds these views
and the CRDs together. A view has only what the operator reads: unknown fields are dropped while parsing,
so that ten thousand objects fit in memory. Views are frozen; a newer version of an object is a new view.
"""

from pilot_identity.core.resources.approval import Approval
from pilot_identity.core.resources.parsing import KINDS, Kind, Resource, ResourceError, parse
from pilot_identity.core.resources.pilot_identity import PilotIdentity
from pilot_identity.core.resources.stage_policy import StagePolicy
from pilot_identity.core.resources.task_grant import Phase, TaskGrant

__all__ = [
    "KINDS",
    "Approval",
    "Kind",
    "Phase",
    "PilotIdentity",
    "Resource",
    "ResourceError",
    "StagePolicy",
    "TaskGrant",
    "parse",
]
