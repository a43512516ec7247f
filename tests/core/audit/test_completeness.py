"""Each way in which cluster and log can disagree, from a sound world in which one thing is not as it was."""

from __future__ import annotations

import datetime as dt
import gc
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pilot_identity.core.audit.completeness import Disagreement, confirmed
from pilot_identity.core.audit.entries import EntryType, RecordedEntry
from pilot_identity.core.audit.live import Live, LiveBinding, Subject
from pilot_identity.core.audit.told import Record, needed
from pilot_identity.core.resources.metadata import Key
from pilot_identity.core.resources.pilot_identity import RoleRef
from tests.core import builders
from tests.core.audit.worlds import (
    ACCOUNT,
    BINDING,
    KUBERNETES,
    LABEL,
    VIEW,
    World,
    bound,
    changed,
    credential,
    ended,
    entry,
    grant,
    issued,
    live,
    pilot,
    plain,
    renewed,
    secret,
    sound,
)
from tests.core.builders import NAMESPACE, NOW


def test_nothing_is_found_in_a_sound_world() -> None:
    """Whatever is the operator's was announced and is as announced; what is others' is nobody's concern."""
    assert sound().found() == ()


def deny(world: World) -> None:
    """The grant was denied instead."""
    decision = {"allowed": False, "reason": "RuleRefused", "decidedAt": "2026-06-01T11:55:00Z"}
    world.entries[5] = entry(EntryType.GRANT_DENIED, world.grant, decision=decision)
    world.grant = builders.grant(status={"phase": "Denied", "decision": {**decision, "auditIndex": 5}})
    world.secrets, world.accounts, world.bindings = world.secrets[1:], world.accounts[1:], []


def deny_twice(world: World) -> None:
    """The operator ended between the entry of the denial and its status, and made it again."""
    deny(world)
    world.grant = changed(world.grant, "decision", decided_at=NOW)


def prove_late(world: World) -> None:
    """The end was shown by a later entry."""
    ended(world)
    world.entries[7] = entry(EntryType.GRANT_CLOSED, world.grant, closure={"outcome": "Revoked"})
    shown = {"outcome": "Revoked", "provenAt": "2026-06-01T11:57:00Z"}
    world.entries[9] = entry(EntryType.GRANT_PROVEN, world.grant, closure=shown)


def abandon(world: World) -> None:
    """A renewal was announced, never released, and abandoned."""
    renewed(world, is_told=False)
    world.entries[9] = entry(
        EntryType.CREDENTIAL_ABANDONED, world.grant, abandoned={"id": "two", "issuance": 2}
    )


def suspend(world: World) -> None:
    """The pilot's identity is withdrawn; its account, which gives nothing, stays."""
    world.entries[9] = entry(EntryType.PILOT_SUSPENDED, world.pilots[0])
    world.pilots = [pilot(credential=None)]
    world.secrets = world.secrets[:1]


def wait(world: World) -> None:
    """The account is made before the entry that announces it."""
    world.entries.pop(5)
    world.grant = builders.grant()
    world.secrets, world.bindings = world.secrets[1:], []


def begin_to_renew(world: World) -> None:
    """Announced a moment ago; neither Secret nor status have it."""
    renewed(world, at=NOW - dt.timedelta(seconds=1), is_told=False)


def be_about_to_end(world: World) -> None:
    """Access is cut before its end is recorded."""
    world.grant = msgspec.structs.replace(
        world.grant, spec=msgspec.structs.replace(world.grant.spec, completed=True)
    )
    world.secrets, world.accounts, world.bindings = world.secrets[1:], world.accounts[1:], []


def lapse(world: World) -> None:
    """What was issued is not believed any more, and gone."""
    told = {"notAfter": "2026-06-01T11:59:00Z"}
    kubernetes = {**KUBERNETES, **told}
    world.grant = grant(credential=credential("one", 1, 5, kubernetes=kubernetes) | told)
    world.entries[5] = issued(world.grant)
    world.secrets, world.accounts, world.bindings = world.secrets[1:], world.accounts[1:], []


@pytest.mark.parametrize(
    "change",
    [
        ended,
        deny,
        deny_twice,
        prove_late,
        renewed,
        begin_to_renew,
        abandon,
        suspend,
        wait,
        be_about_to_end,
        lapse,
    ],
)
def test_what_the_operator_does_is_no_disagreement(change: Callable[[World], None]) -> None:
    """Each step of a grant's or pilot's life leaves both sides in agreement."""
    world = sound()
    change(world)
    assert world.found() == ()


def put(**parts: Any) -> Callable[[World], None]:
    """Replace lists of the world."""

    def change(world: World) -> None:
        for name, value in parts.items():
            setattr(world, name, value(getattr(world, name)))

    return change


def status(**fields: Any) -> Callable[[World], None]:
    """Write the grant's status past the operator."""

    def change(world: World) -> None:
        world.grant = changed(world.grant, **fields)

    return change


def after(first: Callable[[World], None], second: Callable[[World], None]) -> Callable[[World], None]:
    """One after the other."""

    def change(world: World) -> None:
        first(world)
        second(world)

    return change


def bring_a_request(world: World) -> None:
    """The grant brought a certificate request: its credential is in no Secret."""
    world.grant = grant(credential=credential("one", 1, 5, kubernetes=KUBERNETES, secretName=""))
    world.entries[5] = issued(world.grant)


def group(name: str, role: str = "cluster-admin") -> LiveBinding:
    """A RoleBinding to a group."""
    subjects = (Subject("Group", "", name),)
    return LiveBinding(live("RoleBinding", "crowd", "c"), RoleRef("ClusterRole", role), subjects)


def everywhere(name: str, role: str) -> LiveBinding:
    """A ClusterRoleBinding to a group."""
    one = Live.read("ClusterRoleBinding", {"metadata": {"name": "crowd", "uid": "c"}})
    return LiveBinding(one, RoleRef("ClusterRole", role), (Subject("Group", "", name),))


def widen(world: World) -> None:
    """Edit the storage: the grant asks for more than it did."""
    asked = msgspec.structs.replace(world.grant.spec, duration=world.grant.spec.duration * 2)
    world.grant = msgspec.structs.replace(world.grant, spec=asked)


STRANGER, OUTLIVED, REPLACED = Disagreement.STRANGER, Disagreement.OUTLIVED, Disagreement.REPLACED
ALTERED, MISSING, CONTRADICTED = Disagreement.ALTERED, Disagreement.MISSING, Disagreement.CONTRADICTED
A_SECRET = f"Secret {NAMESPACE}/task-1"
AN_ACCOUNT = f"ServiceAccount {NAMESPACE}/{ACCOUNT}"
A_BINDING = f"RoleBinding {NAMESPACE}/{BINDING}"
A_GRANT = f"TaskGrant {NAMESPACE}/task-1"
A_PILOT = f"PilotIdentity {NAMESPACE}/triage"
MALLORY = (Subject("User", "", "mallory"),)
TOKEN = live("Secret", "lasting", "t", annotations={"kubernetes.io/service-account.name": ACCOUNT})
EVERYWHERE = LiveBinding(
    Live.read("ClusterRoleBinding", {"metadata": {"name": "all", "uid": "c"}}),
    VIEW,
    (Subject("User", "", f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"),),
)


@pytest.mark.parametrize(
    "change, finding, what",
    [
        pytest.param(
            put(secrets=lambda them: [*them, secret("other", "copy")]),
            STRANGER,
            f"Secret {NAMESPACE}/copy",
            id="a Secret with a credential that was never announced",
        ),
        pytest.param(
            put(secrets=lambda them: [*them, secret(name="copy-for-eve")]),
            STRANGER,
            f"Secret {NAMESPACE}/copy-for-eve",
            id="a second Secret of a live credential, with type, label, annotation and owner",
        ),
        pytest.param(
            after(renewed, put(secrets=lambda them: [*them, secret(name="copy-for-eve")])),
            STRANGER,
            f"Secret {NAMESPACE}/copy-for-eve",
            id="a second Secret of a credential that was replaced",
        ),
        pytest.param(
            bring_a_request, STRANGER, A_SECRET, id="a Secret of a credential whose key never left its holder"
        ),
        pytest.param(
            status(part="credential", secret_uid="another-uid"),
            REPLACED,
            A_SECRET,
            id="a Secret that was made anew under its name",
        ),
        pytest.param(
            put(bindings=lambda them: [*them, group(f"system:serviceaccounts:{NAMESPACE}")]),
            STRANGER,
            f"RoleBinding {NAMESPACE}/crowd",
            id="a binding of the group of all accounts of a grant's namespace",
        ),
        pytest.param(
            put(cluster_bindings=lambda _: [everywhere("system:serviceaccounts", "edit")]),
            STRANGER,
            "ClusterRoleBinding crowd",
            id="a binding of the group of all accounts",
        ),
        pytest.param(
            put(secrets=lambda them: [*them, live("Secret", "bare", "b", **LABEL)]),
            STRANGER,
            f"Secret {NAMESPACE}/bare",
            id="a Secret with the label and no credential",
        ),
        pytest.param(
            put(secrets=lambda them: [*them, TOKEN]),
            STRANGER,
            f"Secret {NAMESPACE}/lasting",
            id="a lasting token of a grant's account",
        ),
        pytest.param(
            put(secrets=lambda them: [secret(owner="somebody"), *them[1:]]),
            REPLACED,
            A_SECRET,
            id="a Secret that names a credential of another owner",
        ),
        pytest.param(
            after(ended, put(secrets=lambda them: [secret(), *them])),
            OUTLIVED,
            A_SECRET,
            id="a Secret whose grant has ended",
        ),
        pytest.param(
            after(renewed, put(secrets=lambda them: [secret("one"), *them[1:]])),
            OUTLIVED,
            A_SECRET,
            id="a Secret with a credential that was replaced",
        ),
        pytest.param(
            after(abandon, put(secrets=lambda them: [secret("two"), *them[1:]])),
            OUTLIVED,
            A_SECRET,
            id="a Secret with a credential that was abandoned",
        ),
        pytest.param(
            put(secrets=lambda them: them[1:]), MISSING, A_SECRET, id="a Secret that somebody deleted"
        ),
        pytest.param(
            put(accounts=lambda them: [*them, live("ServiceAccount", "mine", "m", **LABEL)]),
            STRANGER,
            f"ServiceAccount {NAMESPACE}/mine",
            id="an account with the label",
        ),
        pytest.param(
            put(accounts=lambda them: [*them, live("ServiceAccount", "pilot-grant-me", "m")]),
            STRANGER,
            f"ServiceAccount {NAMESPACE}/pilot-grant-me",
            id="an account with a grant's name",
        ),
        pytest.param(
            put(
                accounts=lambda them: [
                    *them,
                    live("ServiceAccount", "pilot-grant-2", "m", "uid-of-task-1", **LABEL),
                ]
            ),
            STRANGER,
            f"ServiceAccount {NAMESPACE}/pilot-grant-2",
            id="a second account of a grant",
        ),
        pytest.param(
            put(accounts=lambda them: [live("ServiceAccount", ACCOUNT, "new", "uid-of-task-1"), *them[1:]]),
            REPLACED,
            AN_ACCOUNT,
            id="an account that was made anew",
        ),
        pytest.param(
            after(ended, put(accounts=lambda them: [live("ServiceAccount", ACCOUNT, "account-uid"), *them])),
            OUTLIVED,
            AN_ACCOUNT,
            id="an account whose grant has ended",
        ),
        pytest.param(
            put(accounts=lambda them: them[1:]), MISSING, AN_ACCOUNT, id="an account that somebody deleted"
        ),
        pytest.param(
            put(bindings=lambda them: [*them, bound("mine", subjects=MALLORY)]),
            STRANGER,
            f"RoleBinding {NAMESPACE}/mine",
            id="a binding with the label",
        ),
        pytest.param(
            put(
                bindings=lambda them: [
                    *them,
                    LiveBinding(
                        live("RoleBinding", "plain", "p"), VIEW, (Subject("ServiceAccount", "x", ACCOUNT),)
                    ),
                ]
            ),
            STRANGER,
            f"RoleBinding {NAMESPACE}/plain",
            id="an unmarked binding to a grant's account",
        ),
        pytest.param(
            put(cluster_bindings=lambda _: [EVERYWHERE]),
            STRANGER,
            "ClusterRoleBinding all",
            id="a binding of a grant's account in the whole cluster",
        ),
        pytest.param(
            put(bindings=lambda _: [bound(role=RoleRef("ClusterRole", "admin"))]),
            ALTERED,
            A_BINDING,
            id="a binding to another role",
        ),
        pytest.param(
            put(bindings=lambda _: [bound(subjects=MALLORY)]),
            ALTERED,
            A_BINDING,
            id="a binding to somebody else",
        ),
        pytest.param(
            after(ended, put(bindings=lambda _: [bound()])),
            OUTLIVED,
            A_BINDING,
            id="a binding whose grant has ended",
        ),
        pytest.param(put(bindings=lambda _: []), MISSING, A_BINDING, id="a binding that somebody deleted"),
        pytest.param(
            status(part="decision", owners=("mallory",)),
            CONTRADICTED,
            A_GRANT,
            id="a decision that was edited",
        ),
        pytest.param(
            status(part="decision", audit_index=4), CONTRADICTED, A_GRANT, id="another entry of the decision"
        ),
        pytest.param(status(decision=None), CONTRADICTED, A_GRANT, id="a decision that was taken away"),
        pytest.param(
            status(part="credential", serial="ff"), CONTRADICTED, A_GRANT, id="another serial number"
        ),
        pytest.param(status(credential=None), CONTRADICTED, A_GRANT, id="a credential that was taken away"),
        pytest.param(status(expires_at=NOW + dt.timedelta(days=9)), CONTRADICTED, A_GRANT, id="a later end"),
        pytest.param(widen, CONTRADICTED, A_GRANT, id="a spec that was edited"),
        pytest.param(
            after(ended, status(part="closure", outcome="Completed")),
            CONTRADICTED,
            A_GRANT,
            id="another outcome",
        ),
        pytest.param(
            after(ended, status(part="closure", audit_index=6)),
            CONTRADICTED,
            A_GRANT,
            id="another closing entry",
        ),
        pytest.param(after(ended, status(closure=None)), CONTRADICTED, A_GRANT, id="no closure"),
        pytest.param(
            put(pilots=lambda _: [pilot(stage="production")]), CONTRADICTED, A_PILOT, id="another stage"
        ),
        pytest.param(put(pilots=lambda _: [pilot(digest="x")]), CONTRADICTED, A_PILOT, id="another digest"),
        pytest.param(
            put(pilots=lambda _: [pilot(credential=None)]), CONTRADICTED, A_PILOT, id="no identity any more"
        ),
    ],
)
def test_each_disagreement_is_told_by_its_name(
    change: Callable[[World], None], finding: Disagreement, what: str
) -> None:
    """One thing is not as it was, and that is what is found."""
    world = sound()
    change(world)
    assert {(one.kind, str(one.key)) for one in world.found()} == {(finding, what)}


@pytest.mark.parametrize(
    "binding",
    [
        everywhere("system:serviceaccounts", "system:service-account-issuer-discovery"),
        everywhere("system:serviceaccounts", "system:cluster-trust-bundle-discovery"),
        everywhere("system:authenticated", "system:basic-user"),
        everywhere("system:authenticated", "edit"),
        group("system:serviceaccounts:team-b"),
        group("people"),
    ],
    ids=[
        "shipped",
        "shipped too",
        "shipped to everybody",
        "everybody's",
        "another namespace's accounts",
        "people's",
    ],
)
def test_a_group_without_a_grants_account_is_no_finding(binding: LiveBinding) -> None:
    """Nor is what every cluster gives its accounts, or what everybody has."""
    world = sound()
    world.cluster_bindings = [binding]
    assert world.found() == ()


def test_a_group_that_accounts_come_into_only_when_a_grant_is_there() -> None:
    """By the log where accounts could not be listed; and not any more when the grant has ended."""
    world = sound()
    world.bindings.append(group(f"system:serviceaccounts:{NAMESPACE}"))
    world.accounts, world.unlisted = [], frozenset({"accounts"})
    assert [one.kind for one in world.found()] == [STRANGER]
    ended(world)
    world.bindings = [group(f"system:serviceaccounts:{NAMESPACE}")]
    assert world.found() == ()


def test_a_credential_that_was_confirmed_is_the_only_one_kept() -> None:
    """What stood before it will not stand again; one that is not the newest confirms nothing."""
    world = sound()
    renewed(world)
    record = world.record()
    told = record.subjects["uid-of-task-1"]
    record.confirm(told.uid, "one")
    record.confirm("unknown", "two")
    assert [one.id for one in told.announced] == ["one", "two"]
    record.confirm(told.uid, "two")
    assert [one.id for one in told.announced] == ["two"]


def test_a_pilot_that_is_renewed_for_years_costs_nothing_more() -> None:
    """Where no Secrets can be listed, credentials that were replaced are not kept."""
    world, record = sound(), Record(of_secrets=False)
    for number in range(100):
        told = credential(f"c{number}", number, number)
        entries = entry(EntryType.PILOT_RENEWED, world.pilots[0], credential=told, stage="sandbox")
        record.take(number, entries)
    assert not record.credentials
    assert [one.id for one in record.subjects["uid-of-triage"].announced] == ["c98", "c99"]


def made(number: int) -> RecordedEntry:
    """The entry that issued a grant like no other, as it is decoded; with the checks of all."""
    one = issued(grant(credential=credential(f"{number:032x}", 1, number, serial=f"{number:040x}")))
    data = msgspec.json.decode(msgspec.json.encode(one.data))
    data["decision"]["checks"] = [{"name": f"check-{n}", "passed": True} for n in range(29)]
    account = f"pilot-grant-{number:020x}"
    binding = {"namespace": NAMESPACE, "name": f"{account}-pods", "roleRef": plain(VIEW)}
    data["credential"]["kubernetes"] = {
        **KUBERNETES,
        "serviceAccountName": account,
        "serviceAccountUID": f"{number:036x}",
        "bindings": [binding],
    }
    uid = f"{number:036x}"
    return RecordedEntry(uid, one.type, f"TaskGrant team-a/grant-{number}", uid, one.time, data)


def test_a_grant_is_remembered_in_a_kilobyte_and_a_half() -> None:
    """Ten thousand of them are 15 MB beside what they are themselves."""
    count, record = 500, Record(of_secrets=False)
    record.take(0, made(0))
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(1000, 1000 + count):
            record.take(number, made(number))
        gc.collect()
        each = tracemalloc.get_traced_memory()[0] / count
    finally:
        tracemalloc.stop()
    assert not record.unread
    assert len(record.subjects) == count + 1
    assert each < 1536


def test_a_grant_that_looks_ended_though_nothing_ended_it() -> None:
    """Its status would have the operator leave its access; what is out is told beside."""
    world = sound()
    told = {"outcome": "Completed", "provenAt": "2026-06-01T11:56:00Z", "auditIndex": 7}
    world.grant = grant(phase="Completed", closure=told)
    assert [(one.kind, one.index) for one in world.found()] == [(CONTRADICTED, -1)]


def test_a_grant_that_looks_alive_though_it_ended() -> None:
    """The entry that ended it is named."""
    world = sound()
    ended(world)
    world.grant = grant()
    assert [(one.kind, one.index) for one in world.found()] == [(CONTRADICTED, 7)]


@pytest.mark.parametrize("phase", ["Pending", "AwaitingApproval"])
def test_a_grant_that_looks_undecided_though_it_was_decided(phase: str) -> None:
    """It would be decided again."""
    world = sound()
    world.grant = builders.grant(status={"phase": phase})
    assert CONTRADICTED in {one.kind for one in world.found()}


def test_a_grant_that_no_entry_is_about() -> None:
    """Somebody made it look issued; whatever it has is a stranger."""
    world = sound()
    world.entries.pop(5)
    assert {(one.kind, one.key.kind) for one in world.found()} == {
        (CONTRADICTED, "TaskGrant"),
        (STRANGER, "Secret"),
        (STRANGER, "ServiceAccount"),
        (STRANGER, "RoleBinding"),
    }


def test_a_grant_that_vanished_with_something_out() -> None:
    """Torn out of the storage, or of its finalizer, it was never ended; what it had is found beside it."""
    world = sound()
    world.grants = []
    found = world.found()
    assert [(one.kind, str(one.key), one.index) for one in found] == [(MISSING, A_GRANT, 5)]
    assert found[0].owner_uid == "uid-of-task-1"


def test_an_announcement_that_nothing_came_of() -> None:
    """Neither released nor abandoned after a minute: the operator stopped in between and is not back."""
    world = sound()
    renewed(world, is_told=False)
    assert {(one.kind, one.index) for one in world.found()} == {(CONTRADICTED, 8), (OUTLIVED, 8)}


def test_what_cannot_be_listed_is_neither_found_nor_missed() -> None:
    """An auditor without rights on a kind is told nothing wrong of it."""
    world = sound()
    world.secrets, world.accounts, world.bindings, world.grants = [], [], [], []
    world.unlisted = frozenset({"secrets", "accounts", "bindings", "cluster_bindings", "grants"})
    assert world.found() == ()


def test_other_namespaces_are_not_missed() -> None:
    """What is out in a namespace that was not looked into may be there."""
    world = sound()
    world.secrets, world.accounts, world.bindings, world.grants, world.pilots = [], [], [], [], []
    assert world.found() != ()
    world.namespaces = frozenset({"team-b"})
    assert world.found() == ()


def test_of_whom_not_everything_is_read_nothing_is_said() -> None:
    """Not of what it has, and not of what it says."""
    world = sound()
    world.grant = changed(world.grant, "decision", owners=("mallory",))
    world.entries.pop(5)
    world.pending = frozenset({"uid-of-task-1"})
    assert world.found() == ()


def test_only_what_both_looks_show_is_confirmed() -> None:
    """What was under way is another step, or over, when one looks again."""
    world = sound()
    world.secrets.pop(0)
    first = world.found()
    world.bindings.clear()
    second = world.found()
    assert len(second) == 2
    assert confirmed(first, second) == first
    assert confirmed(first, ()) == ()


def test_an_entry_that_cannot_be_read_is_counted() -> None:
    """A later version may say things otherwise; that is told, and nothing is made of it."""
    record = Record()
    record.take(3, entry(EntryType.GRANT_ISSUED, grant(), credential={"id": "x"}))
    record.take(4, entry(EntryType.LOG_STARTED, grant()))
    assert record.unread == [3]


def test_what_is_forgotten_leaves_nothing_behind() -> None:
    """A subject that is gone takes its credentials, accounts and bindings along."""
    record = sound().record()
    record.forget(["uid-of-task-1", "unknown"])
    assert set(record.subjects) == {"uid-of-triage"}
    assert set(record.credentials) == {"svid"}
    assert not record.accounts
    assert record.binding((NAMESPACE, BINDING)) == (None, None, None)


def test_of_a_pilots_steps_those_after_its_credential_are_needed() -> None:
    """What came before it is over with it."""
    steps = {"suspended/2": 4, "credential/3": 6, "changed/5": 8, "stage/4": 5, "defined/5": 7}
    assert needed(steps) == {6, 8}


def test_each_finding_is_explained_to_people() -> None:
    """The page about it has a row for each, and no other."""
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "reconcile.md").read_text()
    table = page.partition("| Finding | Means |")[2].partition("\n\n")[0]
    rows = [line.split("`")[1] for line in table.splitlines() if line.startswith("| `")]
    assert rows == [str(kind) for kind in Disagreement]


def test_subjects_are_told_as_people_write_them() -> None:
    """With a namespace where they have one."""
    assert str(Subject("ServiceAccount", "a", "b")) == "ServiceAccount a/b"
    assert str(Subject("User", "", "mallory")) == "User mallory"
    assert Key("Secret", "a", "b") == live("Secret", "b", "u").key._replace(namespace="a")
