"""Who must be looked at when a grant changes that others were delegated by."""

from __future__ import annotations

from typing import Any

import pytest

from pilot_identity.control.store import Store
from pilot_identity.core.resources import TaskGrant
from pilot_identity.core.resources.metadata import Key
from tests.core.builders import active_grant, deleting, grant, ready, ready_pilot


def key(name: str) -> Key:
    """The key of a grant."""
    return Key("TaskGrant", "team-a", name)


def below(name: str, parent: str, **fields: Any) -> TaskGrant:
    """An active grant with a parent."""
    return active_grant(name, parent=parent, status={"parentUID": f"uid-of-{parent}"}, **fields)


@pytest.fixture
def store() -> Store:
    """A root grant, a child and a grandchild of another pilot, a child that waits, and one that ended."""
    store = Store()
    store.put(ready_pilot())
    store.put(active_grant("root"))
    store.put(below("child", "root", pilot="helper"))
    store.put(below("grandchild", "child", pilot="helper"))
    store.put(grant("waiting", parent="root", pilot="helper"))
    store.put(grant("ended", parent="root", pilot="helper", status={"phase": "Completed"}))
    return store


DESCENDANTS = {key("child"), key("grandchild"), key("waiting")}

CHANGES: dict[str, TaskGrant] = {
    "it is revoked": active_grant("root", revoke={"reason": "leak"}, meta={"resourceVersion": "2"}),
    "it is completed": active_grant("root", completed=True, meta={"resourceVersion": "2"}),
    "it is being deleted": active_grant("root", meta={"resourceVersion": "2", **deleting()}),
    "its phase changes": active_grant("root", status={"phase": "Closing"}, meta={"resourceVersion": "2"}),
    "it lapses": active_grant(
        "root",
        status={"conditions": [ready("AccessUnknown", is_true=False)]},
        meta={"resourceVersion": "2"},
    ),
    "a namesake takes its place": active_grant("root", meta={"uid": "another", "resourceVersion": "2"}),
}


@pytest.mark.parametrize("after", CHANGES.values(), ids=CHANGES)
def test_all_that_was_made_from_a_grant_is_looked_at_when(store: Store, after: TaskGrant) -> None:
    """Children and theirs, active or waiting; not those that ended."""
    dirty = store.put(after)
    assert dirty >= DESCENDANTS
    assert key("ended") not in dirty


def test_a_grant_that_goes_takes_them_along(store: Store) -> None:
    """Its deletion is what they wait for."""
    assert store.drop(key("root"), version=9) >= DESCENDANTS


def test_a_grant_that_comes_is_told_to_those_that_wait_for_it() -> None:
    """Manifests are applied in any order."""
    store = Store()
    store.put(grant("early", parent="late"))
    assert key("early") in store.put(grant("late"))


def test_a_renewal_is_nobody_elses_business(store: Store) -> None:
    """Ten thousand renewals must not look at every child."""
    renewed = active_grant("root", status={"issuances": 2}, meta={"resourceVersion": "2"})
    assert store.put(renewed) == {key("root")}


def test_a_pilots_change_reaches_what_its_grants_passed_on(store: Store) -> None:
    """Another pilot's grants rest on it too."""
    changed = ready_pilot(suspend=True, meta={"resourceVersion": "2"})
    assert store.put(changed) >= {key("root"), *DESCENDANTS}


def test_a_cycle_ends() -> None:
    """Two grants that name each other are looked at once each."""
    store = Store()
    store.put(grant("one", parent="two"))
    assert store.put(grant("two", parent="one")) == {key("one"), key("two")}


def test_ancestors_are_found_by_name_and_uid(store: Store) -> None:
    """The parent last; a namesake is none."""
    found = store.grant(key("grandchild"))
    assert found is not None
    assert [one.metadata.name for one in store.ancestors(found)] == ["root", "child"]
    store.put(active_grant("root", meta={"uid": "another", "resourceVersion": "2"}))
    assert [one.metadata.name for one in store.ancestors(found)] == ["child"]
