"""A hole in the log: somebody who broke the glass deletes the newest groups while the operator works.

Nothing is issued behind the hole, and people are told in four ways; what ends is withdrawn all the same. Then
the remedy of docs/how-to/log-hole.md: the groups are put back from a copy, and all goes on by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from e2e import places
from e2e.admin import Admin, Document
from e2e.installation import NAMESPACE, Installation
from e2e.patience import until
from e2e.stories.play import Play
from pilot_identity.adapters.audit_log import INSPECT_SECONDS, LOOK_SECONDS
from pilot_identity.core.audit.groups import NAME_PREFIX

GUARD = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/pilot-identity-audit-log"
FOUND_S = INSPECT_SECONDS + LOOK_SECONDS + 30.0
"""Mostly `LOOK_SECONDS`; unless the operator wrote another group at just that moment."""
GROUPS = f"{places.core('configmaps')}?labelSelector=pilotidentity.dev/audit=group"


@contextmanager
def broken_glass(admin: Admin) -> Iterator[None]:
    """Nothing guards the log."""
    guard = bare(admin.get(GUARD))
    admin.delete(GUARD)
    try:
        yield
    finally:
        admin.create(GUARD.rpartition("/")[0], guard)


def bare(item: Document) -> Document:
    """An object as somebody would apply it."""
    kept = ("name", "namespace", "labels", "annotations")
    metadata = {name: item["metadata"][name] for name in kept if name in item["metadata"]}
    return {**item, "metadata": metadata}


def groups(admin: Admin) -> list[Document]:
    """The groups that are stored, in the log's order."""
    found = [one for one in admin.get(GROUPS)["items"] if one["metadata"]["name"].startswith(NAME_PREFIX)]
    whole = [{"apiVersion": "v1", "kind": "ConfigMap", **one} for one in found]
    return sorted(whole, key=lambda one: str(one["metadata"]["name"]))


def named(found: Sequence[Document]) -> list[str]:
    """Their names."""
    return [str(one["metadata"]["name"]) for one in found]


def told(admin: Admin, reason: str) -> list[Document]:
    """The Events of a reason in the operator's namespace."""
    listed: list[Document] = admin.get(places.events(NAMESPACE))["items"]
    return [event for event in listed if event["reason"] == reason]


@pytest.fixture
def taken(play: Play, operator: Installation) -> Iterator[list[Document]]:
    """The newest two groups, which are not there any more; put back at the end, if the story did not."""
    play.ready_pilot("triage")
    play.ask("before", "triage", duration="10m")
    play.phase("before", "Active")
    copies = groups(play.admin)[-2:]
    with broken_glass(play.admin):
        for name in reversed(named(copies)):
            take_away(play.admin, name)
    yield copies
    put_back(play.admin, copies)
    operator.wait_ready(operator.operator)


def take_away(admin: Admin, name: str) -> None:
    """Delete a group; a policy that is gone still holds for a moment."""
    path = places.core("configmaps", name=name)
    until(lambda: admin.ask("DELETE", path).code in {200, 404}, f"{name} is gone")


def put_back(admin: Admin, copies: Sequence[Document]) -> None:
    """The remedy, whatever of it is done already."""
    with broken_glass(admin):
        for copy in copies:
            create(admin, bare(copy))


def create(admin: Admin, group: Document) -> None:
    """Create a group, if it is not there."""
    path = places.core("configmaps")
    until(lambda: admin.ask("POST", path, group).code in {201, 409}, f"{group['metadata']['name']} is there")


def test_behind_a_hole_nothing_is_issued_until_it_is_mended(
    play: Play, operator: Installation, taken: list[Document]
) -> None:
    """Not ready, a figure, an Event, a line; access ends; once the groups are back, all is caught up on."""

    def figures() -> dict[str, float]:
        return operator.metrics(operator.operator)

    halted_before = len(told(play.admin, "AuditLogGoesOn"))
    until(lambda: figures()["pilot_identity_log_halted"] == 1.0, "the hole is found", seconds=FOUND_S)
    assert not operator.answers(operator.operator, "/readyz")
    until(lambda: told(play.admin, "AuditLogHalted"), "an Event tells of it")
    assert "the audit log takes no entries" in operator.operator.log_tail(400)

    left = named(groups(play.admin))
    play.ask("behind", "triage", duration="10m")
    word = {"reason": "the log has a hole", "by": play.admin.name}
    play.admin.patch(play.grants("before"), {"spec": {"revoke": word}})
    play.gone("before")
    assert play.admin.find(play.secrets("behind")) is None
    assert play.status(play.grants("behind")).get("phase", "Pending") == "Pending"
    # Compaction may delete what is in bundles.
    assert set(named(groups(play.admin))) <= set(left), "nothing is written behind the hole"

    put_back(play.admin, taken)
    operator.wait_ready(operator.operator)
    assert figures()["pilot_identity_log_halted"] == 0.0
    play.phase("behind", "Active", seconds=90)
    play.phase("before", "Revoked", seconds=90)
    until(lambda: len(told(play.admin, "AuditLogGoesOn")) > halted_before, "an Event tells that it is over")
    play.trail()
