from __future__ import annotations

import asyncio
import base64
import copy
import datetime as dt
import gzip
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from pilot_identity.adapters import audit_archiving
from pilot_identity.adapters.archive import DirectoryArchive
from pilot_identity.adapters.audit_archiving import Archiver, Archiving
from pilot_identity.adapters.audit_log import ConfigMapLog
from pilot_identity.core.audit.chain import GRACE_SECONDS
from pilot_identity.core.audit.checkpoint import CheckpointError
from pilot_identity.core.audit.findings import Flaw
from pilot_identity.core.audit.groups import BrokenLogError
from pilot_identity.core.audit.reader import ConfigMapLog as StoredLog
from pilot_identity.core.audit.tiles import WIDTH
from pilot_identity.core.audit.verify import verify
from pilot_identity.ports import NameTaken, Unavailable
from tests.fakes.clock import START
from tests.fakes.old_log import BUNDLES, LEFT, OLD, SIGNER, World, archive_all, entry, running, tiled
from tests.fakes.server import HOME, FakeApi, Object

pytestmark = pytest.mark.looptime


@pytest.fixture
async def world(tmp_path: Path) -> World:
    """Nothing is there yet."""
    return World(tmp_path)


async def test_old_bundles_leave_but_for_the_newest(world: World) -> None:
    """The archive is a whole log by itself; with what is left in the cluster it is the log that was."""
    await world.fill()
    _, before = world.read(with_archive=False)
    log = world.log()
    await log.open()
    archiver = world.archiver(log)
    await archive_all(archiver)
    assert world.names("tile") == [LEFT, LEFT + WIDTH]
    assert world.names("archived") == [archiver.size] == [LEFT]
    report, entries = world.read(with_archive=True)
    assert (entries, report.is_whole) == (before, True)
    alone, _ = verify(tiled(world.volume), SIGNER.verifier())
    assert (alone.is_sound, alone.entries) == (True, LEFT)
    assert (world.volume / "vkey").read_text() == f"{SIGNER.verifier()}\n"


async def test_without_the_archive_the_rest_is_proven_from_its_signed_edge(world: World) -> None:
    """And it is told where that begins."""
    await world.fill()
    _, before = world.read(with_archive=False)
    log = world.log()
    await log.open()
    await archive_all(world.archiver(log))
    report, entries = world.read(with_archive=False)
    assert (report.first, report.is_whole, report.entries) == (LEFT, False, len(before))
    assert entries == before[LEFT:]


async def test_young_bundles_stay(world: World) -> None:
    """By the time of their ConfigMaps; looking costs three requests."""
    await world.fill()
    log = world.log()
    await log.open()
    archiver = Archiver(
        FakeApi(world.server),
        HOME,
        Archiving(DirectoryArchive(world.volume), 3 * OLD),
        signer=SIGNER,
        remembered=log.remembered,
        clock=world.clock,
    )
    asked = len(world.server.requests)
    assert not await archiver.archive_next()
    assert len(world.server.requests) == asked + 3
    assert list(world.volume.iterdir()) == []


async def test_a_log_goes_on_where_its_beginning_is_archived(world: World) -> None:
    """It is taken up with no look at the archive, extended, compacted and archived further."""
    await world.fill()
    log = world.log()
    await log.open()
    await archive_all(world.archiver(log))
    (world.volume / "checkpoint").rename(world.volume / "elsewhere")
    again = world.log()
    async with running(again):
        assert again.size == BUNDLES * WIDTH + 40
        for _ in range(2 * WIDTH // 64):
            await again.commit([entry(again.size + number) for number in range(64)])
        await asyncio.sleep(GRACE_SECONDS + 1)
        while await again.compaction.compact_next():
            pass
        await asyncio.sleep(OLD.total_seconds())
        await archive_all(world.archiver(again))
    assert world.names("archived") == [LEFT + 2 * WIDTH]
    report, entries = world.read(with_archive=True)
    assert (report.is_whole, len(entries)) == (True, again.size)


async def test_steps_of_living_objects_are_recorded_once_though_archived(world: World) -> None:
    """After a restart too: what a start must know left etcd in a smaller form."""
    await world.fill(entry(0, subject="living"), entry(1, subject="gone"))
    log = world.log()
    await log.open()
    log.retain({"living"})
    await archive_all(world.archiver(log))
    again = world.log()
    async with running(again):
        assert await again.commit([entry(0, subject="living")]) == 0
        assert again.size == BUNDLES * WIDTH + 40


async def test_an_archived_announcement_is_read_from_the_archive(world: World) -> None:
    """Where a status does not know it; while the archive is away nothing is decided on it."""
    await world.fill(entry(0, subject="open", credential={"id": "one", "issuance": 3}))
    log = world.log()
    await log.open()
    log.retain({"open"})
    await archive_all(world.archiver(log))
    again = world.log()
    await again.open()
    found = await again.announced("open", 2)
    assert found is not None
    assert (found[0], found[1].data["credential"]["id"]) == (0, "one")
    without = ConfigMapLog(FakeApi(world.server), HOME, SIGNER, on_read=lambda _: None)
    await without.open()
    with pytest.raises(Unavailable, match="neither in the cluster nor in the archive"):
        await without.announced("open", 2)


@pytest.mark.parametrize("at", [2, 40, -1])
async def test_an_archived_announcement_with_one_byte_changed_is_not_decided_on(
    world: World, at: int
) -> None:
    """What the archive says is hashed again: by the edge in the cluster, which the log's key signed."""
    await world.fill(entry(0, subject="open", credential={"id": "one", "issuance": 3}))
    log = world.log()
    await log.open()
    log.retain({"open"})
    await archive_all(world.archiver(log))
    file = world.volume / "tile" / "entries" / "000"
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)
    again = world.log()
    await again.open()
    with pytest.raises(Unavailable, match="entry 0 cannot be read: the archive's tile/entries/000"):
        await again.announced("open", 2)
    content[at] ^= 1
    file.write_bytes(content)
    assert await again.announced("open", 2) is not None


@pytest.mark.parametrize("hours, is_told", [(2000, True), (1, False)])
async def test_archived_revocations_are_told_on_start_until_they_lapse(
    hours: int, world: World, *, is_told: bool
) -> None:
    """What lapsed by itself takes no room."""
    lapses = START + dt.timedelta(hours=hours)
    revoked = {
        "stage": "sandbox",
        "namespace": "team-a",
        "at": "2026-01-01T00:00:00Z",
        "certificates": [{"serial": "ab", "notAfter": lapses.strftime("%Y-%m-%dT%H:%M:%SZ")}],
    }
    await world.fill(entry(0, revoked=revoked))
    log = world.log()
    await log.open()
    await archive_all(world.archiver(log))
    world.told.clear()
    await world.log().open()
    assert [one.data["revoked"]["stage"] for one in world.told if "revoked" in one.data] == [
        "sandbox"
    ] * is_told


REVOKED = {
    "stage": "sandbox",
    "namespace": "team-a",
    "at": "2026-01-01T00:00:00Z",
    "certificates": [{"serial": "ab", "notAfter": "2099-01-01T00:00:00Z"}],
}


def forget(record: Object) -> None:
    """Take all rows out of what is kept."""
    record["binaryData"]["kept.gz"] = base64.b64encode(gzip.compress(b"[]")).decode()


def cut(record: Object) -> None:
    """Leave nothing that can be read."""
    record["binaryData"]["kept.gz"] = "AAAA"


def unseal(record: Object) -> None:
    """As another version wrote it."""
    del record["data"]["seal"]


@pytest.mark.parametrize("tamper", [forget, cut, unseal])
async def test_what_is_kept_and_not_sealed_is_read_from_the_archive(
    tamper: Callable[[Object], None], world: World
) -> None:
    """A start forgets no revocation and no step, and the next record is whole; with no archive it fails."""
    await world.fill(entry(0, subject="living", revoked=REVOKED))
    log = world.log()
    await log.open()
    await archive_all(world.archiver(log))
    record = next(body for body in world.server.objects.values() if "archived" in body["metadata"]["name"])
    tamper(record)
    source = StoredLog(lambda: world.server.all("configmaps"))
    report, _ = verify(source, SIGNER.verifier())
    assert [finding.flaw for finding in report.findings] == [Flaw.RECOLLECTION_REPLACED]
    world.told.clear()
    again = world.log()
    async with running(again):
        assert [one.data["revoked"] for one in world.told if "revoked" in one.data] == [REVOKED]
        assert await again.commit([entry(0, subject="living", revoked=REVOKED)]) == 0
        for _ in range(2 * WIDTH // 64):
            await again.commit([entry(again.size + number) for number in range(64)])
        await asyncio.sleep(GRACE_SECONDS + 1)
        while await again.compaction.compact_next():
            pass
        await asyncio.sleep(OLD.total_seconds())
        await archive_all(world.archiver(again))
    assert world.read(with_archive=True)[0].is_whole
    world.told.clear()
    blind = ConfigMapLog(FakeApi(world.server), HOME, SIGNER, on_read=world.told.append)
    await blind.open()
    assert [one.data["revoked"] for one in world.told if "revoked" in one.data] == [REVOKED]
    tamper(next(body for body in world.server.objects.values() if "archived" in body["metadata"]["name"]))
    with pytest.raises(BrokenLogError, match="not sealed by the log's key; no archive is named"):
        await blind.open()


async def test_an_archive_that_is_not_this_log_s_is_not_believed_either(world: World) -> None:
    """What it has is hashed to the signed edge before anything of it counts."""
    await world.fill(entry(0, revoked=REVOKED))
    log = world.log()
    await log.open()
    await archive_all(world.archiver(log))
    forget(next(body for body in world.server.objects.values() if "archived" in body["metadata"]["name"]))
    bundle = world.volume / "tile" / "entries" / "000"
    bundle.write_bytes(bundle.read_bytes().replace(b"sandbox", b"sandbag"))
    with pytest.raises(BrokenLogError, match="are not those of this log"):
        await world.log().open()
    bundle.unlink()
    with pytest.raises(BrokenLogError, match="are not those of this log"):
        await world.log().open()


def put(path: str, content: bytes) -> Callable[[World], None]:
    """A file of somebody else."""

    def spoil(world: World) -> None:
        file = world.volume / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    return spoil


def tamper(world: World) -> None:
    """A bundle in etcd has another entry."""
    body = tile(world, 1)
    body["binaryData"]["leaves"] = tile(world, 0)["binaryData"]["leaves"]


def unmount(world: World) -> None:
    """The volume is not there."""
    world.volume.rmdir()


def tile(world: World, number: int) -> Object:
    """A bundle as it is stored."""
    name = f"audit-tile-{number * WIDTH:016d}"
    return next(body for body in world.server.objects.values() if body["metadata"]["name"] == name)


@pytest.mark.parametrize(
    "spoil, error, says",
    [
        (put("tile/entries/002", b"foreign"), NameTaken, "tile/entries/002 has another content"),
        (put("vkey", b"another.example/log+00000000+AAAA"), NameTaken, "vkey has another content"),
        (put("tile/1/000.p/3", b"foreign"), NameTaken, "tile/1/000.p/3 has another content"),
        (put("checkpoint", b"foreign"), CheckpointError, "an empty line before its signatures"),
        (tamper, BrokenLogError, "are not those of their tile"),
        (unmount, Unavailable, "No such file or directory"),
    ],
    ids=["bundle", "key", "tile", "head", "etcd", "volume"],
)
async def test_what_is_not_as_it_must_be_stops_it_before_anything_leaves(
    spoil: Callable[[World], None], error: type[Exception], says: str, world: World
) -> None:
    """The cluster keeps all, and what stands in the way is left."""
    await world.fill()
    log = world.log()
    await log.open()
    spoil(world)
    with pytest.raises(error, match=says):
        await world.archiver(log).archive_next()
    assert len(world.names("tile")) == BUNDLES
    assert world.names("archived") == []


async def test_a_copy_that_went_bad_keeps_what_is_left_in_the_cluster(world: World) -> None:
    """A record says that a bundle is archived; it is compared all the same before it is deleted."""
    await world.fill()
    kept = [dict(tile(world, number)) for number in range(2)]
    log = world.log()
    await log.open()
    await archive_all(world.archiver(log))
    for body in kept:
        world.server.plant(("configmaps", HOME, body["metadata"]["name"]), body)
    file = world.volume / "tile" / "entries" / "001"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(BrokenLogError, match="tile/entries/001"):
        await world.archiver(log).archive_next()
    assert world.names("tile")[:2] == [0, WIDTH]


async def test_a_record_that_was_not_signed_is_not_gone_on_from(world: World) -> None:
    """Neither by a start nor by the archiver."""
    await world.fill()
    log = world.log()
    await log.open()
    await archive_all(world.archiver(log))
    record = next(body for body in world.server.objects.values() if "archived" in body["metadata"]["name"])
    record["data"]["edge"] = f"{bytes(32).hex()}\n"
    with pytest.raises(BrokenLogError):
        await world.log().open()
    with pytest.raises(BrokenLogError):
        await world.archiver(log).archive_next()


async def test_a_writer_that_slept_until_its_place_was_archived_ends(world: World) -> None:
    """The name of its next group is free again, and even the bundle that had its place is gone."""
    log = world.log()
    async with running(log):
        await log.commit([entry(0)])
        sleeper = world.log()
        await sleeper.open()
        for at in range(1, BUNDLES * WIDTH, 60):
            await log.commit([entry(number) for number in range(at, at + 60)])
        await asyncio.sleep(GRACE_SECONDS + 1)
        while await log.compaction.compact_next():
            pass
        await asyncio.sleep(OLD.total_seconds())
        await archive_all(world.archiver(log))
        awake = asyncio.create_task(sleeper.run())
        with pytest.raises(BrokenLogError, match="this writer slept at 1"):
            await sleeper.commit([entry(9999)])
        awake.cancel()
    world.read(with_archive=True)


async def test_a_blockage_is_told_once_and_its_end_too(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """A line for each cause, a figure for alerts; it goes on by itself when the cause is gone."""
    await world.fill()
    log = world.log()
    await log.open()
    put("tile/entries/002", b"foreign")(world)
    archiver = world.archiver(log)
    with caplog.at_level(logging.INFO):
        task = asyncio.create_task(archiver.run())
        try:
            await asyncio.sleep(200)
            blocked = [archiver.blockage.is_there]
            (world.volume / "tile" / "entries" / "002").unlink()
            await asyncio.sleep(200)
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
    blocked.append(archiver.blockage.is_there)
    assert blocked == [True, False]
    assert archiver.size == LEFT
    lines = [record.message for record in caplog.records if "archived" in record.message]
    assert [line.partition(":")[0] for line in lines] == ["the audit log cannot be archived"] * 2
    assert "tile/entries/002 has another content" in lines[0]
    assert lines[1].endswith("this is over")


async def test_compaction_that_is_blocked_is_told(world: World) -> None:
    """A foreign ConfigMap under a bundle's name: a figure, and it goes on when that is gone."""
    log = world.log()
    name = "audit-tile-0000000000000000"
    async with running(log):
        for at in range(0, 300, 60):
            await log.commit([entry(number) for number in range(at, at + 60)])
        foreign = {"metadata": {"name": name}, "data": {"parts": "1"}}
        world.server.plant(("configmaps", HOME, name), foreign)
        task = asyncio.create_task(log.compaction.run())
        try:
            await asyncio.sleep(GRACE_SECONDS + 20)
            assert "is no bundle" in log.compaction.blockage.cause
            world.server.lose("configmaps", name, HOME)
            await asyncio.sleep(20)
            assert not log.compaction.blockage.is_there
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
    assert world.names("tile") == [0]


async def test_the_archive_s_head_never_goes_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process got further before it was killed; a smaller batch does not hide what it wrote."""
    await world.fill()
    log = world.log()
    await log.open()
    before = copy.deepcopy(world.server.objects)
    await archive_all(world.archiver(log))
    head = (world.volume / "checkpoint").read_bytes()
    world.server.objects = before
    monkeypatch.setattr(audit_archiving, "BATCH", 1)
    assert await world.archiver(log).archive_next()
    assert world.names("archived") == [WIDTH]
    assert (world.volume / "checkpoint").read_bytes() == head
