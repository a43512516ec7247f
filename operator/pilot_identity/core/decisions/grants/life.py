"""A grant's life: what is to be done for it now."""

from __future__ import annotations

from pilot_identity.core.decisions.fresh import Moment
from pilot_identity.core.decisions.grants.case import Case
from pilot_identity.core.decisions.grants.closing import end, rest
from pilot_identity.core.decisions.grants.considering import consider
from pilot_identity.core.decisions.grants.endings import ending_of
from pilot_identity.core.decisions.grants.issuing import carry_on
from pilot_identity.core.decisions.grants.seen import GrantSeen
from pilot_identity.core.decisions.grants.settling import settle_announced
from pilot_identity.core.decisions.plan import Plan
from pilot_identity.core.resources import Phase


def decide_grant(seen: GrantSeen, moment: Moment) -> Plan:
    """Decide what is to be done for a grant."""
    case = Case(seen, moment)
    grant = seen.grant
    if grant.status.phase.is_terminal:
        return rest(case)
    if seen.announced is not None:
        # Settled before anything else is decided, an end too, so that no branch below can forget it: what
        # is withdrawn is then what the status knows, and the closing entry names it.
        return settle_announced(case, seen.announced)
    ending = ending_of(seen, moment.now)
    if ending is not None:
        return end(case, ending)
    if grant.metadata.is_deleting:
        return Plan()
    if grant.status.phase is Phase.ACTIVE:
        return carry_on(case)
    return consider(case)
