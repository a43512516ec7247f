from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any

import pytest

from pilot_identity.core.audit.entries import EntryType, RecordedEntry
from pilot_identity.core.audit.story import SECTIONS, Family, Section, Standing, Story, open_points

NOON = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)
ASKED = {"pilot": "triage", "requestedBy": "alice", "task": {"id": "T-1"}}
PROVEN: dict[str, Any] = {
    "closure": {"outcome": "Completed", "provenAt": "2026-06-01T12:00:30Z", "proofs": []}
}


def entry(
    kind: str, subject: str = "TaskGrant team-a/root", uid: str = "root", /, **data: Any
) -> RecordedEntry:
    """An entry about a grant."""
    return RecordedEntry("id", kind, subject, uid, NOON, data)


def about(name: str, kind: EntryType, parent: str | None = None, **data: Any) -> RecordedEntry:
    """An entry about a grant whose UID is its name; `parent` is empty where it was not found yet."""
    told = {} if parent is None else {"parent": {"name": parent or "unknown", "uid": parent}}
    return entry(kind, f"TaskGrant team-a/{name}", name, **{**ASKED, **told, **data})


def of_root(kind: EntryType, **data: Any) -> RecordedEntry:
    """An entry about the grant that is asked for."""
    return about("root", kind, **data)


def named(uid: str, kind: EntryType) -> RecordedEntry:
    """An entry about one of several grants of the name."""
    return entry(kind, "TaskGrant team-a/root", uid, **ASKED)


def read(*entries: RecordedEntry, name: str = "root", namespace: str = "team-a") -> Family:
    """What a family keeps of a log."""
    family = Family(name, namespace)
    for index, each in enumerate(entries):
        family.take(index, each)
    return family


def only(family: Family) -> Story:
    """The story, where there is one grant of the name."""
    (story,) = family.namesakes()
    return story


def indices(lines: Iterable[Any]) -> list[int]:
    """The entries of a section."""
    return [line.index for line in lines]


def shape(story: Story) -> dict[str, Any]:
    """Who descends from whom."""
    return {child.uid: shape(child) for child in story.children}


REQUESTED, ISSUED, CLOSED = EntryType.GRANT_REQUESTED, EntryType.GRANT_ISSUED, EntryType.GRANT_CLOSED


def test_a_story_has_its_own_entries_and_no_other() -> None:
    """In their order, each in its sections."""
    story = only(
        read(
            about("root", REQUESTED),
            about("other", REQUESTED),
            about("root", ISSUED, decision={"allowed": True}),
            entry(EntryType.PILOT_RENEWED, "PilotIdentity team-a/root", "pilot"),
            about("root", CLOSED, **PROVEN),
        )
    )
    assert indices(story.lines) == [0, 2, 4]
    assert indices(story.section(Section.REQUEST)) == [0]
    assert indices(story.section(Section.DECISION)) == [2]
    assert indices(story.section(Section.CREDENTIALS)) == [2]
    assert indices(story.section(Section.KUBERNETES)) == []
    assert indices(story.section(Section.END)) == indices(story.section(Section.PROOF)) == [4]
    assert story.standing is Standing.ENDED


def test_an_entry_of_a_type_that_is_not_known_is_kept() -> None:
    """A log outlives versions of this program."""
    story = only(read(about("root", REQUESTED), entry("dev.pilotidentity.grant.blessed.v9")))
    assert indices(story.section(Section.OTHER)) == [1]


def test_every_type_that_is_about_a_grant_has_its_place() -> None:
    """Whoever adds a type of that kind says where it belongs."""
    told = {kind for kind in EntryType if kind.split(".")[2] in {"grant", "approval", "activity", "access"}}
    others = {EntryType.CREDENTIAL_ABANDONED, EntryType.REVIEW_OWED, EntryType.PILOT_REVIEWED}
    assert told | others == set(SECTIONS)


def test_who_asked_is_told_by_the_first_that_says_so() -> None:
    """Where a log from before has no entry of the request."""
    story = only(read(entry(EntryType.CREDENTIAL_ABANDONED), about("root", ISSUED), about("root", CLOSED)))
    assert indices(story.section(Section.REQUEST)) == [1]


class TestFamily:
    """Who belongs to whom."""

    def test_namesakes_are_told_apart(self) -> None:
        """Each with its own entries and children; the newest is the last."""
        family = read(
            named("first", ISSUED),
            about("child", ISSUED, parent="first"),
            named("second", ISSUED),
            named("first", CLOSED),
        )
        first, second = family.namesakes()
        assert (first.uid, indices(first.lines), shape(first)) == ("first", [0, 3], {"child": {}})
        assert (second.uid, indices(second.lines), shape(second)) == ("second", [2], {})

    def test_a_name_in_another_namespace_is_another_grant(self) -> None:
        """It is told only where no namespace was given."""
        log = [about("root", ISSUED), entry(ISSUED, "TaskGrant team-b/root", "b", **ASKED)]
        assert [story.uid for story in read(*log).namesakes()] == ["root"]
        assert [story.uid for story in read(*log, namespace="").namesakes()] == ["root", "b"]

    def test_descendants_nest(self) -> None:
        """To any depth; the story of a child does not have its parent's."""
        log = [
            about("root", ISSUED),
            about("child", ISSUED, parent="root"),
            about("leaf", ISSUED, parent="child"),
            about("sibling", ISSUED, parent="root"),
        ]
        assert shape(only(read(*log))) == {"child": {"leaf": {}}, "sibling": {}}
        child = only(read(*log, name="child"))
        assert (shape(child), child.parent) == ({"leaf": {}}, {"name": "root", "uid": "root"})

    @pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 3, 0, 1), (1, 3, 0, 2)])
    def test_the_order_in_which_they_are_told_of_does_not_matter(self, order: tuple[int, ...]) -> None:
        """A child may be looked at before its parent is; a stranger's family stays away."""
        log = [
            about("root", REQUESTED),
            about("child", REQUESTED, parent="root"),
            about("leaf", REQUESTED, parent="child"),
            entry(
                EntryType.APPROVAL_GIVEN,
                "Approval team-a/a",
                "a",
                subject={"kind": "TaskGrant", "uid": "leaf"},
            ),
        ]
        others = [about("stranger", REQUESTED, parent="elsewhere"), about("elsewhere", REQUESTED)]
        story = only(read(*(log[number] for number in order), *others))
        assert shape(story) == {"child": {"leaf": {}}}
        ((child,), (leaf,)) = story.children, story.children[0].children
        assert [len(each.lines) for each in (story, child, leaf)] == [1, 1, 2]
        assert [line.index for line in leaf.lines] == sorted(line.index for line in leaf.lines)

    def test_a_child_whose_parent_was_not_found_at_first_keeps_what_was_told_then(self) -> None:
        """A later entry names the parent."""
        story = only(
            read(
                about("child", REQUESTED, parent=""),
                about("root", REQUESTED),
                about("child", ISSUED, parent="root"),
            )
        )
        (child,) = story.children
        assert indices(child.lines) == [0, 2]

    def test_grants_that_name_each_other_come_to_an_end(self) -> None:
        """No operator writes such a log; a reader must not hang on it."""
        story = only(read(about("root", ISSUED, parent="child"), about("child", ISSUED, parent="root")))
        assert shape(story) == {"child": {}}

    def test_what_is_of_other_families_is_forgotten(self) -> None:
        """A long log is mostly about others: of each only its UID stays."""
        log = [about(f"other-{number}", kind) for number in range(50) for kind in (ISSUED, CLOSED)]
        log += [about(f"child-{number}", ISSUED, parent=f"other-{number}") for number in range(50)]
        family = read(*log)
        assert family.namesakes() == ()
        assert family.size == 0

    def test_an_approval_is_its_grants(self) -> None:
        """By the UID that it names, or that it was used for; told before the grant or after."""
        approval = ("Approval team-a/word", "a")
        subject = {"subject": {"kind": "TaskGrant", "name": "root", "uid": "root"}, "approver": "bob"}
        used = {"usedBy": "TaskGrant team-a/root", "usedByUID": "root"}
        of_pilot = {"usedBy": "PilotIdentity team-a/root", "usedByUID": "root"}
        story = only(
            read(
                entry(EntryType.APPROVAL_GIVEN, *approval, **subject),
                about("root", ISSUED),
                entry(EntryType.APPROVAL_USED, *approval, **used),
                entry(EntryType.APPROVAL_USED, *approval, **of_pilot),
                entry(
                    EntryType.APPROVAL_VOID, *approval, **{**subject, "subject": {"kind": "PilotIdentity"}}
                ),
            )
        )
        assert indices(story.section(Section.APPROVALS)) == [0, 2]

    def test_a_review_is_of_the_emergencies_that_it_names(self) -> None:
        """It is about the pilot; what it answers for is told with the grant."""
        pilot = ("PilotIdentity team-a/triage", "pilot")
        owed = {"owed": {"grants": [{"uid": "root"}, {"uid": "other"}]}}
        log = [
            entry(EntryType.REVIEW_OWED, *pilot, **owed),
            about("root", ISSUED),
            about("root", EntryType.GRANT_EMERGENCY),
            about("root", CLOSED, **PROVEN),
        ]
        point = "it was an emergency, and nobody has reviewed the pilot since"
        story = only(read(*log))
        assert indices(story.section(Section.APPROVALS)) == [0, 2]
        assert list(open_points(story, NOON)) == [point]
        story = only(read(*log, entry(EntryType.PILOT_REVIEWED, *pilot, **owed)))
        assert indices(story.section(Section.APPROVALS)) == [0, 2, 4]
        assert list(open_points(story, NOON)) == []


class TestUses:
    """Sums of use."""

    def test_use_is_summed_direct_and_chained(self) -> None:
        """Of the grant itself, and apart from it of all that descends from it."""
        tokens = [{"isKnown": True, "requests": 1}, {"isKnown": False, "requests": 2}]
        calls = [{"kind": "tool_call"}, {"kind": "tool_call"}, {"kind": "prompt"}]
        story = only(
            read(
                about("root", ISSUED),
                about("root", EntryType.ACCESS_SEEN, requests=3, refused=1, tokens=tokens),
                about("root", EntryType.ACCESS_SEEN, requests=2, afterEnd={"requests": 2, "allowed": 1}),
                about("child", EntryType.ACTIVITY_RECORDED, parent="root", activities=calls),
                about("leaf", EntryType.ACCESS_SEEN, parent="child", requests=7, refused=0),
                about("leaf", EntryType.ACTIVITY_RECORDED, parent="child", activities=calls[:1]),
            )
        )
        own, chained = story.own, story.chained
        assert (own.requests, own.refused, own.after_end, own.allowed_after_end) == (5, 1, 2, 1)
        assert (own.unknown_tokens, dict(own.activities)) == (2, {})
        assert (chained.requests, dict(chained.activities)) == (7, {"tool_call": 3, "prompt": 1})

    def test_a_dead_grants_account_that_is_still_used_is_in_the_story(self) -> None:
        """By the announced name or UID; the operator was restarted and knew no grant of it."""
        access = {"serviceAccountName": "pilot-grant-1", "serviceAccountUID": "a", "credentialID": "JTI=t"}
        ended = {**PROVEN["closure"], "withdrawnAt": "2026-06-01T12:00:00Z"}
        seen = {"requests": 5, "refused": 1, "from": "2026-06-01T12:10:00Z"}
        tokens = [{"credentialID": "t", "requests": 4}, {"credentialID": "x", "requests": 1}]
        family = read(
            about("root", ISSUED, **ALLOWED, credential={"kubernetes": access}),
            about("root", CLOSED, closure=ended),
            entry(EntryType.ACCESS_SEEN, "ServiceAccount team-a/pilot-grant-1", "a", **seen, tokens=tokens),
            entry(EntryType.ACCESS_SEEN, "ServiceAccount team-a/pilot-grant-1", "anew", requests=2),
            entry(EntryType.ACCESS_SEEN, "ServiceAccount team-a/pilot-grant-2", "b", requests=9),
            entry(EntryType.ACCESS_SEEN, "ServiceAccount team-b/pilot-grant-1", "c", requests=9),
        )
        story = only(family)
        assert indices(story.section(Section.ACCESS)) == [2, 3]
        own = story.own
        assert (own.requests, own.after_end, own.allowed_after_end, own.unknown_tokens) == (7, 5, 4, 1)
        assert list(open_points(story, NOON, heard=family.heard)) == [
            "requests by its account when the operator knew no such grant: 7",
            "requests with tokens that are not known to be the grant's: 1",
            "requests still allowed after its access was withdrawn: 4",
        ]

    @pytest.mark.parametrize(
        "since, until, late, about",
        [("11:59:50", "12:00:10", 0, 0), ("12:00:05", "12:00:15", 3, 3), ("12:00:05", "12:00:16", 3, 0)],
        ids=["begun before the end", "about the end", "longer than that"],
    )
    def test_an_accounts_use_is_late_where_all_of_it_is(
        self, since: str, until: str, late: int, about: int
    ) -> None:
        """By the times that the entries tell."""
        access = {"serviceAccountName": "pilot-grant-1"}
        ended = {**PROVEN["closure"], "withdrawnAt": "2026-06-01T12:00:00Z"}
        seen = {"requests": 3, "from": f"2026-06-01T{since}Z", "until": f"2026-06-01T{until}Z"}
        account = "ServiceAccount team-a/pilot-grant-1"
        story = only(
            read(
                of_root(ISSUED, credential={"kubernetes": access}),
                of_root(CLOSED, closure=ended),
                entry(EntryType.ACCESS_SEEN, account, "a", **seen),
            )
        )
        assert (story.own.after_end, story.own.allowed_after_end, story.own.about_end) == (late, late, about)

    def test_what_is_no_number_counts_for_nothing(self) -> None:
        """Whatever another version wrote there."""
        story = only(read(about("root", EntryType.ACCESS_SEEN, requests="3", refused=True, tokens="none")))
        assert (story.own.requests, story.own.refused) == (0, 0)


LATER = NOON + dt.timedelta(hours=1)
ALLOWED: dict[str, Any] = {"decision": {"allowed": True}, "expiresAt": "2026-06-01T12:30:00Z"}
WITH_KUBERNETES = {**ALLOWED, "credential": {"kubernetes": {"serviceAccountName": "pilot-grant-1"}}}
UNSHOWN: dict[str, Any] = {
    "closure": {
        "outcome": "Revoked",
        "residualUntil": "2026-06-01T12:30:00Z",
        "proofs": [{"name": "secret-gone", "proven": True}, {"name": "token-refused", "proven": False}],
    }
}

OPEN = {
    "nothing decided": ([about("root", REQUESTED)], NOON, Standing.WAITING, ["not decided yet"]),
    "waits for people": (
        [about("root", EntryType.GRANT_DECIDED, decision={"allowed": False, "message": "needs 2 approvals"})],
        NOON,
        Standing.WAITING,
        ["nothing was issued yet: needs 2 approvals"],
    ),
    "denied": (
        [about("root", EntryType.GRANT_DENIED, decision={"allowed": False})],
        NOON,
        Standing.DENIED,
        [],
    ),
    "at work": ([about("root", ISSUED, **ALLOWED)], NOON, Standing.OPEN, ["not ended yet"]),
    "its time is over": (
        [about("root", ISSUED, **ALLOWED)],
        LATER,
        Standing.OPEN,
        ["not ended yet, though its time is over: its end is not in the log"],
    ),
    "ended, not shown": (
        [about("root", ISSUED, **ALLOWED), about("root", CLOSED, **UNSHOWN)],
        NOON,
        Standing.UNPROVEN,
        [
            "not proven: token-refused",
            "a verifier that asks nobody may accept a copy of its credential until 2026-06-01T12:30:00Z",
        ],
    ),
    "ended, shown later": (
        [
            about("root", ISSUED, **ALLOWED),
            about("root", CLOSED, **UNSHOWN),
            about("root", EntryType.GRANT_PROVEN, **PROVEN),
        ],
        LATER,
        Standing.ENDED,
        [],
    ),
    "let go": (
        [
            about("root", ISSUED, **ALLOWED),
            about("root", EntryType.GRANT_UNPROVEN, letGo=True, **UNSHOWN),
        ],
        LATER,
        Standing.UNPROVEN,
        ["not proven: token-refused", "its object was let go before its end was proven"],
    ),
    "withdrawn while it waited": (
        [about("root", REQUESTED), about("root", CLOSED, **PROVEN)],
        NOON,
        Standing.ENDED,
        ["it ended before anything was issued"],
    ),
    "nothing seen": (
        [about("root", ISSUED, **WITH_KUBERNETES), about("root", CLOSED, **PROVEN)],
        NOON,
        Standing.ENDED,
        ["the log has no word of the API server's at all, so what was asked of it is not known"],
    ),
    "nothing seen of this one": (
        [
            about("other", EntryType.ACCESS_SEEN, requests=1),
            about("root", ISSUED, **WITH_KUBERNETES),
            about("root", CLOSED, **PROVEN),
        ],
        NOON,
        Standing.ENDED,
        ["no request to the API server was seen: none was made, or none was told"],
    ),
    "used by a token of nobody's": (
        [
            about("root", ISSUED, **ALLOWED),
            about("root", CLOSED, **PROVEN),
            about(
                "root",
                EntryType.ACCESS_SEEN,
                requests=2,
                tokens=[{"requests": 2, "isKnown": False}],
                afterEnd={"requests": 2, "allowed": 1},
            ),
        ],
        NOON,
        Standing.ENDED,
        [
            "requests with tokens that are not known to be the grant's: 2",
            "requests still allowed after its access was withdrawn: 1",
        ],
    ),
    "used by others, and about its end": (
        [
            about("root", ISSUED, **ALLOWED),
            about("root", CLOSED, **PROVEN),
            about(
                "root",
                EntryType.ACCESS_SEEN,
                requests=2,
                afterEnd={"requests": 2, "allowed": 2, "about": {"requests": 1, "allowed": 1}},
                impersonatedBy={"requests": 3},
            ),
        ],
        NOON,
        Standing.ENDED,
        [
            "requests that others made as its account: 3",
            "requests still allowed after its access was withdrawn: 2, 1 of them about when it was",
        ],
    ),
    "reported": (
        [
            about("root", ISSUED, **ALLOWED),
            about("root", EntryType.ACTIVITY_RECORDED, activities=[{"kind": "prompt"}]),
            about("root", CLOSED, **PROVEN),
        ],
        NOON,
        Standing.ENDED,
        ["its activity is what agents and tools say themselves; nothing here confirms it"],
    ),
}


@pytest.mark.parametrize("log, as_of, standing, told", OPEN.values(), ids=OPEN)
def test_what_is_left_open_is_said(
    log: list[RecordedEntry], as_of: dt.datetime, standing: Standing, told: list[str]
) -> None:
    """And nothing else."""
    family = read(*log)
    story = only(family)
    assert story.standing is standing
    assert list(open_points(story, as_of, heard=family.heard)) == told
