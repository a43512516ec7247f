from __future__ import annotations

import datetime as dt

import pytest

from pilot_identity.core.audit.access import Account, Sighting, Target
from pilot_identity.core.audit.access_window import ABOUT, AccessWindow
from pilot_identity.core.decisions.plan import Owner
from pilot_identity.core.decisions.used import tell_use
from pilot_identity.core.resources.conditions import Reason
from pilot_identity.core.resources.metadata import Key
from tests.core.builders import NOW

WHO = Owner(Key("TaskGrant", "team-a", "task-1"), "uid")


def used(after: dt.timedelta, *, code: int = 200, borrower: str = "") -> AccessWindow:
    """A window with one request so long after the end of access."""
    window = AccessWindow()
    account = Account("team-a", "pilot-grant-1")
    target = Target("get", "pods", "team-a")
    window.add(Sighting(account, "a", "t", target, "", NOW + after, code, b"", borrower), NOW)
    return window


LATE = ABOUT + dt.timedelta(seconds=1)


@pytest.mark.parametrize(
    "window, is_a_grant, reason",
    [
        pytest.param(used(LATE), True, Reason.USED_AFTER_END, id="long after the end"),
        pytest.param(used(ABOUT), True, None, id="about the end"),
        pytest.param(used(LATE, code=403), True, None, id="after the end, and refused"),
        pytest.param(used(LATE, borrower="alice"), True, None, id="by somebody else"),
        pytest.param(used(-LATE), True, None, id="before the end"),
        pytest.param(used(-LATE), False, Reason.USED_WITHOUT_GRANT, id="by an account of no grant"),
        pytest.param(used(LATE, borrower="alice"), False, None, id="by somebody else as such an account"),
    ],
)
def test_what_must_not_be_is_told(window: AccessWindow, is_a_grant: bool, reason: Reason | None) -> None:
    """And nothing else."""
    notice = tell_use(WHO, window, is_a_grant=is_a_grant)
    assert (notice.reason if notice is not None else None) == reason
    assert notice is None or (notice.owner, notice.type) == (WHO, "Warning")
