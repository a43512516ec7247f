"""The order in which a grant is checked, and what must hold on while its task runs."""

from __future__ import annotations

from pilot_identity.core.decisions.grants.checks.access import ACCESS, DURATION
from pilot_identity.core.decisions.grants.checks.approvals import APPROVALS
from pilot_identity.core.decisions.grants.checks.binding import BINDING
from pilot_identity.core.decisions.grants.checks.certificate_request import CERTIFICATE_REQUEST
from pilot_identity.core.decisions.grants.checks.delegation import DELEGATION, DELEGATION_STANDS
from pilot_identity.core.decisions.grants.checks.emergency import (
    EMERGENCY,
    EMERGENCY_STANDS,
    RECORDED,
    REVIEWED,
)
from pilot_identity.core.decisions.grants.checks.limits import LIMITS
from pilot_identity.core.decisions.grants.checks.rules import rules
from pilot_identity.core.decisions.grants.checks.standing import STANDING
from pilot_identity.core.decisions.grants.checks.tokens import TOKENS
from pilot_identity.core.decisions.grants.seen import Request
from pilot_identity.core.decisions.objection import Check
from pilot_identity.core.resources import StagePolicy

BEFORE_RULES = (
    *STANDING,
    *REVIEWED,
    *ACCESS,
    *CERTIFICATE_REQUEST,
    *DURATION,
    *EMERGENCY,
    *DELEGATION,
    *TOKENS,
)
"""What the program itself demands comes first: a rule sees only requests that are in order."""

AFTER_RULES = (*APPROVALS, *LIMITS, *RECORDED)
"""People are asked last, and only about what would be issued on their word; limits are counted then."""

RENEWAL_CHECKS = (
    *STANDING,
    *REVIEWED,
    *ACCESS,
    *DURATION,
    *EMERGENCY_STANDS,
    *DELEGATION_STANDS,
    *TOKENS,
    *BINDING,
)
"""What must still hold, beside the rules, when a running task's credentials are renewed."""


def checks_of(stage: StagePolicy) -> tuple[Check[Request], ...]:
    """All that is asked of a request in a stage, in order."""
    return (*BEFORE_RULES, *rules(stage), *AFTER_RULES)


def renewal_checks_of(stage: StagePolicy) -> tuple[Check[Request], ...]:
    """What is asked again when credentials are renewed in a stage, in order."""
    return (*RENEWAL_CHECKS, *rules(stage))
