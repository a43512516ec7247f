"""What is passed on from grant to grant: each check's objection, the chain that is told, and the end."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from pilot_identity.core.audit.entries import EntryType, decode_entry, encode_entry
from pilot_identity.core.decisions.announced import Announced, Holding, announcement_of
from pilot_identity.core.decisions.credentials import CLAIMS
from pilot_identity.core.decisions.delegation import lineage
from pilot_identity.core.decisions.grants.life import decide_grant
from pilot_identity.core.decisions.grants.seen import GrantSeen
from pilot_identity.core.decisions.plan import DeleteCredential, Outcome, Plan
from pilot_identity.core.resources import Phase, PilotIdentity, TaskGrant
from pilot_identity.core.resources.metadata import Key
from pilot_identity.core.resources.task_grant import TaskGrantStatus
from tests.core.builders import (
    CA_END,
    NOW,
    TOOL,
    active_grant,
    deleting,
    grant,
    moment,
    ready,
    ready_pilot,
    stage,
    tool,
)

KUBERNETES: Mapping[str, Any] = {
    "name": "cluster",
    "dataClass": "synthetic",
    "kubernetes": {"roleRef": {"kind": "Role", "name": "view"}},
}


def delegating(name: str = "triage", *, depth: int = 2, **spec: Any) -> PilotIdentity:
    """A pilot that may delegate to `helper`."""
    return ready_pilot(name, delegation={"to": ["helper"], "maxDepth": depth}, **spec)


def parent_grant(name: str = "task-0", **fields: Any) -> TaskGrant:
    """A grant of `triage` that has ten minutes to go."""
    return active_grant(name, **fields)


def child(name: str = "task-1", **spec: Any) -> TaskGrant:
    """A grant of `helper` for five minutes, below `task-0`."""
    return grant(name, **{"pilot": "helper", "parent": "task-0", "duration": "5m", **spec})


def issued_child(
    name: str = "task-1", *, status: Mapping[str, Any] | None = None, **fields: Any
) -> TaskGrant:
    """The same, issued."""
    known = {"parentUID": "uid-of-task-0", "chain": ["task-0"], **(status or {})}
    return active_grant(name, status=known, **{"pilot": "helper", "parent": "task-0", **fields})


def seen(
    asked: TaskGrant | None = None,
    parent: TaskGrant | None = None,
    above: PilotIdentity | None = None,
    pilot: PilotIdentity | None = None,
    **facts: Any,
) -> GrantSeen:
    """A child that would be issued, but for what the case changes."""
    policy = facts.pop("policy", stage())
    known = {
        "ca_not_after": CA_END,
        "ancestors": (parent or parent_grant(),),
        "ancestor_pilots": (above or delegating(),),
        **facts,
    }
    return GrantSeen(asked or child(), pilot or ready_pilot("helper"), policy, **known)


def status_of(plan: Plan) -> TaskGrantStatus:
    """The status that a plan writes."""
    assert plan.status is not None
    status = plan.status(Outcome(9, "uid-of-secret"))
    assert isinstance(status, TaskGrantStatus)
    return status


def three_levels(depths: tuple[int, int, int] = (3, 2, 1)) -> dict[str, Any]:
    """Three ancestors of a child, each of its own pilot, with the depths that their pilots allow."""
    names = ("task-a", "task-b", "task-0")
    above = tuple(
        active_grant(
            name,
            pilot=f"pilot-{name}",
            parent=before or "",
            status={"parentUID": f"uid-of-{before}"} if before else {},
        )
        for before, name in zip((None, *names), names, strict=False)
    )
    pilots = tuple(
        ready_pilot(f"pilot-{name}", delegation={"to": ["helper"], "maxDepth": depth})
        for name, depth in zip(names, depths, strict=True)
    )
    return {"ancestors": above, "ancestor_pilots": pilots}


DENIED: Mapping[str, tuple[GrantSeen, str, str, str]] = {
    "it is its own parent": (
        seen(child("task-0"), child("task-0")),
        "not-its-own-ancestor",
        "DelegationNotAllowed",
        "grant 'task-0' is among its own ancestors",
    ),
    "it is further up in its own chain": (
        seen(
            child("task-a"),
            ancestors=(child("task-a"), grant("task-0", parent="task-a")),
            ancestor_pilots=(delegating(), delegating()),
        ),
        "not-its-own-ancestor",
        "DelegationNotAllowed",
        "grant 'task-a' is among its own ancestors",
    ),
    "its parent ended": (
        seen(parent=grant("task-0", status={"phase": "Completed"})),
        "parent-active",
        "ParentEnded",
        "its parent 'task-0' is Completed; ask for a child of another grant",
    ),
    "its parent was denied": (
        seen(parent=grant("task-0", status={"phase": "Denied"})),
        "parent-active",
        "ParentEnded",
        "its parent 'task-0' is Denied",
    ),
    "its parent is closing": (
        seen(parent=parent_grant(status={"phase": "Closing"})),
        "parent-active",
        "ParentEnded",
        "its parent 'task-0' is Closing",
    ),
    "its parent is being deleted": (
        seen(parent=parent_grant(meta=deleting())),
        "parent-active",
        "ParentEnded",
        "its parent 'task-0' is being deleted",
    ),
    "its parent went while it waited": (
        seen(
            msgspec.structs.replace(child(), status=TaskGrantStatus(parent_uid="uid-of-the-first")),
            ancestors=(),
            ancestor_pilots=(),
        ),
        "parent-active",
        "ParentEnded",
        "its parent 'task-0' is gone",
    ),
    "its parent's pilot is in another stage": (
        seen(parent=parent_grant(status={"stage": "production"})),
        "stage-of-parent",
        "StageOutsideParent",
        "its pilot 'helper' is in stage 'sandbox', its parent 'task-0' in 'production'",
    ),
    "its parent's pilot does not delegate": (
        seen(above=ready_pilot("triage")),
        "delegation-allowed",
        "DelegationNotAllowed",
        "its owners would list it in spec.delegation.to, which has: none",
    ),
    "its parent's pilot delegates to others": (
        seen(above=ready_pilot("triage", delegation={"to": ["other", "third"], "maxDepth": 8})),
        "delegation-allowed",
        "DelegationNotAllowed",
        "which has: other, third",
    ),
    "the same pilot allows no children": (
        seen(child(pilot="triage"), above=ready_pilot("triage"), pilot=ready_pilot("triage")),
        "delegation-depth",
        "DelegationTooDeep",
        "it would be 1 generation below grant 'task-0', whose pilot 'triage' allows 0",
    ),
    "the first grant's pilot allows fewer generations": (
        seen(**three_levels((2, 8, 8))),
        "delegation-depth",
        "DelegationTooDeep",
        "it would be 3 generations below grant 'task-a', whose pilot 'pilot-task-a' allows 2",
    ),
    "a grant between allows fewer generations": (
        seen(**three_levels((8, 1, 8))),
        "delegation-depth",
        "DelegationTooDeep",
        "it would be 2 generations below grant 'task-b', whose pilot 'pilot-task-b' allows 1",
    ),
    "the chain is longer than any may be": (
        seen(
            ancestors=tuple(active_grant(f"above-{number}") for number in range(9)),
            ancestor_pilots=(delegating(depth=8),) * 9,
        ),
        "chain-complete",
        "DelegationTooDeep",
        "more than 8 generations below the first grant",
    ),
    "it asks for an action that its parent did not ask for": (
        seen(parent=parent_grant(access=[{"name": "tickets", "actions": ["read"]}])),
        "access-within-parent",
        "AccessOutsideParent",
        "access 'tickets' goes beyond what grant 'task-0' has",
    ),
    "it asks for resources that its parent did not ask for": (
        seen(parent=parent_grant(access=[{"name": "tickets", "resources": ["projects/billing/issues/*"]}])),
        "access-within-parent",
        "AccessOutsideParent",
        "access 'tickets' goes beyond what grant 'task-0' has",
    ),
    "an audience is new": (
        seen(
            child(access=[{"name": "wiki"}]),
            pilot=ready_pilot("helper", access=[tool("wiki", audience="https://wiki.example.org")]),
        ),
        "access-within-parent",
        "AccessOutsideParent",
        "access 'wiki' goes beyond",
    ),
    "its parent left the audience out": (
        seen(
            parent=parent_grant(
                access=[{"name": "tickets"}, {"name": "wiki"}], audience=["https://wiki.example.org"]
            ),
            above=delegating(access=[dict(TOOL), tool("wiki", audience="https://wiki.example.org")]),
        ),
        "access-within-parent",
        "AccessOutsideParent",
        "access 'tickets' goes beyond",
    ),
    "the data is of another class": (
        seen(
            pilot=ready_pilot("helper", access=[{**TOOL, "dataClass": "internal"}]),
            policy=stage(dataClasses=["synthetic", "internal"]),
        ),
        "access-within-parent",
        "AccessOutsideParent",
        "ask for the same audience or role and data class",
    ),
    "the role is another": (
        seen(
            child(access=[{"name": "cluster"}]),
            parent_grant(access=[{"name": "cluster"}]),
            delegating(access=[dict(KUBERNETES)]),
            ready_pilot(
                "helper",
                access=[{**KUBERNETES, "kubernetes": {"roleRef": {"kind": "ClusterRole", "name": "view"}}}],
            ),
        ),
        "access-within-parent",
        "AccessOutsideParent",
        "access 'cluster' goes beyond",
    ),
    "the role is bound in another namespace": (
        seen(
            child(access=[{"name": "cluster"}]),
            parent_grant(access=[{"name": "cluster"}]),
            delegating(access=[dict(KUBERNETES)]),
            ready_pilot(
                "helper",
                access=[{**KUBERNETES, "kubernetes": {**KUBERNETES["kubernetes"], "namespace": "team-b"}}],
            ),
        ),
        "access-within-parent",
        "AccessOutsideParent",
        "access 'cluster' goes beyond",
    ),
    "a grant further up has less than its parent has now": (
        seen(
            **{
                **three_levels(),
                "ancestors": (
                    active_grant(
                        "task-a", pilot="pilot-task-a", access=[{"name": "tickets", "actions": ["read"]}]
                    ),
                    *three_levels()["ancestors"][1:],
                ),
            }
        ),
        "access-within-parent",
        "AccessOutsideParent",
        "goes beyond what grant 'task-a' has",
    ),
    "it would outlast its parent": (
        seen(child(duration="11m")),
        "ends-with-parent",
        "DurationOutsideParent",
        "its parent 'task-0' ends at 2026-06-01T12:10:00.250Z, in 10m; asked for 11m",
    ),
}


@pytest.mark.parametrize("case, check, reason, message", DENIED.values(), ids=DENIED)
def test_a_child_is_denied_for_good_because(case: GrantSeen, check: str, reason: str, message: str) -> None:
    """The check that objected is named last; the entry tells the parent."""
    plan = decide_grant(case, moment())
    status = status_of(plan)
    assert plan.release is None
    assert (status.phase, status.conditions[0].reason) == (Phase.DENIED, reason)
    assert message in status.conditions[0].message
    assert status.decision is not None
    assert status.decision.checks[-1].name == check
    *_, asked, entry = plan.entries
    assert asked.type is EntryType.GRANT_REQUESTED
    assert entry.data["parent"]["name"] == case.grant.spec.parent


WAITING: Mapping[str, tuple[GrantSeen, str, str]] = {
    "there is no parent yet": (
        seen(ancestors=(), ancestor_pilots=()),
        "ParentNotFound",
        "no TaskGrant 'task-0' in namespace 'team-a'; apply it, or correct the name",
    ),
    "its parent is not issued yet": (
        seen(parent=grant("task-0")),
        "ParentNotReady",
        "its parent 'task-0' is Pending",
    ),
    "its parent waits for approval": (
        seen(parent=grant("task-0", status={"phase": "AwaitingApproval"})),
        "ParentNotReady",
        "its parent 'task-0' is AwaitingApproval",
    ),
    "its parent has lapsed": (
        seen(parent=parent_grant(status={"conditions": [ready("AccessUnknown", is_true=False)]})),
        "ParentNotReady",
        "its parent 'task-0' has lapsed (AccessUnknown",
    ),
    "a grant further up is gone": (
        seen(parent=parent_grant(parent="task-a")),
        "ParentNotReady",
        "grant 'task-a', further up in its chain, is gone",
    ),
    "a pilot in the chain is gone": (
        seen(ancestor_pilots=(None,)),
        "ParentNotReady",
        "pilot 'triage' of grant 'task-0', in its chain, is gone",
    ),
}


@pytest.mark.parametrize("case, reason, message", WAITING.values(), ids=WAITING)
def test_a_child_waits_while(case: GrantSeen, reason: str, message: str) -> None:
    """Manifests are applied in any order."""
    plan = decide_grant(case, moment())
    status = status_of(plan)
    assert plan.release is None
    assert (status.phase, status.conditions[0].reason) == (Phase.PENDING, reason)
    assert message in status.conditions[0].message


ISSUED: Mapping[str, GrantSeen] = {
    "another pilot's child asks for the same": seen(),
    "the same pilot's child asks for the same": seen(
        child(pilot="triage"),
        above=ready_pilot("triage", delegation={"maxDepth": 1}),
        pilot=ready_pilot("triage", delegation={"maxDepth": 1}),
    ),
    "it asks for less": seen(
        child(access=[{"name": "tickets", "actions": ["read"], "resources": ["projects/billing/issues/*"]}])
    ),
    "its entry has another name": seen(
        child(access=[{"name": "billing-tickets"}]),
        pilot=ready_pilot("helper", access=[tool("billing-tickets")]),
    ),
    "it ends with its parent": seen(child(duration="10m")),
    "each of three ancestors allows it": seen(**three_levels()),
    "it asks for the same role": seen(
        child(access=[{"name": "cluster"}]),
        parent_grant(access=[{"name": "cluster"}]),
        delegating(access=[dict(KUBERNETES)]),
        ready_pilot(
            "helper",
            access=[{**KUBERNETES, "kubernetes": {**KUBERNETES["kubernetes"], "namespace": "team-a"}}],
        ),
    ),
}


@pytest.mark.parametrize("case", ISSUED.values(), ids=ISSUED)
def test_a_child_is_issued_where(case: GrantSeen) -> None:
    """It ends no later than its parent, and says where it comes from."""
    plan = decide_grant(case, moment())
    assert plan.release is not None
    status, parent = status_of(plan), case.parent
    assert parent is not None
    assert parent.status.expires_at is not None
    assert status.phase is Phase.ACTIVE
    assert status.expires_at is not None
    assert status.expires_at <= parent.status.expires_at
    assert plan.release.order.not_after <= parent.status.expires_at
    assert status.parent_uid == parent.metadata.uid
    assert status.chain == tuple(ancestor.metadata.name for ancestor in case.ancestors)


def test_the_chain_is_told_in_token_and_entry() -> None:
    """First ancestor first: which grant, for which pilot, at whose word."""
    plan = decide_grant(seen(**three_levels()), moment())
    assert plan.release is not None
    (order,) = plan.release.order.tokens
    told = [
        {"grant": name, "uid": f"uid-of-{name}", "pilot": f"pilot-{name}", "requestedBy": "ana"}
        for name in ("task-a", "task-b", "task-0")
    ]
    assert order.claims[CLAIMS]["delegation"] == told
    entry = plan.release.announce("ab" * 32)
    assert entry.data["delegation"] == told
    assert entry.data["parent"] == {"name": "task-0", "uid": "uid-of-task-0"}


def test_a_child_keeps_to_the_parent_that_it_was_first_looked_at_with() -> None:
    """While it waits the parent's UID is noted; a namesake made later is another grant."""
    waiting = seen(parent=grant("task-0"))
    status = status_of(decide_grant(waiting, moment()))
    assert (status.parent_uid, status.chain) == ("uid-of-task-0", ("task-0",))
    asked = msgspec.structs.replace(child(), status=status)
    namesake = parent_grant(meta={"uid": "uid-of-another"})
    assert lineage(asked, {namesake.key: namesake}.get) == ()
    after = seen(asked, ancestors=(), ancestor_pilots=())
    assert status_of(decide_grant(after, moment())).phase is Phase.DENIED


def test_what_was_announced_is_adopted_with_its_chain() -> None:
    """Killed between Secret and status, the operator reads the parent back from its entry."""
    plan = decide_grant(seen(), moment())
    assert plan.release is not None
    entry = decode_entry(encode_entry(plan.release.announce("ab" * 32), "log"))
    announcement = announcement_of(entry)
    assert announcement is not None
    announced = Announced(entry, 9, announcement, Holding.ANNOUNCED, "uid-of-secret")
    adopted = status_of(decide_grant(seen(announced=announced), moment()))
    assert (adopted.phase, adopted.chain, adopted.parent_uid) == (Phase.ACTIVE, ("task-0",), "uid-of-task-0")
    gone = seen(announced=announced, ancestors=(), ancestor_pilots=())
    assert status_of(decide_grant(gone, moment())).parent_uid == "uid-of-task-0"


class TestLineage:
    """Who the ancestors of a grant are."""

    def test_it_is_short_where_one_is_missing(self) -> None:
        """The nearest are there."""
        near, far = active_grant("b", parent="a"), active_grant("a", parent="gone")
        found = lineage(child(parent="b"), {near.key: near, far.key: far}.get)
        assert [ancestor.metadata.name for ancestor in found] == ["a", "b"]

    def test_a_cycle_ends(self) -> None:
        """It is one longer than may be, so that it is refused."""
        one, two = grant("one", parent="two"), grant("two", parent="one")
        assert len(lineage(child(parent="one"), {one.key: one, two.key: two}.get)) == 9

    def test_each_link_is_by_uid(self) -> None:
        """An ancestor whose own parent was replaced by a namesake has none."""
        far = active_grant("a", meta={"uid": "uid-of-another"})
        near = active_grant("b", parent="a", status={"parentUID": "uid-of-a"})
        found = lineage(child(parent="b"), {near.key: near, far.key: far}.get)
        assert [ancestor.metadata.name for ancestor in found] == ["b"]

    def test_it_stays_in_the_namespace(self) -> None:
        """A parent is named, never addressed."""
        asked: list[Key] = []

        def find(key: Key) -> None:
            asked.append(key)

        lineage(child(), find)
        assert asked == [Key("TaskGrant", "team-a", "task-0")]


AFTER = NOW + dt.timedelta(minutes=2)
"""Past the renewal of an active grant's credentials."""


class TestEnd:
    """A child ends with its parent: cut at once, recorded after it."""

    ENDED: Mapping[str, tuple[GrantSeen, str]] = {
        "completed": (
            seen(issued_child(), grant("task-0", status={"phase": "Completed"})),
            "its parent 'task-0' is Completed",
        ),
        "closing": (
            seen(
                issued_child(),
                parent_grant(status={"phase": "Closing", "closure": {"outcome": "Revoked"}}),
            ),
            "its parent 'task-0' is Revoked",
        ),
        "gone": (seen(issued_child(), ancestors=(), ancestor_pilots=()), "its parent 'task-0' is gone"),
        "deleted, and held by someone else": (
            seen(issued_child(), parent_grant(meta=deleting(held=False))),
            "its parent 'task-0' is deleted",
        ),
    }

    @pytest.mark.parametrize("case, message", ENDED.values(), ids=ENDED)
    def test_its_parent_is(self, case: GrantSeen, message: str) -> None:
        """It is revoked for that, with an entry of its own."""
        plan = decide_grant(case, moment())
        assert DeleteCredential("team-a", "task-1", "uid-of-secret") in plan.withdraw
        assert plan.prove is not None
        after = plan.prove.conclude(())
        (entry,) = after.entries
        assert entry.data["closure"]["reason"] == "ParentEnded"
        assert entry.data["closure"]["message"] == message
        assert entry.data["parent"] == {"name": "task-0", "uid": "uid-of-task-0"}
        assert status_of(after).chain == ("task-0",)

    ENDING: Mapping[str, GrantSeen] = {
        "its parent was revoked": seen(issued_child(), parent_grant(revoke={"reason": "leak"})),
        "its parent was deleted": seen(issued_child(), parent_grant(meta=deleting())),
        "its parent's time is up": seen(
            issued_child(), parent_grant(status={"expiresAt": "2026-06-01T11:59:59Z"})
        ),
        "its parent's pilot was suspended": seen(issued_child(), above=delegating(suspend=True)),
        "its parent's pilot is gone": seen(issued_child(), ancestor_pilots=(None,)),
        "the first grant of its chain was revoked": seen(
            issued_child(),
            **{
                **three_levels(),
                "ancestors": (
                    active_grant("task-a", pilot="pilot-task-a", revoke={"reason": "leak"}),
                    *three_levels()["ancestors"][1:],
                ),
            },
        ),
    }

    @pytest.mark.parametrize("case", ENDING.values(), ids=ENDING)
    def test_its_access_goes_before_the_end_is_recorded(self, case: GrantSeen) -> None:
        """The log may be slow or down: access waits for no entry, and the entries go from the top down."""
        plan = decide_grant(case, moment())
        assert DeleteCredential("team-a", "task-1", "uid-of-secret") in plan.withdraw
        assert (plan.entries, plan.status, plan.release) == ((), None, None)

    def test_a_child_of_a_living_parent_lives(self) -> None:
        """Nothing is done, and its own renewal goes on."""
        assert decide_grant(seen(issued_child()), moment()).withdraw == ()
        assert decide_grant(seen(issued_child()), moment(AFTER)).release is not None

    def test_its_own_completion_is_its_own(self) -> None:
        """A parent's life says nothing of a child that is done."""
        plan = decide_grant(seen(issued_child(completed=True)), moment())
        assert plan.prove is not None
        assert status_of(plan.prove.conclude(())).phase is Phase.COMPLETED


LAPSED: Mapping[str, tuple[GrantSeen, str]] = {
    "its parent's access was narrowed": (
        seen(issued_child(), above=delegating(access=[tool("tickets", actions=["read"])])),
        "AccessOutsideParent",
    ),
    "it was taken off the parent's list": (
        seen(issued_child(), above=ready_pilot(delegation={"to": ["other"], "maxDepth": 1})),
        "DelegationNotAllowed",
    ),
    "its parent's pilot allows no children any more": (
        seen(issued_child(), above=delegating(depth=0)),
        "DelegationTooDeep",
    ),
}


@pytest.mark.parametrize("case, reason", LAPSED.values(), ids=LAPSED)
@pytest.mark.parametrize("now", [NOW, AFTER], ids=["before it is due", "when it is due"])
def test_a_child_is_not_renewed_where(case: GrantSeen, reason: str, now: dt.datetime) -> None:
    """It is told as soon as that is seen; what is out lapses."""
    plan = decide_grant(case, moment(now))
    assert (plan.release, plan.withdraw) == (None, ())
    assert status_of(plan).conditions[0].reason == reason


def test_a_child_of_a_lapsed_parent_is_not_renewed() -> None:
    """What the parent would not get any more, it cannot pass on."""
    lapsed = parent_grant(status={"conditions": [ready("RuleRefused", is_true=False)]})
    assert decide_grant(seen(issued_child(), lapsed), moment()).status is None
    plan = decide_grant(seen(issued_child(), lapsed), moment(AFTER))
    assert plan.release is None
    assert status_of(plan).conditions[0].reason == "ParentNotReady"
