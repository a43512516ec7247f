"""What cannot be asked keeps no access: a grant that is to end is observed although the ports fail."""

from __future__ import annotations

import datetime as dt
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pilot_identity.control.gather import Gatherer
from pilot_identity.control.store import Store
from pilot_identity.core.decisions.holding import HOLDING_BOUND
from pilot_identity.core.resources import TaskGrant
from pilot_identity.ports import Unavailable
from tests.core.builders import NOW, active_grant, deleting, ready_pilot, stage


async def _fails(*_: object) -> Any:
    raise Unavailable("no answer")


async def _finds_nothing(*_: object) -> Any:
    return None


def gatherer(grant: TaskGrant, *, log_answers: bool) -> Gatherer:
    """One whose issuer never answers."""
    store = Store()
    for one in (stage(), ready_pilot(), grant):
        store.put(one)
    answer = _finds_nothing if log_answers else _fails
    log = SimpleNamespace(announced=answer, recorded=answer)
    issuer = SimpleNamespace(facts=_fails)
    nothing = cast("Any", SimpleNamespace())
    return Gatherer(store, nothing, cast("Any", issuer), cast("Any", log), nothing)


ENDING = {
    "it was revoked": active_grant(revoke={"reason": "leak"}),
    "it is closing": active_grant(status={"phase": "Closing"}),
    "it is deleted": active_grant(meta=deleting()),
    "it ended, and is held past its bound": active_grant(
        status={"phase": "Revoked"}, meta=deleting(NOW - HOLDING_BOUND)
    ),
}


@pytest.mark.parametrize("grant", ENDING.values(), ids=ENDING)
async def test_a_grant_is_observed_whatever_fails_where(grant: TaskGrant) -> None:
    """The stage's keys are nothing to its end, and what the log announced is said to be unknown."""
    seen = await gatherer(grant, log_answers=True).grant(grant, NOW)
    assert (seen.announced, seen.is_announced_unknown) == (None, False)
    seen = await gatherer(grant, log_answers=False).grant(grant, NOW)
    assert (seen.announced, seen.is_announced_unknown) == (None, True)


@pytest.mark.parametrize("log_answers", [False, True])
async def test_a_grant_that_goes_on_waits_for_answers(log_answers: bool) -> None:
    """Nothing is decided of it on half of what there is to know."""
    grant = active_grant()
    with pytest.raises(Unavailable):
        await gatherer(grant, log_answers=log_answers).grant(grant, NOW - dt.timedelta(minutes=1))
