"""Kubernetes access in the core: what is ordered, what is told, and what is taken back."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from pilot_identity.core.audit.entries import Entry, EntryType, decode_entry, encode_entry
from pilot_identity.core.decisions import kubernetes_access
from pilot_identity.core.decisions.announced import ABANDON_AFTER, Announced, Holding, announcement_of
from pilot_identity.core.decisions.grants.life import decide_grant
from pilot_identity.core.decisions.grants.seen import GrantSeen
from pilot_identity.core.decisions.hindrance import Hindrance, Obstacle
from pilot_identity.core.decisions.kubernetes_access import (
    account_name,
    account_order,
    bindings_of,
    withdrawals,
)
from pilot_identity.core.decisions.plan import (
    AccessDenied,
    AccountFacts,
    DeleteAccount,
    DeleteCredential,
    Outcome,
    Plan,
    TokenRefused,
    Unbind,
    Withdrawal,
)
from pilot_identity.core.resources import Phase, PilotIdentity, TaskGrant
from pilot_identity.core.resources.parsing import encode
from pilot_identity.core.resources.task_grant import TaskGrantStatus
from tests.core.builders import CA_END, NOW, TOOL, grant, moment, ready_pilot, stage

UID = "0d9f9c2e-9f0f-4a3c-8f57-6a8a3f6f8f10"
ACCOUNT = "pilot-grant-0d9f9c2e9f0f4a3c8f57"
FACTS = AccountFacts("uid-of-account", "jti-1", NOW + dt.timedelta(minutes=10))


def reach(name: str, *, role: str = "view", namespace: str = "") -> dict[str, Any]:
    """An access entry to the Kubernetes API."""
    where = {"namespace": namespace} if namespace else {}
    access = {"roleRef": {"kind": "ClusterRole", "name": role}, **where}
    return {"name": name, "dataClass": "synthetic", "kubernetes": access}


def pilot(*access: Mapping[str, Any]) -> PilotIdentity:
    """A pilot with a tool, and two namespaces to reach unless the case says otherwise."""
    return ready_pilot(access=[TOOL, *(access or (reach("pods"), reach("others", namespace="team-b")))])


def asked(*names: str, **fields: Any) -> TaskGrant:
    """A grant that asks for those entries."""
    wanted = [{"name": name} for name in names or ("pods", "others")]
    return grant(meta={"uid": UID}, access=wanted, **fields)


def seen(asks: TaskGrant | None = None, of: PilotIdentity | None = None, **facts: Any) -> GrantSeen:
    """A grant of Kubernetes access that would be issued, but for what the case changes."""
    return GrantSeen(asks or asked(), of or pilot(), stage(), ca_not_after=CA_END, **facts)


def announcement(plan: Plan) -> Entry:
    """The entry that announces what a plan releases."""
    assert plan.release is not None
    return plan.release.announce("ab" * 32, FACTS)


def announced(plan: Plan, holding: Holding) -> Announced:
    """What a pass leaves in the log that was killed later on."""
    recorded = decode_entry(encode_entry(announcement(plan), "log"))
    told = announcement_of(recorded)
    assert told is not None
    uid = "uid-of-secret" if holding is Holding.ANNOUNCED else ""
    return Announced(recorded, 9, told, holding, uid)


def issued() -> TaskGrant:
    """A grant as it stands once its access was given."""
    plan = decide_grant(seen(), moment())
    assert plan.status is not None
    status = plan.status(Outcome(9, "uid-of-secret", account=FACTS))
    return asked(status=encode(status))


def status_of(plan: Plan) -> TaskGrantStatus:
    """The status that a plan writes."""
    assert plan.status is not None
    status = plan.status(Outcome(9, "uid-of-secret", account=FACTS))
    assert isinstance(status, TaskGrantStatus)
    return status


def kinds(steps: tuple[Withdrawal, ...]) -> list[type[Withdrawal]]:
    """The kinds of what is withdrawn, in order."""
    return [type(step) for step in steps]


def test_names_follow_from_the_grant_alone() -> None:
    """Account and bindings have the same names after a crash, and no other grant's."""
    assert account_name(asked()) == ACCOUNT
    named = [(one.namespace, one.name) for one in bindings_of(asked("others", "pods"), pilot())]
    assert named == [("team-b", f"{ACCOUNT}-others"), ("team-a", f"{ACCOUNT}-pods")]
    assert bindings_of(asked("tickets"), pilot()) == ()


@pytest.mark.parametrize(
    "ttl, left, lifetime",
    [
        pytest.param("15m", 3600, 900, id="as the stage says"),
        pytest.param("15m", 700, 700, id="not beyond the task's end"),
        pytest.param("15m", 5, 600, id="the API server gives out none for less"),
        pytest.param("24h", 86400, 3600, id="no longer than any API server gives in full"),
    ],
)
def test_how_long_the_token_holds(ttl: str, left: int, lifetime: int) -> None:
    """Between the API server's least and an hour, as near to the stage's word as the task's end lets it."""
    credentials = {"x509TTL": "1h", "jwtTTL": "5m", "kubernetesTTL": ttl, "maxTaskDuration": "24h"}
    policy = stage(credentials=credentials)
    order = account_order(asked(), pilot(), policy, dt.timedelta(seconds=left))
    assert order is not None
    assert order.lifetime == dt.timedelta(seconds=lifetime)


def test_nothing_is_ordered_for_tools_alone() -> None:
    """A grant of tools gets no account."""
    plan = decide_grant(seen(asked("tickets")), moment())
    assert plan.release is not None
    assert plan.release.order.kubernetes is None
    assert withdrawals(seen(asked("tickets"))) == ()
    assert kubernetes_access.tests(seen(asked("tickets"))) == ()


def test_the_entry_names_the_access() -> None:
    """Account, token and bindings, each with its role, stand in the entry and in the status alike."""
    plan = decide_grant(seen(), moment())
    told = announcement(plan).data["credential"]["kubernetes"]
    assert told["serviceAccountName"] == ACCOUNT
    assert (told["serviceAccountUID"], told["credentialID"]) == ("uid-of-account", "jti-1")
    assert told["bindings"][1] == {
        "namespace": "team-b",
        "name": f"{ACCOUNT}-others",
        "roleRef": {"kind": "ClusterRole", "name": "view"},
    }
    credential = status_of(plan).credential
    assert credential is not None
    assert encode(credential.kubernetes) == told


def test_a_token_that_lapses_first_is_what_is_renewed_for() -> None:
    """The renewal is due by the credential that lapses soonest, be it the Kubernetes token."""
    credentials = {"x509TTL": "1h", "jwtTTL": "1h", "kubernetesTTL": "10m", "maxTaskDuration": "1h"}
    grants = GrantSeen(asked(duration="1h"), pilot(), stage(credentials=credentials), ca_not_after=CA_END)
    credential = status_of(decide_grant(grants, moment())).credential
    assert credential is not None
    assert credential.renew_at < NOW + dt.timedelta(minutes=8)


def test_a_renewal_orders_the_same_again() -> None:
    """Same account, same bindings, another token."""
    standing = issued()
    credential = standing.status.credential
    assert credential is not None
    plan = decide_grant(seen(standing), moment(now=credential.renew_at))
    assert plan.release is not None
    order = plan.release.order.kubernetes
    assert order is not None
    assert credential.kubernetes is not None
    assert (order.name, order.bindings) == (ACCOUNT, credential.kubernetes.bindings)
    assert announcement(plan).type == EntryType.GRANT_RENEWED


@pytest.mark.parametrize(
    "access",
    [
        pytest.param((reach("pods", role="edit"), reach("others", namespace="team-b")), id="another role"),
        pytest.param((reach("pods"), reach("others", namespace="team-c")), id="another namespace"),
    ],
)
def test_access_that_changed_is_not_renewed(access: tuple[dict[str, Any], ...]) -> None:
    """What was bound is not what the pilot has now: it lapses, and nothing wider comes of it."""
    standing = issued()
    credential = standing.status.credential
    assert credential is not None
    plan = decide_grant(seen(standing, pilot(*access)), moment(now=credential.renew_at))
    assert plan.release is None
    (ready,) = status_of(plan).conditions
    assert ready.reason == "AccessChanged"


def test_bindings_go_first_then_the_account_then_the_secret() -> None:
    """Access stops with the bindings; whatever the pilot has become meanwhile, it is what was bound."""
    ending = msgspec.structs.replace(issued(), spec=asked(revoke={"reason": "enough"}).spec)
    plan = decide_grant(seen(ending, pilot(reach("elsewhere"))), moment())
    named = [step.binding.name for step in plan.withdraw if isinstance(step, Unbind)]
    assert named == [f"{ACCOUNT}-pods", f"{ACCOUNT}-others"]
    first = kinds(plan.withdraw)
    assert first[:3] == [Unbind, Unbind, DeleteAccount]
    assert DeleteCredential in first[3:]
    assert plan.prove is not None
    (access,) = [test for test in plan.prove.tests if isinstance(test, AccessDenied)]
    assert [binding.namespace for binding in access.bindings] == ["team-a", "team-b"]
    (token,) = [test for test in plan.prove.tests if isinstance(test, TokenRefused)]
    assert (token.account_uid, token.credential_id) == ("uid-of-account", "jti-1")


def test_what_was_bound_for_an_abandoned_first_issue_is_taken_back() -> None:
    """Its entry names the bindings; its Secret never came, so that nobody has the token."""
    plan = decide_grant(seen(), moment())
    left = announced(plan, Holding.NOTHING)
    settled = decide_grant(seen(announced=left), moment(now=NOW + 2 * ABANDON_AFTER))
    assert kinds(settled.withdraw) == [Unbind, Unbind, DeleteAccount]
    assert [entry.type for entry in settled.entries] == [EntryType.CREDENTIAL_ABANDONED]


def test_an_abandoned_renewal_takes_nothing_back() -> None:
    """The bindings are those of the credential that still stands."""
    standing = issued()
    credential = standing.status.credential
    assert credential is not None
    renewal = decide_grant(seen(standing), moment(now=credential.renew_at))
    left = announced(renewal, Holding.PREVIOUS)
    later = moment(now=credential.renew_at + 2 * ABANDON_AFTER)
    assert decide_grant(seen(standing, announced=left), later).withdraw == ()


def test_a_grant_whose_secret_is_anothers_keeps_no_binding() -> None:
    """Its bindings stand, since they come before the Secret; they go with its denial."""
    left = announced(decide_grant(seen(), moment()), Holding.FOREIGN)
    plan = decide_grant(seen(announced=left), moment())
    assert status_of(plan).phase is Phase.DENIED
    assert kinds(plan.withdraw) == [Unbind, Unbind, DeleteAccount]


def test_an_announcement_is_withdrawn_beside_what_the_status_knows() -> None:
    """A renewal that is announced but not settled names a token that must be tested, and no binding twice."""
    standing = issued()
    credential = standing.status.credential
    assert credential is not None
    left = announced(decide_grant(seen(standing), moment(now=credential.renew_at)), Holding.ANNOUNCED)
    assert kinds(withdrawals(seen(standing, announced=left))) == [Unbind, Unbind, DeleteAccount]


def test_nothing_is_tried_and_nothing_withdrawn_for_a_denied_grant() -> None:
    """What was never announced has no binding."""
    binding = bindings_of(asked(), pilot())[0]
    plan = decide_grant(seen(hindrances=(Hindrance(binding, Obstacle.NOT_BINDABLE),)), moment())
    assert status_of(plan).phase is Phase.DENIED
    assert plan.withdraw == ()
