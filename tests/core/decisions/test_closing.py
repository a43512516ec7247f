"""How a grant ends: what cuts it, what is withdrawn and tested, and what it is until that is shown."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from pilot_identity.core.audit.entries import EntryType, RecordedEntry
from pilot_identity.core.decisions.announced import ABANDON_AFTER, Announced, Announcement, Holding
from pilot_identity.core.decisions.grants.life import decide_grant
from pilot_identity.core.decisions.grants.seen import RETENTION, GrantSeen
from pilot_identity.core.decisions.holding import HOLDING_BOUND
from pilot_identity.core.decisions.plan import (
    WITHDRAWN,
    DeleteCredential,
    OnRevocationList,
    Outcome,
    Plan,
    Revoke,
    SecretGone,
)
from pilot_identity.core.decisions.proofs import LONGEST_RETRY, MOST_SUPERSEDED, UNPROVEN_AFTER
from pilot_identity.core.resources import Phase, PilotIdentity, StagePolicy, TaskGrant
from pilot_identity.core.resources.conditions import ConditionType, find
from pilot_identity.core.resources.parsing import encode
from pilot_identity.core.resources.task_grant import Proof, TaskGrantStatus
from pilot_identity.core.resources.timestamps import format_timestamp
from pilot_identity.core.spiffe.revocation import Revoked, RevokedCertificate, RevokedToken
from tests.core.builders import (
    CA_END,
    NOW,
    active_grant,
    credential_status,
    deleting,
    grant,
    moment,
    ready_pilot,
    stage,
)

LAPSES = NOW + dt.timedelta(minutes=5)
"""When the credential of `active_grant` does."""
REVOKED = Revoked("sandbox", "team-a", NOW, (RevokedCertificate("2a", LAPSES),))
CUT = (Revoke(REVOKED), DeleteCredential("team-a", "task-1", "uid-of-secret"))


def seen(
    asked: TaskGrant | None = None,
    pilot: PilotIdentity | None = None,
    policy: StagePolicy | None = None,
    **facts: Any,
) -> GrantSeen:
    """An active grant with all that it needs, but for what the case changes."""
    known = {"ca_not_after": CA_END, **facts}
    return GrantSeen(asked or active_grant(), pilot or ready_pilot(), policy or stage(), **known)


def announced(holding: Holding, *, issuance: int = 1, age: dt.timedelta = ABANDON_AFTER) -> Announced:
    """An announcement that the status does not know."""
    data = {"credential": credential_status(id="announced", serial="77", issuance=issuance, secretUID="")}
    entry = RecordedEntry(
        f"uid-of-task-1/credential/{issuance}",
        EntryType.GRANT_RENEWED,
        "TaskGrant team-a/task-1",
        "uid-of-task-1",
        NOW - age,
        data,
    )
    uid = "uid-of-secret" if holding in {Holding.ANNOUNCED, Holding.PREVIOUS} else ""
    return Announced(entry, 7, Announcement("announced", issuance), holding, uid)


def concluded(plan: Plan, *failures: str, at: dt.datetime = NOW) -> Plan:
    """What follows when the plan's tests are made, those named in `failures` without success."""
    assert plan.prove is not None
    failed = [Proof(WITHDRAWN, proven=False, message="no answer", at=at)] if WITHDRAWN in failures else []
    tested = [
        Proof(test.name, proven=test.name not in failures, message="no answer", at=at)
        for test in plan.prove.tests
    ]
    return plan.prove.conclude((*failed, *tested))


def ended(case: GrantSeen, now: dt.datetime = NOW, *failures: str) -> Plan:
    """What follows when the grant's end is carried out."""
    return concluded(decide_grant(case, moment(now)), *failures, at=now)


def status_of(plan: Plan) -> TaskGrantStatus:
    """The status that a plan writes after entry 9."""
    assert plan.status is not None
    status = plan.status(Outcome(9, "uid-of-secret"))
    assert isinstance(status, TaskGrantStatus)
    return status


def after(before: TaskGrant, plan: Plan) -> TaskGrant:
    """The grant with the status that a plan writes."""
    return msgspec.structs.replace(before, status=status_of(plan))


AFTER = NOW + dt.timedelta(minutes=11)
ENDED: Mapping[str, tuple[GrantSeen, dt.datetime, Phase, str]] = {
    "it was revoked": (
        seen(active_grant(revoke={"reason": "enough", "by": "ana"})),
        NOW,
        Phase.REVOKED,
        "Revoked",
    ),
    "it was completed": (seen(active_grant(completed=True)), NOW, Phase.COMPLETED, "TaskCompleted"),
    "its time is up": (seen(active_grant()), AFTER, Phase.EXPIRED, "TimeUp"),
    "its time is up to the instant": (
        seen(active_grant()),
        NOW + dt.timedelta(minutes=10),
        Phase.EXPIRED,
        "TimeUp",
    ),
    "its pilot is gone": (replace(seen(active_grant()), pilot=None), NOW, Phase.REVOKED, "PilotDeleted"),
    "its pilot is being deleted": (
        seen(active_grant(), ready_pilot(meta=deleting())),
        NOW,
        Phase.REVOKED,
        "PilotDeleted",
    ),
    "its pilot was suspended": (
        seen(active_grant(), ready_pilot(suspend=True)),
        NOW,
        Phase.REVOKED,
        "PilotSuspended",
    ),
    "its pilot moved": (seen(active_grant(), ready_pilot(stage="pilot")), NOW, Phase.REVOKED, "StageChanged"),
    "its stage was frozen": (
        seen(active_grant(), policy=stage(freeze=True)),
        NOW,
        Phase.REVOKED,
        "StageFrozen",
    ),
    "it was revoked and its time is up": (
        seen(active_grant(revoke={"reason": "enough"})),
        AFTER,
        Phase.REVOKED,
        "Revoked",
    ),
    "it was completed and its pilot is gone": (
        replace(seen(active_grant(completed=True)), pilot=None),
        NOW,
        Phase.REVOKED,
        "PilotDeleted",
    ),
    "it was completed and its time is up": (
        seen(active_grant(completed=True)),
        AFTER,
        Phase.COMPLETED,
        "TaskCompleted",
    ),
    "it was revoked before it was issued": (
        seen(grant(revoke={"reason": "no"})),
        NOW,
        Phase.REVOKED,
        "Revoked",
    ),
    "it was completed before it was issued": (
        seen(grant(completed=True)),
        NOW,
        Phase.COMPLETED,
        "TaskCompleted",
    ),
    "it was revoked while it waited": (
        seen(grant(status={"phase": "AwaitingApproval"}, revoke={"reason": "no"})),
        NOW,
        Phase.REVOKED,
        "Revoked",
    ),
}


@pytest.mark.parametrize("case, now, phase, reason", ENDED.values(), ids=ENDED)
def test_a_grant_ends_because(case: GrantSeen, now: dt.datetime, phase: Phase, reason: str) -> None:
    """Its access is cut first, that is tested, the log says how it ended, and the status the same."""
    first = decide_grant(case, moment(now))
    assert first.entries == ()
    plan = concluded(first, at=now)
    status = status_of(plan)
    assert plan.release is None
    out = case.grant.status.credential is not None
    lists = (Revoke(msgspec.structs.replace(REVOKED, at=now)),) if out and now < LAPSES else ()
    secret = (DeleteCredential("team-a", "task-1", "uid-of-secret"),) if out else ()
    assert first.withdraw == (*lists, *secret)
    assert status.closure is not None
    assert (status.phase, status.closure.outcome, status.closure.reason) == (phase, phase.value, reason)
    assert (status.closure.withdrawn_at, status.closure.proven_at) == (now, now)
    assert status.closure.audit_index == 9
    *asked, closed = plan.entries
    assert closed.id == "uid-of-task-1/closed"
    was_pending = case.grant.status.phase is Phase.PENDING
    assert [entry.type for entry in asked] == [EntryType.GRANT_REQUESTED] * was_pending
    assert closed.data["closure"]["reason"] == reason
    assert ("revoked" in closed.data) is bool(lists)
    assert [one.type for one in status.conditions] == ["Ready"]
    assert not plan.let_go


def test_a_pending_grant_of_a_suspended_pilot_does_not_end_but_is_denied() -> None:
    """What was never issued is refused, not revoked."""
    plan = decide_grant(seen(grant(), ready_pilot(suspend=True)), moment())
    assert status_of(plan).phase is Phase.DENIED


@pytest.mark.parametrize("holding", [Holding.NOTHING, Holding.PREVIOUS])
def test_what_was_announced_is_settled_before_the_end(holding: Holding) -> None:
    """The log leaves no announcement open, and the pass after ends the grant."""
    plan = decide_grant(
        seen(active_grant(completed=True), announced=announced(holding, issuance=2)), moment()
    )
    assert (plan.withdraw, plan.entries) == (CUT, ()), "access is cut first, and waits for no log"
    plan = concluded(plan, WITHDRAWN)
    assert [entry.id for entry in plan.entries] == ["uid-of-task-1/abandoned/2"]
    assert plan.recheck_at == moment().now
    assert status_of(plan).phase is Phase.ACTIVE


@pytest.mark.parametrize("age", [dt.timedelta(), ABANDON_AFTER], ids=["young", "settled"])
@pytest.mark.parametrize("holding", Holding)
@pytest.mark.parametrize("is_parents", [False, True], ids=["its own end", "its parent's"])
def test_whatever_was_announced_access_is_cut_first(
    holding: Holding,
    is_parents: bool,
    age: dt.timedelta,
) -> None:
    """Neither the log nor the status is waited for; a Secret that shows what was released goes next."""
    known: dict[str, Any] = {"announced": announced(holding, issuance=2, age=age)}
    case = seen(active_grant(completed=True), **known)
    if is_parents:
        above = active_grant("root", revoke={"reason": "leak"})
        child = active_grant(parent="root", status={"parentUID": "uid-of-root"})
        case = seen(child, ancestors=(above,), ancestor_pilots=(ready_pilot(),), **known)
    first = decide_grant(case, moment())
    assert (first.entries, first.status, first.release) == ((), None, None)
    out = holding is Holding.ANNOUNCED
    assert [type(one) for one in first.withdraw] == ([Revoke] if out else [Revoke, DeleteCredential])
    lists = first.withdraw[0]
    assert isinstance(lists, Revoke)
    assert lists.revoked.certificates[0].serial == ("77" if out else "2a")
    if out:
        status = status_of(concluded(first))
        assert status.credential is not None
        assert status.credential.id == "announced"


@pytest.mark.parametrize("phase", ["Active", "Closing"])
def test_what_cannot_be_asked_keeps_no_access(phase: str) -> None:
    """It is cut, and asked again in a moment; past its bound a deleted grant waits for no answer."""
    closure = {"outcome": "Revoked", "reason": "Revoked"}
    status = {"phase": phase, **({"closure": closure} if phase == "Closing" else {})}
    case = seen(active_grant(revoke={"reason": "leak"}, status=status), is_announced_unknown=True)
    plan = decide_grant(case, moment())
    assert plan.withdraw == CUT
    assert concluded(plan, WITHDRAWN) == Plan(recheck_at=NOW + dt.timedelta(seconds=1))
    held = active_grant(meta=deleting(NOW - HOLDING_BOUND), status=status)
    assert ended(seen(held, is_announced_unknown=True)).let_go


def superseding(number: int, ends: dt.datetime) -> list[dict[str, Any]]:
    """So many replaced credentials, each of which ends a second after the one before."""
    return [
        {"serial": f"{one:x}", "notAfter": format_timestamp(ends + dt.timedelta(seconds=one))}
        for one in range(number)
    ]


class TestManyRenewals:
    """However often a grant is renewed, its status can be written, and so it can end."""

    due = NOW + dt.timedelta(minutes=2)

    def test_what_was_replaced_is_outlived_by_few_renewals(self) -> None:
        """Beside a token of 5 s nothing lives an hour, nor a token beside a certificate of 5 s."""
        for short, long in (("jwtTTL", "x509TTL"), ("x509TTL", "jwtTTL")):
            lives = {"kubernetesTTL": "10m", "maxTaskDuration": "1h", short: "5s", long: "1h"}
            plan = decide_grant(seen(policy=stage(credentials=lives)), moment(self.due))
            assert plan.release is not None
            order = plan.release.order
            ends = {order.not_after, *(token.expires_at for token in order.tokens)}
            start = self.due.replace(microsecond=0)
            assert ends == {start + dt.timedelta(seconds=5), start + dt.timedelta(seconds=60)}

    def test_a_renewal_waits_for_room(self) -> None:
        """A full status takes no more; it is said, and tried again when the first has lapsed."""
        ends = self.due + dt.timedelta(minutes=1)
        full = {"superseded": superseding(MOST_SUPERSEDED, ends), "notAfter": format_timestamp(LAPSES)}
        asked = active_grant(status={"credential": credential_status(**full)})
        plan = decide_grant(seen(asked), moment(self.due))
        assert (plan.release, plan.recheck_at) == (None, ends.replace(microsecond=ends.microsecond))
        assert status_of(plan).conditions[0].reason == "RenewedTooOften"
        renewed = decide_grant(seen(asked), moment(ends))
        assert renewed.release is not None
        credential = status_of(renewed).credential
        assert credential is not None
        assert len(credential.superseded) == MOST_SUPERSEDED

    def test_more_than_fit_can_be_adopted_and_ended(self) -> None:
        """As an earlier version announced it: all go on the lists; the status holds those that last."""
        full = announced(Holding.ANNOUNCED, issuance=2)
        full.entry.data["credential"]["superseded"] = superseding(MOST_SUPERSEDED + 1, LAPSES)
        first = decide_grant(seen(active_grant(revoke={"reason": "leak"}), announced=full), moment())
        assert isinstance(first.withdraw[0], Revoke)
        assert len(first.withdraw[0].revoked.certificates) == MOST_SUPERSEDED + 2
        credential = status_of(concluded(first)).credential
        assert credential is not None
        assert [one.serial for one in credential.superseded] == [
            f"{one:x}" for one in range(1, MOST_SUPERSEDED + 1)
        ]


class TestResidue:
    """Until when a verifier that asks nobody could still accept something."""

    def residue(self, **credential: Any) -> dt.datetime | None:
        """What the closure says of a credential."""
        asked = active_grant(completed=True, status={"credential": credential_status(**credential)})
        closure = status_of(ended(seen(asked))).closure
        assert closure is not None
        return closure.residual_until

    def test_a_certificate_lives_to_its_own_end(self) -> None:
        """The usual case."""
        assert self.residue() == NOW + dt.timedelta(minutes=30)

    def test_what_has_lapsed_leaves_nothing(self) -> None:
        """Nothing to tell."""
        assert self.residue(notAfter="2026-06-01T11:59:00Z") is None

    def test_the_longest_lived_counts(self) -> None:
        """A token, an earlier credential that a renewal replaced, or a Kubernetes token may live longer."""
        later = [NOW + dt.timedelta(hours=hours) for hours in (1, 2, 3)]
        token = {"audience": "a", "jti": "t", "notAfter": format_timestamp(later[0])}
        assert self.residue(tokens=[token]) == later[0]
        before = {"serial": "29", "notAfter": format_timestamp(NOW), "tokens": [{**token, "jti": "s"}]}
        assert self.residue(superseded=[before]) == later[0]
        longer = {"serial": "28", "notAfter": format_timestamp(later[1])}
        assert self.residue(tokens=[token], superseded=[longer]) == later[1]
        kubernetes = {
            "serviceAccountName": "pilot-grant-x",
            "credentialID": "JTI=1",
            "notAfter": format_timestamp(later[2]),
            "bindings": [],
        }
        assert self.residue(superseded=[longer], kubernetes=kubernetes) == later[2]


def test_all_that_lives_goes_on_the_lists() -> None:
    """The credential that stands, and those that renewals replaced; what lapsed is not listed."""
    lives, lapsed = format_timestamp(LAPSES), format_timestamp(NOW)
    tokens = [
        {"audience": "a", "jti": "new", "notAfter": lives},
        {"audience": "b", "jti": "gone", "notAfter": lapsed},
        {"audience": "c", "jti": "undated"},
    ]
    old = {
        "serial": "29",
        "notAfter": lapsed,
        "tokens": [{"audience": "a", "jti": "old", "notAfter": lives}],
    }
    status = {"credential": credential_status(notAfter=lives, tokens=tokens, superseded=[old])}
    plan = decide_grant(seen(active_grant(completed=True, status=status)), moment())
    assert plan.withdraw[0] == Revoke(
        Revoked(
            "sandbox",
            "team-a",
            NOW,
            (RevokedCertificate("2a", LAPSES),),
            (RevokedToken("old", LAPSES), RevokedToken("new", LAPSES), RevokedToken("undated", LAPSES)),
        )
    )


def test_a_renewal_remembers_what_it_replaces_until_that_lapses() -> None:
    """The replaced credential stands in the status, and the entry, so that a revocation names it too."""
    due = NOW + dt.timedelta(minutes=2)
    lapsed = {"serial": "28", "notAfter": format_timestamp(NOW)}
    first = active_grant()
    assert first.status.credential is not None
    status = {"credential": credential_status(notAfter=format_timestamp(LAPSES), superseded=[lapsed])}
    plan = decide_grant(seen(active_grant(status=status)), moment(due))
    renewed = status_of(plan).credential
    assert renewed is not None
    assert [(one.serial, one.not_after) for one in renewed.superseded] == [("2a", LAPSES)]
    assert plan.release is not None
    told = plan.release.announce("ab" * 32).data["credential"]
    assert [one["serial"] for one in told["superseded"]] == ["2a"]


class TestUnproven:
    """What is not shown at once is tried again, later and later, and people are told."""

    revoked = active_grant(revoke={"reason": "enough", "by": "ana"})

    @pytest.mark.parametrize("failure", [WITHDRAWN, SecretGone.name, OnRevocationList.name])
    def test_the_end_is_recorded_and_the_grant_is_closing(self, failure: str) -> None:
        """Whatever fails: the closure is told at once, and the next try is a second away."""
        plan = ended(seen(self.revoked), NOW, failure)
        status = status_of(plan)
        assert status.phase is Phase.CLOSING
        assert status.closure is not None
        assert (status.closure.outcome, status.closure.proven_at) == ("Revoked", None)
        assert (status.closure.withdrawn_at is None) is (failure == WITHDRAWN)
        assert [entry.type for entry in plan.entries] == [EntryType.GRANT_CLOSED]
        assert plan.entries[0].data["revoked"]["certificates"][0]["serial"] == "2a"
        ready, late = (
            find(status.conditions, kind) for kind in (ConditionType.READY, ConditionType.REVOCATION_UNPROVEN)
        )
        assert ready is not None
        assert late is not None
        assert (ready.status, ready.reason, late.status) == ("False", "ProofPending", "False")
        assert f"{failure}: no answer" in ready.message
        assert plan.recheck_at == NOW + dt.timedelta(seconds=1)

    def test_it_is_withdrawn_and_tested_again(self) -> None:
        """The same orders and tests; when all is shown the end is final, and an entry says so."""
        closing = after(self.revoked, ended(seen(self.revoked), NOW, SecretGone.name))
        later = NOW + dt.timedelta(seconds=1)
        again = decide_grant(seen(closing), moment(later))
        assert again.withdraw == CUT
        plan = concluded(again, at=later)
        status = status_of(plan)
        assert (status.phase, [one.type for one in status.conditions]) == (Phase.REVOKED, ["Ready"])
        assert status.closure is not None
        assert (status.closure.withdrawn_at, status.closure.proven_at) == (NOW, later)
        assert [entry.type for entry in plan.entries] == [EntryType.GRANT_PROVEN]
        assert plan.recheck_at == later + RETENTION

    def test_what_was_shown_is_neither_withdrawn_nor_tested_again(self) -> None:
        """Unless it takes so long that something else must be the matter: then all is done anew."""
        closing = after(self.revoked, ended(seen(self.revoked), NOW, OnRevocationList.name))
        soon = decide_grant(seen(closing), moment(NOW + dt.timedelta(seconds=29)))
        assert [type(one) for one in soon.withdraw] == [Revoke]
        assert soon.prove is not None
        assert [test.name for test in soon.prove.tests] == [OnRevocationList.name]
        closure = status_of(concluded(soon, at=NOW + dt.timedelta(seconds=29))).closure
        assert closure is not None
        assert [(one.name, one.proven) for one in closure.proofs] == [
            (SecretGone.name, True),
            (OnRevocationList.name, True),
        ]
        late = decide_grant(seen(closing), moment(NOW + UNPROVEN_AFTER))
        assert late.withdraw == CUT
        assert late.prove is not None
        assert [test.name for test in late.prove.tests] == [SecretGone.name, OnRevocationList.name]

    def test_where_a_withdrawal_failed_nothing_counts_as_shown(self) -> None:
        """A test may have been right by chance, or of another credential."""
        closing = after(self.revoked, ended(seen(self.revoked), NOW, WITHDRAWN))
        again = decide_grant(seen(closing), moment(NOW + dt.timedelta(seconds=1)))
        assert list(map(type, again.withdraw)) == list(map(type, CUT))

    def test_nothing_is_written_while_nothing_changes(self) -> None:
        """Trying costs no writes; only the first half minute's end does, once."""
        ends = format_timestamp(NOW + dt.timedelta(hours=2))
        first = active_grant(completed=True, status={"credential": credential_status(notAfter=ends)})
        closing = after(first, ended(seen(first), NOW, SecretGone.name))
        waits = []
        for seconds in (1, 5, 29, 30, 31, 3000):
            now = NOW + dt.timedelta(seconds=seconds)
            plan = ended(seen(closing), now, SecretGone.name)
            assert plan.recheck_at is not None
            waits.append(plan.recheck_at - now)
            is_late = now - NOW == UNPROVEN_AFTER
            assert [entry.id for entry in plan.entries] == ["uid-of-task-1/unproven"] * is_late
            assert [notice.type for notice in plan.notices] == ["Warning"] * is_late
            assert (status_of(plan) == closing.status) is not is_late
            closing = after(closing, plan)
        assert waits[0] < waits[1] < waits[2]
        assert waits[-1] == LONGEST_RETRY
        late = find(closing.status.conditions, ConditionType.REVOCATION_UNPROVEN)
        assert late is not None
        assert (late.status, late.reason, late.message) == ("True", "ProofOverdue", "secret-gone: no answer")

    def test_what_lapsed_meanwhile_needs_no_list_any_more(self) -> None:
        """A list that cannot be written is no reason to go on for ever."""
        closing = after(self.revoked, ended(seen(self.revoked), NOW, OnRevocationList.name))
        plan = decide_grant(seen(closing), moment(LAPSES))
        assert plan.prove is not None
        assert [test.name for test in plan.prove.tests] == [SecretGone.name]
        assert status_of(concluded(plan, at=LAPSES)).phase is Phase.REVOKED

    def test_whatever_its_spec_says_later_the_outcome_stays(self) -> None:
        """A grant that is closing as revoked does not become completed."""
        closing = after(self.revoked, ended(seen(self.revoked), NOW, SecretGone.name))
        both = msgspec.structs.replace(closing, spec=active_grant(completed=True).spec)
        assert status_of(ended(seen(both))).phase is Phase.REVOKED

    def test_what_another_process_announced_meanwhile_is_waited_for(self) -> None:
        """It may be out in a moment; then it is withdrawn with the rest, and revoked."""
        closing = after(self.revoked, ended(seen(self.revoked), NOW, SecretGone.name))
        young = announced(Holding.NOTHING, issuance=2, age=dt.timedelta())
        waits = decide_grant(seen(closing, announced=young), moment())
        assert (waits.prove, waits.recheck_at) == (None, young.settled_at)
        out = decide_grant(seen(closing, announced=announced(Holding.ANNOUNCED, issuance=2)), moment())
        assert isinstance(out.withdraw[0], Revoke)
        assert [one.serial for one in out.withdraw[0].revoked.certificates] == ["77"]

    def test_what_another_process_never_released_is_abandoned_with_the_end(self) -> None:
        """So that the log leaves no announcement open."""
        closing = after(self.revoked, ended(seen(self.revoked), NOW, SecretGone.name))
        plan = ended(seen(closing, announced=announced(Holding.NOTHING, issuance=2)))
        assert [entry.id for entry in plan.entries] == ["uid-of-task-1/abandoned/2", "uid-of-task-1/proven"]


class TestDeletion:
    """A deleted grant is held until its end is shown and recorded, and not beyond its bound."""

    def test_a_held_grant_is_cut_recorded_and_let_go(self) -> None:
        """No status is written to what is about to be gone."""
        first = decide_grant(seen(active_grant(meta=deleting())), moment())
        assert first.withdraw == CUT
        plan = concluded(first)
        assert [entry.data["closure"]["reason"] for entry in plan.entries] == ["GrantDeleted"]
        assert (plan.status, plan.let_go) == (None, True)

    def test_what_is_not_shown_holds_it(self) -> None:
        """It is closing like any other, and looked at when its bound is reached at the latest."""
        closing = active_grant(meta=deleting())
        plan = ended(seen(closing), NOW, SecretGone.name)
        assert (status_of(plan).phase, plan.let_go) == (Phase.CLOSING, False)
        late = NOW + HOLDING_BOUND - dt.timedelta(seconds=2)
        plan = ended(seen(after(closing, plan)), late, SecretGone.name)
        assert not plan.let_go
        assert plan.recheck_at == NOW + HOLDING_BOUND

    def test_it_is_let_go_at_its_bound_with_a_tombstone(self) -> None:
        """The log names what was left, where, and when it lapses; even if the log cannot be written now."""
        closing = active_grant(meta=deleting())
        closing = after(closing, ended(seen(closing), NOW, SecretGone.name, OnRevocationList.name))
        bound = NOW + HOLDING_BOUND
        plan = ended(seen(closing), bound, SecretGone.name, OnRevocationList.name)
        assert (plan.let_go, plan.is_overdue, plan.status) == (True, True, None)
        (tombstone,) = plan.entries
        assert (tombstone.id, tombstone.type) == ("uid-of-task-1/tombstone", EntryType.GRANT_UNPROVEN)
        assert tombstone.data["letGo"] is True
        assert [proof["name"] for proof in tombstone.data["left"]["proofs"]] == [
            SecretGone.name,
            OnRevocationList.name,
        ]
        assert tombstone.data["left"]["lapsesAt"] == encode(LAPSES)
        assert tombstone.data["withdrawn"]["secret"] == "task-1"
        assert [notice.type for notice in plan.notices] == ["Warning"]

    @pytest.mark.parametrize("holding", [Holding.NOTHING, Holding.FOREIGN, Holding.ANNOUNCED])
    def test_an_announcement_that_cannot_be_settled_does_not_hold_it(self, holding: Holding) -> None:
        """With a log that takes no entry; what was released is withdrawn, what was not is abandoned."""
        held = active_grant(meta=deleting(NOW - HOLDING_BOUND))
        case = seen(held, announced=announced(holding, issuance=2))
        plan = ended(case)
        assert (plan.let_go, plan.is_overdue) == (True, True)
        abandoned = [] if holding is Holding.ANNOUNCED else ["uid-of-task-1/abandoned/2"]
        assert [entry.id for entry in plan.entries] == [*abandoned, "uid-of-task-1/closed"]
        before = seen(active_grant(meta=deleting()), announced=announced(holding, issuance=2))
        assert concluded(decide_grant(before, moment())).let_go is False, "until then it is settled first"

    def test_a_grant_held_by_others_alone_is_left(self) -> None:
        """What we never held has nothing of ours."""
        assert decide_grant(seen(grant(meta=deleting(held=False))), moment()) == Plan()

    @pytest.mark.parametrize("phase", ["Completed", "Expired", "Revoked", "Denied"])
    def test_an_ended_grant_is_let_go(self, phase: str) -> None:
        """Its end is recorded already."""
        over = active_grant(meta=deleting(), status={"phase": phase})
        assert decide_grant(seen(over), moment()) == Plan(let_go=True)

    def test_an_ended_grant_whose_secret_appears_late_has_it_cut(self) -> None:
        """Another process may have released what it announced after the end."""
        over = active_grant(status={"phase": "Expired"})
        plan = decide_grant(seen(over, announced=announced(Holding.ANNOUNCED, issuance=2)), moment())
        assert plan.withdraw[-1] == DeleteCredential("team-a", "task-1", "uid-of-secret")
        assert isinstance(plan.withdraw[0], Revoke)


class TestRetention:
    """An ended grant stays as an object for its stage's retention, and goes only when its end is shown."""

    kept = dt.timedelta(hours=2)

    def test_it_goes_when_its_time_as_a_record_is_over(self) -> None:
        """Counted from the moment at which its end was shown."""
        over = active_grant(
            status={"phase": "Expired", "closure": {"outcome": "Expired", "provenAt": format_timestamp(NOW)}}
        )
        case = seen(over, retention=self.kept)
        assert decide_grant(case, moment()) == Plan(recheck_at=NOW + self.kept)
        assert decide_grant(case, moment(NOW + self.kept)) == Plan(discard=True)

    def test_a_denied_grant_goes_too(self) -> None:
        """Counted from the decision."""
        over = grant(
            status={"phase": "Denied", "decision": {"allowed": False, "decidedAt": format_timestamp(NOW)}}
        )
        case = seen(over, retention=self.kept)
        assert decide_grant(case, moment()) == Plan(recheck_at=NOW + self.kept)
        assert decide_grant(case, moment(NOW + self.kept)) == Plan(discard=True)

    @pytest.mark.parametrize("phase", ["Completed", "Expired", "Revoked", "Denied"])
    def test_what_is_not_shown_stays(self, phase: str) -> None:
        """Whatever its spec says afterwards, nothing follows."""
        over = active_grant(status={"phase": phase}, completed=True, revoke={"reason": "late"})
        assert decide_grant(seen(over), moment(NOW + 2 * RETENTION)) == Plan()

    def test_a_closing_grant_stays(self) -> None:
        """However long it takes."""
        closing = active_grant(completed=True)
        closing = after(closing, ended(seen(closing), NOW, SecretGone.name))
        plan = ended(seen(closing, retention=self.kept), NOW + 2 * self.kept, SecretGone.name)
        assert not plan.discard


class TestOwners:
    """A grant goes on only under the people who answered for it when it was decided."""

    def case(self, *owners: str) -> GrantSeen:
        """An active grant that was decided under those owners; the pilot's are ana and tom."""
        status = {"decision": {"allowed": True, "owners": list(owners)}}
        return seen(active_grant(status=status))

    def test_it_ends_when_one_left(self) -> None:
        """The message names who left."""
        status = status_of(ended(self.case("ana", "bob")))
        assert status.closure is not None
        assert (status.phase, status.closure.reason) == (Phase.REVOKED, "OwnerLeft")
        assert "'bob'" in status.closure.message

    @pytest.mark.parametrize("owners", [("ana", "tom"), ("tom",), ()])
    def test_it_goes_on_while_all_are_there(self, owners: tuple[str, ...]) -> None:
        """Others may join; of a grant that was decided before owners were recorded nothing is known."""
        assert decide_grant(self.case(*owners), moment()).prove is None
