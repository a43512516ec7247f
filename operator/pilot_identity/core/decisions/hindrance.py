"""Hindrances: what the API server has against a binding, found out before anything is promised."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from pilot_identity.core.resources.task_grant import Binding


class Obstacle(Enum):
    """What stands in the way of a binding."""

    NOT_BINDABLE = "the operator may not bind the role there"
    ROLE_MISSING = "there is no such role"
    NAMESPACE_MISSING = "there is no such namespace"
    NAME_TAKEN = "something else has the name"


@dataclass(frozen=True, slots=True)
class Hindrance:
    """A binding that cannot be made, and why."""

    binding: Binding
    obstacle: Obstacle
