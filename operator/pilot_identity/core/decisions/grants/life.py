"""A grant's life: what is to be done for it now."""

from __future__ import annotations

import datetime as dt

from pilot_identity.core.decisions.fresh import Moment
from pilot_identity.core.decisions.grants.case import Case
from pilot_identity.core.decisions.grants.closing import end, end_again, rest, withdrawals
from pilot_identity.core.decisions.grants.considering import consider
from pilot_identity.core.decisions.grants.endings import ending_of, is_parent_ending
from pilot_identity.core.decisions.grants.issuing import carry_on
from pilot_identity.core.decisions.grants.seen import GrantSeen
from pilot_identity.core.decisions.grants.settling import settle_announced
from pilot_identity.core.decisions.holding import is_overdue
from pilot_identity.core.decisions.plan import Plan, Proving
from pilot_identity.core.resources import Phase
from pilot_identity.core.resources.task_grant import Proof

CUT_AGAIN = dt.timedelta(seconds=1)
"""When to try again what could not be withdrawn, or asked, while the end is not recorded."""


def decide_grant(seen: GrantSeen, moment: Moment) -> Plan:
    """Decide what is to be done for a grant."""
    case = Case(seen, moment)
    grant = seen.grant
    if grant.status.phase.is_terminal:
        return rest(case)
    if seen.is_announced_unknown and not is_overdue(grant.metadata, moment.now):
        # The end is recorded once it can be told what must be named in it; what is known is cut now.
        return _cut_and_ask_again(case)
    if grant.status.phase is Phase.CLOSING:
        return end_again(case)
    if seen.announced is not None and not is_overdue(grant.metadata, moment.now):
        # Settled before anything else is decided, an end too, so that no branch below can forget it: what
        # is withdrawn is then what the status knows, and the closing entry names it. But a deleted grant is
        # not held for it beyond the bound, should the log take no entry: its end settles it then.
        return settle_announced(case, seen.announced)
    ending = ending_of(seen, moment.now)
    if ending is not None:
        return end(case, ending)
    return _carry_on(case)


def _carry_on(case: Case) -> Plan:
    if case.grant.metadata.is_deleting:
        return Plan()
    if case.grant.status.phase is not Phase.ACTIVE:
        return consider(case)
    return _cut(case) if is_parent_ending(case.seen, case.moment.now) else carry_on(case)


def _cut(case: Case) -> Plan:
    """Cut the access of a grant that will end with another; its own end is recorded after that one's.

    So a tree's access goes at once and waits for no log, and the log tells the ends from the top down.
    """

    def conclude(failed: tuple[Proof, ...]) -> Plan:
        return Plan(recheck_at=case.moment.now + CUT_AGAIN if failed else case.grant.status.expires_at)

    return Plan(withdraw=withdrawals(case), prove=Proving((), conclude))


def _cut_and_ask_again(case: Case) -> Plan:
    again = Plan(recheck_at=case.moment.now + CUT_AGAIN)
    return Plan(withdraw=withdrawals(case), prove=Proving((), lambda _: again))
