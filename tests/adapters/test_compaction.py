from __future__ import annotations

import asyncio
import base64
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilot_identity.adapters.audit_log import ConfigMapLog
from pilot_identity.adapters.kubernetes.api import JSON
from pilot_identity.core.audit.chain import GRACE_SECONDS
from pilot_identity.core.audit.checkpoint import LogSigner
from pilot_identity.core.audit.entries import Entry, EntryType, RecordedEntry, decode_entry
from pilot_identity.core.audit.findings import Flaw
from pilot_identity.core.audit.groups import BrokenLogError
from pilot_identity.core.audit.reader import ConfigMapLog as StoredLog
from pilot_identity.core.audit.recollection import ANNOTATION, Recollection, unpack
from pilot_identity.core.audit.verify import verify
from pilot_identity.ports import PortError
from tests.fakes.clock import START, LoopClock
from tests.fakes.server import HOME, FakeApi, FakeServer, Fault, Object, Place, Process

pytestmark = pytest.mark.looptime

SIGNER = LogSigner("pilotidentity.dev/log/test", Ed25519PrivateKey.from_private_bytes(bytes(32)))
STALE = "audit-group-0000000000000100"
GROUP = 60
"""Entries of one commit: no divisor of 256, so that groups lie over the edges of bundles."""


def entry(number: int, *, subject: str = "", **data: Any) -> Entry:
    """The log's `number`-th entry; its own subject where none is named."""
    uid = subject or f"uid-{number}"
    return Entry(f"{uid}/{number}", EntryType.GRANT_ISSUED, "TaskGrant team-a/task", uid, START, data)


def writer(server: FakeServer, *, process: Process | None = None) -> ConfigMapLog:
    """A process's log."""
    return ConfigMapLog(FakeApi(server, process), HOME, SIGNER, on_read=lambda _: None)


@asynccontextmanager
async def running(*logs: ConfigMapLog) -> AsyncIterator[None]:
    """Open logs, and let them write while the context is open."""
    for log in logs:
        await log.open()
    tasks = [asyncio.create_task(log.run()) for log in logs]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def fill(log: ConfigMapLog, since: int, until: int) -> None:
    """Commit entries in groups, none of them announcing anything."""
    for at in range(since, until, GROUP):
        await log.commit([entry(number) for number in range(at, min(at + GROUP, until))])


async def compact_all(log: ConfigMapLog) -> None:
    """Let the groups become old enough, and compact what can be."""
    await asyncio.sleep(GRACE_SECONDS + 1)
    while await log.compaction.compact_next():
        pass


def names(server: FakeServer, kind: str) -> list[int]:
    """The sizes in the names of groups, or of tiles."""
    prefix = f"audit-{kind}-"
    found = (str(body["metadata"]["name"]) for body in server.all("configmaps"))
    return [int(name.removeprefix(prefix)) for name in found if name.startswith(prefix)]


def read(server: FakeServer) -> list[RecordedEntry]:
    """Verify the stored log as an outsider does; returns its entries."""
    entries: list[bytes] = []
    report, _ = verify(
        StoredLog(lambda: server.all("configmaps")),
        SIGNER.verifier(),
        observe=lambda _, encoded: entries.append(encoded),
    )
    assert report.is_sound, report.findings
    assert report.unproven_from == len(entries)
    return [decode_entry(encoded) for encoded in entries]


def ids(server: FakeServer) -> list[str]:
    """The ids of the stored log's entries."""
    return [one.id for one in read(server)]


async def test_full_bundles_are_compacted_and_their_groups_go() -> None:
    """What is over the edge of the last bundle stays a group; the log is the same to whoever reads it."""
    server = FakeServer(LoopClock())
    log = writer(server)
    async with running(log):
        await fill(log, 0, 600)
        before = read(server)
        await compact_all(log)
    assert names(server, "tile") == [0, 256]
    assert names(server, "group") == [480, 540]
    assert read(server) == before
    assert (log.sealed, log.compaction.bundles_written) == (512, 2)


async def test_young_groups_are_left_alone() -> None:
    """A writer that slept a moment must still meet its rival's group under the name that it would take."""
    server = FakeServer(LoopClock())
    log = writer(server)
    async with running(log):
        await fill(log, 0, 300)
        assert not await log.compaction.compact_next()
        await asyncio.sleep(GRACE_SECONDS - 1)
        assert not await log.compaction.compact_next()


async def test_the_newest_group_is_never_deleted() -> None:
    """Not even where a bundle has all of it: the head is found by it."""
    server = FakeServer(LoopClock())
    log = writer(server)
    async with running(log):
        await fill(log, 0, 256)
        await compact_all(log)
        assert names(server, "group") == [240]
        again = writer(server)
        async with running(again):
            assert await again.commit([entry(256)]) == 256
            await compact_all(again)
    assert names(server, "group") == [256]
    assert len(ids(server)) == 257


async def test_a_log_in_both_forms_is_taken_up_without_its_entries() -> None:
    """One bundle, the list of the others without contents, and the groups behind them."""
    server = FakeServer(LoopClock())
    log = writer(server)
    async with running(log):
        await fill(log, 0, 2000)
        await compact_all(log)
    again, asked = writer(server), len(server.requests)
    await again.open()
    requests = [str(request) for request in server.requests[asked:]]
    assert len(requests) <= 6, requests
    assert (again.size, again.sealed) == (2000, 1792)
    async with running(again):
        assert await again.commit([entry(2000)]) == 2000
    assert ids(server) == [f"uid-{number}/{number}" for number in range(2001)]


async def test_a_compacted_step_is_not_recorded_again() -> None:
    """After a restart too, before and after the living subjects are known."""
    server = FakeServer(LoopClock())
    log = writer(server)
    async with running(log):
        await fill(log, 0, 300)
        await compact_all(log)
    again = writer(server)
    async with running(again):
        assert await again.commit([entry(7)]) == 7
    third = writer(server)
    async with running(third):
        third.retain({"uid-8"})
        assert await third.commit([entry(8)]) == 8
    assert len(ids(server)) == 300


async def test_a_compacted_announcement_is_found_until_the_status_knows_it() -> None:
    """However old it is; its entry is read only where somebody needs it."""
    server = FakeServer(LoopClock())
    log = writer(server)
    async with running(log):
        await log.commit([entry(0, subject="open", credential={"id": "one", "issuance": 3})])
        await fill(log, 1, 300)
        await compact_all(log)
    again = writer(server)
    await again.open()
    again.retain({"open"})
    asked = len(server.requests)
    assert await again.announced("gone", 0) is None
    found = await again.announced("open", 2)
    assert found is not None
    assert (found[0], found[1].data["credential"]["id"]) == (0, "one")
    assert len(server.requests) == asked + 1
    assert await again.announced("open", 3) is None


@pytest.mark.parametrize("has_recollection", [True, False])
async def test_compacted_revocations_are_told_on_start(*, has_recollection: bool) -> None:
    """From the recollections, or from the entries where a bundle has none."""
    server = FakeServer(LoopClock())
    log = writer(server)
    async with running(log):
        await log.commit([entry(0, revoked={"stage": "sandbox"})])
        await fill(log, 1, 300)
        await compact_all(log)
    if not has_recollection:
        for body in server.objects.values():
            body["metadata"].pop("annotations", None)
    told: list[RecordedEntry] = []
    again = ConfigMapLog(FakeApi(server), HOME, SIGNER, on_read=told.append)
    async with running(again):
        assert [one.data["revoked"] for one in told if "revoked" in one.data] == [{"stage": "sandbox"}]
        assert await again.commit([entry(9)]) == 9


def without_revocation(packed: str) -> str:
    """What is kept of a bundle, as if its first entry had been another."""
    (_, *others) = unpack(packed) or ()
    rows = [Recollection("x/0", "x"), *others]
    compressor = zlib.compressobj(wbits=31)
    return base64.b64encode(compressor.compress(msgspec.json.encode(rows)) + compressor.flush()).decode()


@pytest.mark.parametrize("forge", [without_revocation, lambda _: "forged"], ids=["rows", "nothing"])
async def test_a_changed_recollection_is_not_believed(forge: Callable[[str], str]) -> None:
    """Anyone who writes past the policies can change an annotation: the bundle is read instead."""
    server = FakeServer(LoopClock())
    log = writer(server)
    async with running(log):
        await log.commit([entry(0, revoked={"stage": "sandbox"})])
        await fill(log, 1, 600)
        await compact_all(log)
    annotations = first_tile(server)["metadata"]["annotations"]
    annotations[ANNOTATION] = forge(annotations[ANNOTATION])
    report, _ = verify(StoredLog(lambda: server.all("configmaps")), SIGNER.verifier())
    assert [finding.flaw for finding in report.findings] == [Flaw.RECOLLECTION_REPLACED]
    told: list[RecordedEntry] = []
    again = ConfigMapLog(FakeApi(server), HOME, SIGNER, on_read=told.append)
    async with running(again):
        assert [one.data["revoked"] for one in told if "revoked" in one.data] == [{"stage": "sandbox"}]
        assert await again.commit([entry(0, revoked={"stage": "sandbox"})]) == 0


async def test_one_bundle_s_recollection_is_not_another_s() -> None:
    """It is sealed for the place that it is at."""
    server = FakeServer(LoopClock())
    log = writer(server)
    async with running(log):
        await log.commit([entry(0, revoked={"stage": "sandbox"})])
        await fill(log, 1, 600)
        await compact_all(log)
    first, second = (
        server.objects[Place("configmaps", HOME, f"audit-tile-{at:016d}")]["metadata"] for at in (0, 256)
    )
    first["annotations"] = dict(second["annotations"])
    told: list[RecordedEntry] = []
    await ConfigMapLog(FakeApi(server), HOME, SIGNER, on_read=told.append).open()
    assert [one.data["revoked"] for one in told if "revoked" in one.data] == [{"stage": "sandbox"}]


@pytest.mark.parametrize("first", [0, 256])
async def test_a_log_without_one_of_its_bundles_is_not_taken_up(first: int) -> None:
    """What that one revoked would be forgotten; the hashes of the others fit all the same."""
    server = FakeServer(LoopClock())
    log = writer(server)
    async with running(log):
        await fill(log, 0, 900)
        await compact_all(log)
    server.lose("configmaps", f"audit-tile-{first:016d}", HOME)
    with pytest.raises(BrokenLogError, match=f"the bundle from {first} on is missing"):
        await writer(server).open()


async def test_groups_that_were_hidden_are_read_all_the_same() -> None:
    """They are listed by a label, which can be taken off; behind the last the next is asked for by name."""
    server = FakeServer(LoopClock())
    log = writer(server)
    async with running(log):
        await fill(log, 0, 300)
        await log.commit([entry(300, revoked={"stage": "sandbox"})])
        await log.commit([entry(301)])
    for size in (300, 301):
        server.objects[Place("configmaps", HOME, f"audit-group-{size:016d}")]["metadata"]["labels"] = {}
    told: list[RecordedEntry] = []
    again = ConfigMapLog(FakeApi(server), HOME, SIGNER, on_read=told.append)
    async with running(again):
        assert [one.data["revoked"] for one in told if "revoked" in one.data] == [{"stage": "sandbox"}]
        assert await again.commit([entry(302)]) == 302


@pytest.mark.parametrize("after_effect", [False, True])
async def test_a_crash_at_any_request_of_a_compaction_is_repaired(*, after_effect: bool) -> None:
    """The next process finishes it; what was committed is the same, byte for byte."""
    crashes = 0
    while True:
        server, process = FakeServer(LoopClock()), Process()
        log = writer(server, process=process)
        async with running(log):
            await fill(log, 0, 900)
        before = read(server)
        await asyncio.sleep(GRACE_SECONDS + 1)
        fault = Fault(len(server.requests) + crashes, after_effect=after_effect, kills=True)
        server.faults = [fault]
        work = asyncio.create_task(compact_all(log))
        await asyncio.wait({work}, timeout=60)
        work.cancel()
        await asyncio.wait({work})
        server.faults.clear()
        assert read(server) == before
        again = writer(server)
        async with running(again):
            await again.commit([entry(900)])
            await compact_all(again)
        assert read(server)[:900] == before
        assert names(server, "tile") == [0, 256, 512]
        assert names(server, "group") == [720, 780, 840, 900]
        if fault.struck is None:
            break
        crashes += 1
    assert crashes >= 2 + 3 * (1 + 4)


async def test_two_operators_compact_and_write_one_log() -> None:
    """Both believe that they lead: each bundle is made once, and nothing is lost or told twice."""
    server = FakeServer(LoopClock())
    one, two = writer(server), writer(server)

    async def work(log: ConfigMapLog, name: str) -> None:
        for number in range(80):
            await log.commit([entry(number, subject=f"{name}{part}") for part in range(7)])
            await asyncio.sleep(1)

    async with running(one, two):
        compacting = [asyncio.create_task(log.compaction.run()) for log in (one, two)]
        await asyncio.gather(work(one, "a"), work(two, "b"))
        await asyncio.sleep(GRACE_SECONDS * 2)
        for task in compacting:
            task.cancel()
        await asyncio.wait(compacting)
    told = ids(server)
    subjects = [f"{name}{part}" for name in "ab" for part in range(7)]
    assert sorted(told) == sorted(f"{subject}/{number}" for subject in subjects for number in range(80))
    assert names(server, "tile") == [0, 256, 512, 768]


class Sleepy(FakeApi):
    """A process that is stopped while its next write is on its way."""

    def __init__(self, server: FakeServer) -> None:
        super().__init__(server)
        self.may_write = asyncio.Event()
        self.may_write.set()

    async def call(  # noqa: PLR0913 - as the real one
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = JSON,
        accept: str = JSON,
    ) -> Any:
        """Wait before a write."""
        if method == "POST":
            await self.may_write.wait()
        return await super().call(method, path, body, query=query, content_type=content_type, accept=accept)


async def test_a_writer_that_slept_cannot_fork_the_log() -> None:
    """Its group's name was free again: it sees that itself, takes the group back, goes on from the head."""
    server = FakeServer(LoopClock())
    api = Sleepy(server)
    sleeper, other = ConfigMapLog(api, HOME, SIGNER, on_read=lambda _: None), writer(server)
    async with running(sleeper, other):
        await fill(sleeper, 0, 100)
        api.may_write.clear()
        late = asyncio.create_task(sleeper.commit([entry(1000)]))
        await asyncio.sleep(0.1)
        await fill(other, 100, 700)
        await compact_all(other)
        assert names(server, "group")[0] > 100
        api.may_write.set()
        assert await late == 700
        assert await sleeper.commit([entry(1001)]) == 701
    assert ids(server)[-2:] == ["uid-1000/1000", "uid-1001/1001"]
    assert len(ids(server)) == 702


async def test_a_writer_that_was_idle_looks_before_it_writes() -> None:
    """It never even signs a head that the log has gone past."""
    server = FakeServer(LoopClock())
    idle, other = writer(server), writer(server)
    async with running(idle, other):
        await fill(idle, 0, 100)
        await fill(other, 100, 700)
        await compact_all(other)
        assert await idle.commit([entry(700)]) == 700
    assert len(ids(server)) == 701
    stale = [one for one in server.requests if one.method == "POST" and one.body["metadata"]["name"] == STALE]
    assert len(stale) == 1, "the other's, and none of the idle one's"


def edit(server: FakeServer) -> None:
    """A group says something else."""
    body = next(body for body in server.objects.values() if body["metadata"]["name"].endswith("0060"))
    body["data"]["entries"] = body["data"]["entries"].replace('"data":{}', '"data":{"a":1}', 1)


def occupy(server: FakeServer) -> None:
    """Another bundle stands under the name."""
    name = "audit-tile-0000000000000000"
    server.plant(("configmaps", HOME, name), {"metadata": {"name": name}, "data": {"parts": "1"}})


@pytest.mark.parametrize("tamper", [edit, occupy])
async def test_what_is_not_what_was_committed_is_not_compacted(tamper: Callable[[FakeServer], None]) -> None:
    """No head is signed over it and no group of it is deleted; writing goes on."""
    server = FakeServer(LoopClock())
    log = writer(server)
    async with running(log):
        await fill(log, 0, 300)
        tamper(server)
        groups = names(server, "group")
        with pytest.raises(BrokenLogError):
            await compact_all(log)
        assert names(server, "group") == groups
        assert log.sealed == 0


async def test_an_announcement_whose_bundle_is_not_readable_is_an_error() -> None:
    """Nothing is decided on what cannot be read."""
    server = FakeServer(LoopClock())
    log = writer(server)
    async with running(log):
        await log.commit([entry(0, subject="open", credential={"id": "one", "issuance": 1})])
        await fill(log, 1, 600)
        await compact_all(log)
    again = writer(server)
    await again.open()
    server.lose("configmaps", "audit-tile-0000000000000000", HOME)
    with pytest.raises(PortError):
        await again.announced("open", 0)


async def test_the_entry_of_a_step_is_read_back_wherever_it_stands() -> None:
    """Out of its group, out of its bundle, after a restart; of a step that never was there is none."""
    server = FakeServer(LoopClock())
    log = writer(server)
    async with running(log):
        await fill(log, 0, 300)
        assert await log.recorded("uid-7", "other") is None
        for compacts in (False, True):
            if compacts:
                await compact_all(log)
                assert log.sealed > 7
            for number in (7, 299):
                found = await log.recorded(f"uid-{number}", str(number))
                assert found is not None
                assert (found[0], found[1].id) == (number, f"uid-{number}/{number}")
    again = writer(server)
    await again.open()
    again.retain({"uid-7"})
    found = await again.recorded("uid-7", "7")
    assert found is not None
    assert (found[0], found[1].id) == (7, "uid-7/7")
    server.lose("configmaps", "audit-tile-0000000000000000", HOME)
    with pytest.raises(PortError):
        await again.recorded("uid-7", "7")


def first_tile(server: FakeServer) -> Object:
    """The first bundle as it is stored."""
    return next(
        body for body in server.objects.values() if body["metadata"]["name"] == "audit-tile-0000000000000000"
    )


async def test_what_no_annotation_can_hold_is_read_from_the_entries() -> None:
    """Large evidence of revocations makes a start slower, and nothing else."""
    server = FakeServer(LoopClock())
    log = writer(server)
    async with running(log):
        for number in range(300):
            noise = "".join(f"{hash((number, at)) & 0xFFFFFFFF:08x}" for at in range(500))
            await log.commit([entry(number, revoked={"serial": noise})])
        await compact_all(log)
    assert ANNOTATION not in first_tile(server)["metadata"]["annotations"]
    told: list[RecordedEntry] = []
    await ConfigMapLog(FakeApi(server), HOME, SIGNER, on_read=told.append).open()
    assert len([one for one in told if "revoked" in one.data]) >= 300
