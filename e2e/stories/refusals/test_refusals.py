"""What is refused, and how that is said.

A pilot that may not be is told why in a condition, with what to change; one that asks to rise is held where
it is; one that falls falls at once. What stands in the place of a Secret is never overwritten. (What bad
manifests are told, one by one, is in `e2e/bad_input`.)
"""

from __future__ import annotations

from typing import Any

import pytest

from e2e import manifests, places
from e2e.admin import Document
from e2e.patience import until
from e2e.stories.play import Play
from pilot_identity.core.audit.entries import EntryType

DEFAULT_ACCOUNT = {"workload": {"serviceAccountName": "default"}}
SHARED_ACCOUNT: dict[str, Any] = {"workload": {"serviceAccountName": "batch"}}


def foreign_secret(play: Play, name: str) -> Document:
    """Somebody's Secret."""
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"key": "theirs"}}
    return play.admin.create(play.secrets(), body)


@pytest.mark.parametrize(
    "spec, says",
    [
        pytest.param(DEFAULT_ACCOUNT, "serviceAccountName", id="the default service account"),
        pytest.param({"owners": {"business": "bea@example.org"}}, "technical", id="an owner missing"),
        pytest.param(
            {"owners": {"business": "bea@example.org", "technical": "system:serviceaccount:a:b"}},
            "name a person",
            id="an owner that is a service account",
        ),
    ],
)
def test_the_api_server_refuses_what_it_can_tell(play: Play, spec: dict[str, Any], says: str) -> None:
    """No operator is needed to refuse a pilot that has nobody of its own, or that nobody answers for."""
    answer = play.admin.ask("POST", play.pilots(), manifests.pilot("refused", **spec))
    assert answer.code == 422
    assert says in answer.message


@pytest.mark.parametrize(
    "spec, reason, says",
    [
        pytest.param({"stage": "moon"}, "UnknownStage", "there are: ", id="unknown stage"),
        pytest.param(
            {"access": [manifests.tool(data_class="restricted")]},
            "DataClassOutsideStage",
            "'restricted'",
            id="data class outside its stage",
        ),
        pytest.param(
            {"stage": "pilot", "access": []},
            "StageAboveEntry",
            "set spec.stage to 'sandbox'",
            id="first appearance above the lowest stage",
        ),
    ],
)
def test_a_pilot_that_may_not_be_gets_nothing_and_is_told_why(
    play: Play, spec: dict[str, Any], reason: str, says: str
) -> None:
    """No identity, no Secret, no account: a condition, an Event and an entry say what to change."""
    pilot = play.declare("refused", **spec)
    told = play.condition(play.pilots("refused"), "Ready", reason=reason)
    assert told["status"] == "False"
    assert says in told["message"]
    assert play.condition(play.pilots("refused"), "Stalled", reason=reason)["status"] == "True"
    status = play.status(play.pilots("refused"))
    assert not status.keys() & {"stage", "spiffeID", "credential"}
    assert play.admin.find(play.secrets("pilot-svid-refused")) is None
    account = places.core("serviceaccounts", play.namespace, "pilot-workload-refused")
    assert play.admin.find(account) is None
    defined, line = play.trail().of(pilot["metadata"]["uid"])
    assert defined.kind is EntryType.PILOT_DEFINED
    assert (line.kind, line.entry.data["reason"]) == (EntryType.PILOT_REFUSED, reason)
    (event,) = play.events_of(pilot["metadata"]["uid"], reason)
    assert event["metadata"]["annotations"]["pilotidentity.dev/audit-index"] == str(line.index)


def test_two_pilots_cannot_be_one_service_account(play: Play) -> None:
    """The later one is refused; when the first goes, it gets its identity without being touched."""
    first = play.ready_pilot("first", **SHARED_ACCOUNT)
    # Of two pilots of the same second the UID decides, so the second must be of another second.
    _create_in_a_later_second(play, first, "second")
    told = play.condition(play.pilots("second"), "Ready", reason="ServiceAccountShared")
    assert "'first'" in told["message"]
    assert play.admin.find(play.secrets("pilot-svid-second")) is None
    play.admin.delete(play.pilots("first"))
    play.condition(play.pilots("second"), "Ready", reason="IdentityIssued")
    assert play.credential("pilot-svid-second").owner_uid != first["metadata"]["uid"]


def _create_in_a_later_second(play: Play, first: Document, name: str) -> None:
    """Declare a pilot of the same account whose creation time is later than the first one's."""

    def is_later() -> bool:
        dry = play.admin.create(
            play.pilots() + "?dryRun=All", manifests.pilot("clock", stage="sandbox", **SHARED_ACCOUNT)
        )
        return str(dry["metadata"]["creationTimestamp"]) > str(first["metadata"]["creationTimestamp"])

    until(is_later, "the API server's clock is a second further")
    play.declare(name, **SHARED_ACCOUNT)


def test_a_rise_is_held_and_the_pilot_works_on_where_it_is(play: Play) -> None:
    """Promoted=False names all that is missing; stage, identity and Secret stay as they are."""
    before = play.ready_pilot("climber")
    held = play.credential("pilot-svid-climber")
    play.admin.patch(play.pilots("climber"), {"spec": {"stage": "pilot"}})
    told = play.condition(play.pilots("climber"), "Promoted", reason="PromotionHeld")
    assert told["status"] == "False"
    assert "stays in 'sandbox'; to enter 'pilot' it still needs: " in told["message"]
    for missing in (
        "168h in stage 'sandbox'",
        "evidence of 20 completed tasks",
        "1 approval of the promotion",
    ):
        assert missing in told["message"]
    assert play.condition(play.pilots("climber"), "Ready", reason="IdentityIssued")["status"] == "True"
    status = play.status(play.pilots("climber"))
    assert (status["stage"], status["spiffeID"]) == ("sandbox", before["status"]["spiffeID"])
    assert play.credential("pilot-svid-climber").id == held.id
    kinds = play.trail().kinds(before["metadata"]["uid"])
    assert kinds.count(EntryType.STAGE_CHANGE_HELD) == 1
    assert kinds[kinds.index(EntryType.STAGE_CHANGE_HELD) - 1] is EntryType.STAGE_CHANGE_ASKED
    play.ask("work", "climber", duration="5m")
    play.phase("work", "Active")


def test_a_skip_of_a_stage_is_held_too(play: Play) -> None:
    """One rank at a time."""
    play.ready_pilot("jumper")
    play.admin.patch(play.pilots("jumper"), {"spec": {"stage": "production"}})
    told = play.condition(play.pilots("jumper"), "Promoted", reason="PromotionHeld")
    assert "one rank at a time" in told["message"]


def test_a_fall_takes_effect_at_once(play: Play) -> None:
    """New trust domain, new SVID in the old one's place; the grants of the old stage are revoked."""
    # An admin cannot lift a pilot, so the stage below comes afterwards.
    pilot = play.ready_pilot("faller", access=[])
    tools = [manifests.tool()]
    play.admin.patch(play.pilots("faller"), {"spec": {"access": tools}})
    play.condition(play.pilots("faller"), "Ready", reason="IdentityIssued")
    play.ask("task", "faller")
    play.phase("task", "Active")
    old = play.credential("pilot-svid-faller")
    sandbox = play.admin.get(places.stages("sandbox"))["spec"]["rank"]
    if sandbox == 0:
        play.admin.patch(places.stages("sandbox"), {"spec": {"rank": 1}})
    try:
        play.make_stage("cellar", rank=0, data_classes=["cellar-data"])
        play.admin.patch(play.pilots("faller"), {"spec": {"stage": "cellar", "access": []}})
        play.condition(play.pilots("faller"), "Ready", reason="IdentityIssued")
        status = play.status(play.pilots("faller"))
        new = play.credential("pilot-svid-faller")
        spiffe_id = f"spiffe://cellar.story.example.org/ns/{play.namespace}/pilot/faller"
        assert (status["stage"], status["spiffeID"]) == ("cellar", spiffe_id)
        assert new.uid != old.uid
        assert new.files["bundle.pem"] != old.files["bundle.pem"]
        assert new.files["bundle.pem"].decode() == play.bundle("cellar")["bundle.pem"]

        grant = play.phase("task", "Revoked")
        assert grant["status"]["closure"]["reason"] == "StageChanged"
        play.gone("task")
        bundle = places.core("configmaps", play.namespace, "pilot-bundle-sandbox")
        until(lambda: play.admin.find(bundle) is None, "the old stage's bundle, which nobody needs, is gone")
        kinds = play.trail().kinds(pilot["metadata"]["uid"])
        moved = kinds.index(EntryType.STAGE_CHANGED)
        assert kinds[moved - 1 :] == [
            EntryType.STAGE_CHANGE_ASKED,
            EntryType.STAGE_CHANGED,
            EntryType.PILOT_ADMITTED,
        ]
    finally:
        play.end()
        play.admin.patch(places.stages("sandbox"), {"spec": {"rank": sandbox}})
        play.condition(places.stages("sandbox"), "Ready", reason="KeysReady")


def test_a_pilots_secret_that_is_not_its_own_is_never_overwritten(play: Play) -> None:
    """The pilot is told, and its bytes stay; once it is gone the next look gives the pilot its identity."""
    before = foreign_secret(play, "pilot-svid-late")
    play.declare("late")
    told = play.condition(play.pilots("late"), "Ready", reason="SecretNameTaken")
    assert "pilot-svid-late" in told["message"]
    assert play.admin.get(play.secrets("pilot-svid-late")) == before
    play.admin.delete(play.secrets("pilot-svid-late"))
    # The operator looks again each minute; an edit makes it look now.
    play.admin.patch(play.pilots("late"), {"spec": {"purpose": "Looks again"}})
    play.condition(play.pilots("late"), "Ready", reason="IdentityIssued")


def test_a_grants_secret_that_is_not_its_own_is_never_overwritten(play: Play) -> None:
    """The grant is denied for good, and its bytes stay; what the log announced it calls abandoned."""
    play.ready_pilot("triage")
    before = foreign_secret(play, "taken")
    grant = play.ask("late", "triage", secretName="taken")
    status = play.phase("late", "Denied")["status"]
    assert status["decision"]["reason"] == "SecretNameTaken"
    assert "never overwritten" in status["decision"]["message"]
    assert play.admin.get(play.secrets("taken")) == before
    assert play.trail().kinds(grant["metadata"]["uid"]) == [
        EntryType.GRANT_REQUESTED,
        EntryType.GRANT_ISSUED,
        EntryType.CREDENTIAL_ABANDONED,
        EntryType.GRANT_DENIED,
    ]
    # Its end takes away nothing that is not its own.
    play.admin.delete(play.grants("late"))
    until(lambda: play.admin.find(play.grants("late")) is None, "the denied grant is gone")
    assert play.admin.get(play.secrets("taken")) == before


def test_two_grants_cannot_share_a_secret(play: Play) -> None:
    """The second is denied; the first one's credential is untouched, also by the second one's deletion."""
    play.ready_pilot("triage")
    play.ask("one", "triage", secretName="shared")
    play.phase("one", "Active")
    held = play.credential("shared")
    play.ask("two", "triage", secretName="shared")
    assert play.phase("two", "Denied")["status"]["decision"]["reason"] == "SecretNameTaken"
    play.admin.delete(play.grants("two"))
    until(lambda: play.admin.find(play.grants("two")) is None, "the denied grant is gone")
    assert play.credential("shared") == held


def test_what_fits_into_no_token_is_denied(play: Play) -> None:
    """Verifiers read so much of a token and no more: with the figures, before anybody is asked to approve."""
    wide = [f"projects/{number:03}/{'x' * 200}" for number in range(32)]
    play.ready_pilot("wide", access=[manifests.tool(f"part-{part}", resources=wide) for part in range(4)])
    play.ask("all", "wide", access=[{"name": f"part-{part}"} for part in range(4)])
    decision = play.phase("all", "Denied")["status"]["decision"]
    assert decision["reason"] == "TokenTooLarge"
    assert "verifiers read at most 16384; ask for fewer entries" in decision["message"]
    play.ask("one", "wide", access=[{"name": "part-0"}])
    play.phase("one", "Active")
