"""The order in which a grant is checked, and what must hold on while its task runs."""

from __future__ import annotations

from pilot_identity.core.decisions.grants.checks.access import ACCESS, DURATION
from pilot_identity.core.decisions.grants.checks.approvals import APPROVALS
from pilot_identity.core.decisions.grants.checks.limits import LIMITS
from pilot_identity.core.decisions.grants.checks.rules import RULES
from pilot_identity.core.decisions.grants.checks.standing import STANDING

CHECKS = (*STANDING, *ACCESS, *DURATION, *RULES, *APPROVALS, *LIMITS)

RENEWAL_CHECKS = (*STANDING, *ACCESS, *RULES)
"""What must still hold when a running task's credentials are renewed; the rest is asked only at the start."""
