"""The life of a grant: which phase follows which, on what event.

```
            allowed ┌────────── Active ──────────┐ completed, revoked, time up, withdrawn pilot …
Pending ────────────┤             ▲              ├──► Completed | Expired | Revoked
   │  │             └─► AwaitingApproval ────────┤
   │  └── ended before it was issued ────────────┘        (Closing stands between Active and these
   └──► Denied                                             until tests show that access ended)
```

Terminal is final: no event leads out of Completed, Expired, Revoked or Denied.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from pilot_identity.core.resources.task_grant import Phase


class Happening(StrEnum):
    """What can happen to a grant."""

    ALLOWED = "allowed"
    NEEDS_APPROVAL = "needs approval"
    DENIED = "denied"
    UNPROVEN = "unproven"
    COMPLETED = "completed"
    TIME_UP = "time up"
    REVOKED = "revoked"


class IllegalTransitionError(Exception):
    """The phase knows no such happening; a decision that gets here is wrong."""


_ENDS: Mapping[Happening, Phase] = {
    Happening.COMPLETED: Phase.COMPLETED,
    Happening.TIME_UP: Phase.EXPIRED,
    Happening.REVOKED: Phase.REVOKED,
}

TRANSITIONS: Mapping[Phase, Mapping[Happening, Phase]] = {
    Phase.PENDING: {
        Happening.ALLOWED: Phase.ACTIVE,
        Happening.NEEDS_APPROVAL: Phase.AWAITING_APPROVAL,
        Happening.DENIED: Phase.DENIED,
        Happening.UNPROVEN: Phase.CLOSING,
        **_ENDS,
    },
    Phase.AWAITING_APPROVAL: {
        Happening.ALLOWED: Phase.ACTIVE,
        Happening.DENIED: Phase.DENIED,
        Happening.UNPROVEN: Phase.CLOSING,
        **_ENDS,
    },
    Phase.ACTIVE: {Happening.UNPROVEN: Phase.CLOSING, **_ENDS},
    Phase.CLOSING: {Happening.UNPROVEN: Phase.CLOSING, **_ENDS},
    Phase.COMPLETED: {},
    Phase.EXPIRED: {},
    Phase.REVOKED: {},
    Phase.DENIED: {},
}


def follow(phase: Phase, happening: Happening) -> Phase:
    """Return the phase after `happening`.

    >>> follow(Phase.ACTIVE, Happening.TIME_UP)
    <Phase.EXPIRED: 'Expired'>

    Raises:
        IllegalTransitionError: that cannot happen in this phase.
    """
    try:
        return TRANSITIONS[phase][happening]
    except KeyError:
        raise IllegalTransitionError(f"a grant that is {phase} cannot be {happening}") from None
