from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from pilot_identity.adapters.kubernetes import recorder as recorder_module
from pilot_identity.adapters.kubernetes.recorder import EventRecorder
from pilot_identity.core.decisions.plan import Notice, Owner
from pilot_identity.core.resources.conditions import Reason
from pilot_identity.core.resources.metadata import Key
from tests.fakes.clock import LoopClock
from tests.fakes.server import FakeApi, FakeServer, Process

pytestmark = pytest.mark.looptime

LONG_ENOUGH = 10.0
"""Seconds; far more than a handful of requests take."""
GRANT = Owner(Key("TaskGrant", "team-a", "task-1"), "uid-1")


def notice(note: str = "issued", owner: Owner = GRANT) -> Notice:
    """Something to tell people."""
    return Notice(owner, "Normal", Reason.ISSUED, "Issue", note)


@asynccontextmanager
async def running(recorder: EventRecorder) -> AsyncIterator[None]:
    """Let it send while the context is open, and at its end for as long as it may take.

    The time is the loop's, which `looptime` makes fast.
    """
    task = asyncio.create_task(recorder.run())
    try:
        yield
        await asyncio.sleep(LONG_ENOUGH)
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_an_event_names_its_object_and_its_entry() -> None:
    """events.k8s.io/v1, with the log's index where a person and a program find it."""
    server = FakeServer(LoopClock())
    recorder = EventRecorder(FakeApi(server), server.clock, "replica-0")
    async with running(recorder):
        recorder.tell(notice(), 42)
        recorder.tell(notice("waits"), -1)
    first, second = sorted(server.all("events"), key=lambda body: body["note"])
    assert first["note"] == "issued (audit entry 42)"
    assert first["metadata"]["annotations"] == {"pilotidentity.dev/audit-index": "42"}
    assert first["regarding"] == {
        "apiVersion": "pilotidentity.dev/v1alpha1",
        "kind": "TaskGrant",
        "name": "task-1",
        "namespace": "team-a",
        "uid": "uid-1",
    }
    assert (first["type"], first["reason"], first["action"]) == ("Normal", "Issued", "Issue")
    assert first["eventTime"] == "2026-06-01T12:00:00.000000Z"
    assert (second["note"], "annotations" in second["metadata"]) == ("waits", False)


async def test_an_event_of_a_cluster_scoped_object_is_in_the_default_namespace() -> None:
    """As Kubernetes' own are."""
    server = FakeServer(LoopClock())
    recorder = EventRecorder(FakeApi(server), server.clock, "replica-0")
    async with running(recorder):
        recorder.tell(notice(owner=Owner(Key("StagePolicy", "", "sandbox"), "uid-2")), 1)
    assert [body["metadata"]["namespace"] for body in server.all("events")] == ["default"]


async def test_a_long_note_is_cut_and_keeps_its_entry() -> None:
    """The API server takes 1,024 characters of a note, and 253 of a name."""
    server = FakeServer(LoopClock())
    recorder = EventRecorder(FakeApi(server), server.clock, "replica-0")
    async with running(recorder):
        recorder.tell(notice("x" * 5000, Owner(Key("TaskGrant", "team-a", "n" * 253), "uid-1")), 7)
    (event,) = server.all("events")
    assert len(event["note"]) == 1024
    assert event["note"].endswith(" (audit entry 7)")
    assert len(event["metadata"]["name"]) <= 253


async def test_a_full_queue_drops_and_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Telling never waits and never fails its caller."""
    monkeypatch.setattr(recorder_module, "QUEUE_LIMIT", 3)
    server = FakeServer(LoopClock())
    recorder = EventRecorder(FakeApi(server), server.clock, "replica-0")
    for number in range(5):
        recorder.tell(notice(), number)
    assert recorder.dropped == 2
    async with running(recorder):
        pass
    assert len(server.all("events")) == 3


async def test_an_event_that_cannot_be_sent_is_counted_and_holds_up_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """People miss it; the log has it."""
    server = FakeServer(LoopClock())
    recorder = EventRecorder(FakeApi(server), server.clock, "replica-0")
    async with running(recorder):
        server.refused.add("events")
        with caplog.at_level(logging.WARNING):
            recorder.tell(notice("lost"), 1)
            await asyncio.sleep(LONG_ENOUGH)
        server.refused.clear()
        recorder.tell(notice("sent"), 2)
    assert recorder.dropped == 1
    assert [body["note"] for body in server.all("events")] == ["sent (audit entry 2)"]
    assert "an Event was not sent" in caplog.text


async def test_a_stop_waits_for_no_event() -> None:
    """An API server that answers nobody does not hold up a process that ends."""
    server, process = FakeServer(LoopClock()), Process()
    recorder = EventRecorder(FakeApi(server, process), server.clock, "replica-0")
    process.died.set()
    for number in range(100):
        recorder.tell(notice(), number)
    sending = asyncio.create_task(recorder.run())
    await asyncio.sleep(LONG_ENOUGH)
    began = asyncio.get_running_loop().time()
    sending.cancel()
    await asyncio.wait({sending})
    assert asyncio.get_running_loop().time() - began < 1
    assert server.all("events") == []
