"""Hindrances: what the API server has against a binding or a Secret, found out before it is promised."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from pilot_identity.core.decisions.objection import Objection
from pilot_identity.core.resources.conditions import Condition, ConditionType, Reason, find
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


MOST_ABANDONED = 8
"""So many credentials in a row that never came to be are enough: each costs the log two entries."""
ASKED_AGAIN = (dt.timedelta(seconds=15), dt.timedelta(minutes=5))
"""The shortest and the longest time until a refused Secret is asked for again; quotas are not watched."""


def refused(secret: str, refusal: str) -> Objection:
    """What is said while the API server refuses a Secret; `refusal` is its own word."""
    message = f"the API server does not let Secret {secret!r} be made; it is asked again by itself: {refusal}"
    return Objection(Reason.SECRET_REFUSED, message, is_final=False)


def asked_again_at(conditions: Sequence[Condition], now: dt.datetime) -> dt.datetime:
    """When to ask again: once it has waited as long again as it has waited, within bounds."""
    ready = find(conditions, ConditionType.READY)
    is_waiting = ready is not None and ready.status == "False" and ready.last_transition_time
    since = dt.datetime.fromisoformat(ready.last_transition_time) if ready is not None and is_waiting else now
    shortest, longest = ASKED_AGAIN
    return now + min(max(now - since, shortest), longest)
