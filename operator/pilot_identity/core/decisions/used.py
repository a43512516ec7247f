"""What people are told of use that must not be: after a grant's end, or by an account of no grant."""

from __future__ import annotations

from pilot_identity.core.audit.access_window import AccessWindow
from pilot_identity.core.decisions.plan import Notice, Owner
from pilot_identity.core.resources.conditions import Reason


def tell_use(who: Owner, window: AccessWindow, *, is_a_grant: bool) -> Notice | None:
    """Tell what a window has of it, on the grant or else on the account; `None` where all is as it should be.

    What others asked for as the account is theirs: they are in the log, and it is no use of the grant.
    """
    if not is_a_grant and window.requests:
        note = f"{window.requests} requests by this account, which is no known grant's"
        return Notice(who, "Warning", Reason.USED_WITHOUT_GRANT, "Use", note)
    if is_a_grant and window.allowed_late:
        note = f"{window.allowed_late} requests were still allowed after its access was withdrawn"
        return Notice(who, "Warning", Reason.USED_AFTER_END, "Use", note)
    return None
