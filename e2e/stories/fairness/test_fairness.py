"""Fairness: one namespace that asks for more than the operator can do delays no other's request or revoke."""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from e2e import places
from e2e.admin import Admin, Document
from e2e.installation import Installation
from e2e.patience import until
from e2e.stories.play import Play
from pilot_identity.core.audit.entries import EntryType

PILOTS = 2
FLOOD = 1500
QUEUED = 300
"""What waits in the operator while the others are measured; without it there would be no flood."""
ROUNDS = 5
OVERTAKEN = 50
"""So many of the flood's grants, asked for before it, are issued after it; first come, first served: none."""


@pytest.fixture
def flooded(admin: Admin, play: Play) -> Play:
    """Another namespace, whose pilots are ready; what is made there goes with the control plane."""
    name = f"{play.namespace}-flood"
    admin.create(places.namespaces(), {"metadata": {"name": name}})
    other = Play(admin, name)
    for number in range(PILOTS):
        other.ready_pilot(f"greedy-{number}")
    return other


def test_a_flood_in_one_namespace_delays_no_other(play: Play, flooded: Play, operator: Installation) -> None:
    """While hundreds of its grants wait, others' overtake them, with their requests and their revokes."""
    play.ready_pilot("modest")

    def waiting() -> float:
        return operator.metrics(operator.operator)["pilot_identity_queue_length"]

    def ask_one(number: int) -> Document:
        return flooded.ask(f"flood-{number}", f"greedy-{number % PILOTS}", duration="50m")

    asked: dict[str, Document] = {}
    revoked: dict[str, Document] = {}
    taken: list[float] = []
    with ThreadPoolExecutor(6) as pool:
        flooding = [pool.submit(ask_one, number) for number in range(FLOOD)]
        until(lambda: waiting() >= QUEUED, "the flood waits", seconds=60, instead=waiting)
        for number in range(ROUNDS):
            name = f"modest-{number}"
            began = time.monotonic()
            asked[name] = play.ask(name, "modest")
            play.phase(name, "Active")
            word = {"reason": "enough", "by": play.admin.name}
            revoked[name] = play.admin.patch(play.grants(name), {"spec": {"revoke": word}})
            play.phase(name, "Revoked")
            taken.append(time.monotonic() - began)
        flood = [one.result() for one in flooding]
    print(f"asked, issued, revoked and shown in {statistics.median(taken):.2f} s (median of {ROUNDS})")
    until(lambda: waiting() == 0, "everything of the flood was looked at", seconds=120, instead=waiting)
    trail = play.trail()
    at: dict[tuple[str, EntryType], int] = {
        (line.entry.subject_uid, line.kind): line.revision
        for line in trail
        if line.kind in {EntryType.GRANT_ISSUED, EntryType.GRANT_CLOSED}
    }
    never = max(at.values()) + 1

    def overtaken(since: Document, told: EntryType) -> int:
        """How many of the flood came before `since`, and were issued after what was done about it."""
        done = at[since["metadata"]["uid"], told]
        return sum(
            revision_of(one) < revision_of(since)
            and at.get((one["metadata"]["uid"], EntryType.GRANT_ISSUED), never) > done
            for one in flood
        )

    counts = [
        (overtaken(asked[name], EntryType.GRANT_ISSUED), overtaken(revoked[name], EntryType.GRANT_CLOSED))
        for name in asked
    ]
    print(f"the flood's grants that each request and each revoke overtook: {counts}")
    assert all(count >= OVERTAKEN for pair in counts[:2] for count in pair), counts
    listed = flooded.admin.get(flooded.grants())["items"]
    phases = {one.get("status", {}).get("phase", "none") for one in listed}
    assert len(listed) == FLOOD
    assert phases <= {"Active", "Pending"}, "every one is issued, or waits for its pilot's limit and says so"


def revision_of(written: Document) -> int:
    """When an object was written, as etcd counts."""
    return int(written["metadata"]["resourceVersion"])
