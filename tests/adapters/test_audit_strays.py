from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from pilot_identity.adapters.audit_log import INSPECT_SECONDS, LOOK_SECONDS, ConfigMapLog
from pilot_identity.adapters.audit_strays import LOOK_SECONDS as SETTLE_SECONDS
from pilot_identity.adapters.audit_strays import Strays
from pilot_identity.core.audit.compacted import Compacted, TileName
from pilot_identity.core.audit.entries import EntryType, RecordedEntry, encode_entry
from pilot_identity.core.audit.groups import Group, extend
from pilot_identity.core.audit.merkle import Frontier, leaf_hash
from pilot_identity.core.audit.reader import ConfigMapLog as StoredLog
from pilot_identity.core.audit.tiles import WIDTH
from pilot_identity.core.audit.verify import verify
from pilot_identity.core.decisions.plan import Notice
from tests.adapters.test_compaction import SIGNER, compact_all, entry, fill, names, read, running, writer
from tests.fakes.clock import LoopClock
from tests.fakes.server import HOME, FakeServer, Fault, Object, Place

pytestmark = pytest.mark.looptime

FOUND_SECONDS = INSPECT_SECONDS + LOOK_SECONDS + SETTLE_SECONDS + 2
LATE = 100


class Notes:
    """A recorder that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, str, int]] = []

    def tell(self, notice: Notice, index: int) -> None:
        """Keep type, reason, the object's name and the entry's index."""
        self.told.append((notice.type, str(notice.reason), notice.owner.key.name, index))


def late_group(*numbers: int) -> Group:
    """What a writer that knew the first 100 entries would have written."""
    frontier = Frontier()
    for number in range(LATE):
        frontier.append(leaf_hash(encode_entry(entry(number), SIGNER.name)))
    return extend(frontier, [encode_entry(entry(number), SIGNER.name) for number in numbers], SIGNER)[0]


async def apply_late(log: ConfigMapLog, *numbers: int) -> str:
    """The API server carries out what it was asked long ago; returns the name."""
    return (await log.follower.groups.create(late_group(*numbers))).group.name


def flaws(server: FakeServer) -> list[str]:
    """What an outsider finds in the stored log."""
    report, _ = verify(StoredLog(lambda: server.all("configmaps")), SIGNER.verifier())
    return [str(one.flaw) for one in report.findings]


def removals(server: FakeServer) -> list[RecordedEntry]:
    """The entries that tell of a stray."""
    return [one for one in read(server) if one.type == EntryType.LOG_STRAY_REMOVED]


async def compacted(server: FakeServer) -> ConfigMapLog:
    """A log of 700 entries, whose first 512 are in bundles."""
    log = writer(server)
    async with running(log):
        await fill(log, 0, LATE)
        await fill(log, LATE, 700)
        await compact_all(log)
    return log


async def test_a_write_that_was_carried_out_late_is_told_and_removed() -> None:
    """Readers see a fork as long as it stands; then an entry says what it held, and the log is sound."""
    server, notes = FakeServer(LoopClock()), Notes()
    log = await compacted(server)
    strays = Strays(log, HOME, notes, server.clock)
    async with running(log):
        clearing = asyncio.create_task(strays.run())
        name = await apply_late(log, 5000, 5001)
        assert flaws(server)
        await asyncio.sleep(FOUND_SECONDS)
        clearing.cancel()
    assert LATE not in names(server, "group")
    [removal] = removals(server)
    assert removal.subject == f"ConfigMap {HOME}/{name}"
    assert (removal.data["extends"], removal.data["entries"]) == (LATE, 2)
    assert [one["id"] for one in removal.data["held"]] == ["uid-5000/5000", "uid-5001/5001"]
    assert removal.data["checkpoint"] == late_group(5000, 5001).note
    assert notes.told == [("Warning", "StrayRemoved", name, 700)]
    assert (len(strays), strays.removed) == (0, 1)


async def test_a_stray_is_removed_after_a_restart() -> None:
    """A start finds it among the groups, whoever left it."""
    server = FakeServer(LoopClock())
    await apply_late(await compacted(server), 5000)
    again = writer(server)
    strays = Strays(again, HOME, Notes(), server.clock)
    async with running(again):
        again.retain(set())
        assert len(strays) == 1
        clearing = asyncio.create_task(strays.run())
        await asyncio.sleep(SETTLE_SECONDS + 1)
        clearing.cancel()
    assert len(removals(server)) == 1
    assert not flaws(server)


@pytest.mark.parametrize("after_effect", [False, True])
async def test_a_crash_at_any_request_of_a_removal_is_repaired(*, after_effect: bool) -> None:
    """It is recorded before it goes, once, and it goes."""
    crashes = 0
    while True:
        server = FakeServer(LoopClock())
        await apply_late(await compacted(server), 5000)
        log = writer(server)
        async with running(log):
            fault = Fault(len(server.requests) + crashes, after_effect=after_effect, kills=False)
            server.faults = [fault]
            [stored] = log.follower.doubtful.values()
            await asyncio.gather(
                Strays(log, HOME, Notes(), server.clock).settle(stored), return_exceptions=True
            )
            is_recorded = any(
                EntryType.LOG_STRAY_REMOVED in body.get("data", {}).get("entries", "")
                for body in server.all("configmaps")
            )
            assert is_recorded or LATE in names(server, "group")
            server.faults.clear()
        again = writer(server)
        async with running(again):
            for stored in tuple(again.follower.doubtful.values()):
                await Strays(again, HOME, Notes(), server.clock).settle(stored)
        assert len(removals(server)) == 1
        assert LATE not in names(server, "group")
        if fault.struck is None:
            break
        crashes += 1
    assert crashes >= 5


async def test_what_others_compacted_and_did_not_delete_goes_without_a_word() -> None:
    """It says what the bundles say: a writer ended before it deleted it."""
    server = FakeServer(LoopClock())
    log = await compacted(server)
    async with running(log):
        clearing = asyncio.create_task(Strays(log, HOME, Notes(), server.clock).run())
        await apply_late(log, *range(LATE, 120))
        assert LATE in names(server, "group")
        await asyncio.sleep(FOUND_SECONDS)
        await compact_all(log)
        clearing.cancel()
    assert LATE not in names(server, "group")
    assert not removals(server)


def spoil_head(body: Object) -> None:
    """A bundle's head is not signed by the log's key."""
    body["data"]["checkpoint"] = body["data"]["checkpoint"].replace("\n\n", "\nx\n\n", 1)


def spoil_entries(body: Object) -> None:
    """A bundle's tile is that of its entries, and its edge that of its head; but not of these entries."""
    name = TileName.parse(body["metadata"]["name"])
    whole = Compacted.from_config_maps([(name, body["data"], body["binaryData"])])
    entries = (b"{}", *whole.entries[1:])
    forged = replace(whole, entries=entries, leaves=tuple(leaf_hash(one) for one in entries))
    [(_, data, binary)] = forged.config_maps()
    body["data"], body["binaryData"] = dict(data), dict(binary)


@pytest.mark.parametrize("first", [0, WIDTH])
@pytest.mark.parametrize("spoil", [spoil_head, spoil_entries])
async def test_nothing_is_removed_on_the_word_of_a_bundle_that_was_forged(
    spoil: Callable[[Object], None], first: int
) -> None:
    """Then it may be the bundle that is foreign: both are left to people."""
    server = FakeServer(LoopClock())
    log = await compacted(server)
    strays = Strays(log, HOME, Notes(), server.clock)
    async with running(log):
        clearing = asyncio.create_task(strays.run())
        stray = replace(late_group(5000), extends=first + 7)
        await log.follower.groups.create(stray)
        spoil(server.objects[Place("configmaps", HOME, str(TileName(first)))])
        await asyncio.sleep(FOUND_SECONDS)
        clearing.cancel()
    assert first + 7 in names(server, "group")
    assert (len(strays), strays.removed) == (1, 0)
