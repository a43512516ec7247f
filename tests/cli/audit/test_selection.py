from __future__ import annotations

import datetime as dt
from typing import Any

from pilot_identity.cli.audit.selection import About, Selection
from pilot_identity.core.audit.entries import RecordedEntry


def entry(subject: str, **data: Any) -> RecordedEntry:
    """An entry about an object."""
    return RecordedEntry("id", "t", subject, "uid", dt.datetime(2026, 6, 1, tzinfo=dt.UTC), data)


def owned(pilot: str, business: str, technical: str) -> RecordedEntry:
    """A pilot's entry that tells whose it is."""
    return entry(
        f"PilotIdentity {pilot}", definition={"owners": {"business": business, "technical": technical}}
    )


LOG = [
    entry("StagePolicy pilot"),
    owned("team-a/one", "ann", "bob"),
    owned("team-b/one", "cleo", "dan"),
    entry("TaskGrant team-a/t-1", pilot="one"),
    entry("TaskGrant team-b/t-1", pilot="one"),
    owned("team-a/one", "cleo", "bob"),
    entry("TaskGrant team-a/t-2", pilot="one"),
    entry("PilotIdentity team-a/two", definition={"sha256": "0" * 64, "bytes": 20_000}),
    entry("TaskGrant team-a/odd", pilot=["one"]),
]


def taken(about: About, name: str, namespace: str = "") -> list[int]:
    """The indices that are asked for."""
    selected = Selection(about, name, namespace)
    return [index for index, each in enumerate(LOG) if selected.takes(each)]


def test_a_grant_is_named_by_its_own_name() -> None:
    """In one namespace or in any."""
    assert taken(About.GRANT, "t-1") == [3, 4]
    assert taken(About.GRANT, "t-1", "team-b") == [4]
    assert taken(About.GRANT, "one") == []


def test_a_pilot_comes_with_its_grants() -> None:
    """Of its own namespace."""
    assert taken(About.PILOT, "one", "team-a") == [1, 3, 5, 6]
    assert taken(About.PILOT, "one") == [1, 2, 3, 4, 5, 6]


def test_an_entry_is_its_owners_at_the_time() -> None:
    """Who gives a pilot away keeps what was before, and no more."""
    assert taken(About.OWNER, "ann") == [1, 3]
    assert taken(About.OWNER, "cleo") == [2, 4, 5, 6]
    assert taken(About.OWNER, "bob") == [1, 3, 5, 6]
    assert taken(About.OWNER, "") == []


def test_a_pilot_whose_definition_is_only_a_digest_is_told() -> None:
    """Silence about it would look like an answer."""
    selected = Selection(About.OWNER, "ann")
    for each in LOG:
        selected.takes(each)
    assert selected.hidden == {"team-a/two"}
