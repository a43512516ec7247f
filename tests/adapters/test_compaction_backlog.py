from __future__ import annotations

import asyncio
import copy
import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pilot_identity.adapters.audit_compaction import AT_ONCE, MOST_DELETED
from pilot_identity.adapters.audit_log import GROUPS_PER_SECOND, ConfigMapLog
from pilot_identity.adapters.kubernetes.api import JSON, NotFound
from pilot_identity.core.audit.chain import GRACE_SECONDS
from pilot_identity.ports import Unavailable
from tests.fakes import server as fake_server
from tests.fakes.old_log import SIGNER, World, entry, running
from tests.fakes.server import HOME, FakeApi, FakeServer, Object, Place

pytestmark = pytest.mark.looptime

GROUP = 100
"""Entries of one commit: no divisor of 256, so that groups lie over the edges of bundles."""
SIZE = 600
SPENT = (0, 100, 200, 300, 400)
"""The groups that two bundles have; the one from 500 on is over the edge of the third."""
HEADS = (200, 500)
"""Where a writer slept: before a group that may be gone, and before one over the edge, which never is."""


class Watched(FakeApi):
    """A process that can be stopped before a write, and whose requests in flight are counted."""

    def __init__(self, server: FakeServer) -> None:
        super().__init__(server)
        self.server = server
        self.may_write = asyncio.Event()
        self.may_write.set()
        self.most_deletes = 0
        self.refuses_deletes = False
        self._deletes = 0

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
        """Wait before a write; count a delete."""
        if method == "POST":
            await self.may_write.wait()
        is_delete = method == "DELETE"
        if is_delete and self.refuses_deletes:
            raise Unavailable("no answer")
        self._deletes += is_delete
        self.most_deletes = max(self.most_deletes, self._deletes)
        try:
            return await super().call(
                method, path, body, query=query, content_type=content_type, accept=accept
            )
        finally:
            self._deletes -= is_delete


def log_of(api: FakeApi) -> ConfigMapLog:
    """A process's log."""
    return ConfigMapLog(api, HOME, SIGNER, on_read=lambda _: None)


async def fill(log: ConfigMapLog, until: int, *, group: int = GROUP) -> None:
    """Commit entries in groups."""
    for at in range(log.size, until, group):
        await log.commit([entry(number) for number in range(at, min(at + group, until))])


async def finish(log: ConfigMapLog) -> None:
    """Let the groups become old enough, and compact what can be."""
    await asyncio.sleep(GRACE_SECONDS + 1)
    while await log.compaction.compact_next():
        pass


async def sealed(world: World) -> ConfigMapLog:
    """A log of two bundles, whose groups are all still there."""
    log = world.log()
    async with running(log):
        await fill(log, SIZE)
    await asyncio.sleep(GRACE_SECONDS + 1)
    assert await log.compaction.compact_next()
    assert (world.names("tile"), world.names("group")) == ([0, 256], [*SPENT, 500])
    return log


def without(objects: Mapping[Place, Object], gone: tuple[int, ...]) -> dict[Place, Object]:
    """A copy of what is stored, but for some groups."""
    names = {f"audit-group-{size:016d}" for size in gone}
    return copy.deepcopy({place: body for place, body in objects.items() if place.name not in names})


def before(objects: Mapping[Place, Object], size: int) -> dict[Place, Object]:
    """What was stored when the log had that size, and nothing was compacted."""
    last = f"audit-group-{size:016d}"
    return copy.deepcopy({place: body for place, body in objects.items() if place.name < last})


SECONDS = 70
"""Long enough for a backlog to grow."""
SUBSETS = [gone for count in range(len(SPENT) + 1) for gone in itertools.combinations(SPENT, count)]


async def test_whatever_a_crash_left_of_deletes_in_flight_is_the_log(tmp_path: Path) -> None:
    """Any of a window's groups gone and any left: it reads the same, is taken up, and is finished."""
    world = World(tmp_path)
    await sealed(world)
    objects, was = world.server.objects, world.read(with_archive=False)[1]
    for gone in SUBSETS:
        world.server.objects = without(objects, gone)
        assert world.read(with_archive=False)[1] == was
        again = world.log()
        async with running(again):
            assert (again.size, again.sealed) == (SIZE, 512)
            assert await again.commit([entry(SIZE)]) == SIZE
            await finish(again)
        assert (world.names("tile"), world.names("group")) == ([0, 256], [500, 600])
        assert world.read(with_archive=False)[1][:SIZE] == was
    assert len(SUBSETS) == 32


@pytest.mark.parametrize("head", HEADS)
async def test_a_writer_that_slept_forks_no_log_that_is_deleted_in_part(tmp_path: Path, head: int) -> None:
    """Wherever it slept, with its write on the way, and whichever groups are gone by then."""
    world = World(tmp_path)
    await sealed(world)
    objects, was = world.server.objects, world.read(with_archive=False)[1]
    for gone in SUBSETS:
        world.server.objects = before(objects, head)
        api = Watched(world.server)
        sleeper = log_of(api)
        async with running(sleeper):
            assert sleeper.size == head
            api.may_write.clear()
            late = asyncio.create_task(sleeper.commit([entry(1000)]))
            await asyncio.sleep(GRACE_SECONDS + 1)
            world.server.objects = without(objects, gone)
            api.may_write.set()
            assert await late == SIZE
        async with running(again := world.log()):
            await finish(again)
        assert world.names("group") == [500, 600]
        assert world.read(with_archive=False)[1][:SIZE] == was
        assert world.read(with_archive=False)[0].entries == SIZE + 1


@asynccontextmanager
async def compacting(log: ConfigMapLog) -> AsyncIterator[None]:
    """Open a log, and let it write and compact while the context is open."""
    async with running(log):
        task = asyncio.create_task(log.compaction.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})


async def test_compaction_keeps_up_with_the_fastest_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the most groups a second there are never many more than those that are not old enough."""
    monkeypatch.setattr(fake_server, "LATENCY", 0.012)  # 24 ms a request: one after another is too slow
    world = World(tmp_path)
    log = log_of(Watched(world.server))

    async def write(name: int) -> None:
        for number in range(SECONDS * GROUPS_PER_SECOND):
            await log.commit([entry(number, subject=f"writer-{name}")])

    standing: list[int] = []

    async def look() -> None:
        while True:
            await asyncio.sleep(1)
            standing.append(log.groups_standing)

    async with compacting(log):
        looking = asyncio.create_task(look())
        await asyncio.gather(write(1), write(2))
        looking.cancel()
    assert log.groups_written / len(standing) > 0.95 * GROUPS_PER_SECOND, "as fast as it may"
    of_one_bundle = 256 / 2
    assert max(standing) < (GRACE_SECONDS + 5) * GROUPS_PER_SECOND + of_one_bundle
    assert world.read(with_archive=False)[0].entries == log.size == 2 * SECONDS * GROUPS_PER_SECOND


async def test_deletes_go_side_by_side_only_while_it_is_behind(tmp_path: Path) -> None:
    """Behind, eight at a time; nearly up to date one, so that an idle API server is not disturbed."""
    world = World(tmp_path)
    behind = Watched(world.server)
    async with running(log := log_of(behind)):
        await fill(log, 256 * 5, group=10)
        await finish(log)
    assert behind.most_deletes == AT_ONCE
    up_to_date = Watched(world.server)
    async with running(log := log_of(up_to_date)):
        await fill(log, 256 * 6, group=10)
        await finish(log)
    assert up_to_date.most_deletes == 1
    assert log.sealed == 256 * 6


async def test_nearly_up_to_date_it_rests_as_long_as_it_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the bundle, which takes three requests, and the first delete."""
    monkeypatch.setattr(fake_server, "LATENCY", 0.1)
    world = World(tmp_path)
    times: asyncio.Queue[float] = asyncio.Queue()

    def note(place: Place, _: Object | None, after: Object | None) -> None:
        if after is None or place.name.startswith("audit-tile-"):
            times.put_nowait(asyncio.get_running_loop().time())

    world.server.watchers.append(note)
    async with compacting(log := world.log()):
        await fill(log, 300)
        sealed_at, deleted_at = await times.get(), await times.get()
    assert deleted_at - sealed_at > 3 * 2 * fake_server.LATENCY


async def test_deletes_that_fail_are_made_later(tmp_path: Path) -> None:
    """None of those in flight is left behind, and no group is believed to be gone that is not."""
    world = World(tmp_path)
    api = Watched(world.server)
    async with running(log := log_of(api)):
        await fill(log, 256 * 3, group=10)
        await asyncio.sleep(GRACE_SECONDS + 1)
        assert await log.compaction.compact_next()
        api.refuses_deletes = True
        standing = log.groups_standing
        with pytest.raises(Unavailable):
            await log.compaction.compact_next()
        assert log.groups_standing == len(world.names("group")) == standing
        api.refuses_deletes = False
        await finish(log)
    assert log.groups_standing == len(world.names("group")) == 1


async def test_a_start_within_a_backlog_reads_each_bundle_once(tmp_path: Path) -> None:
    """Groups that a crash left beside their bundles cost pages of a list, and not a request each."""
    world = World(tmp_path)
    async with running(log := world.log()):
        await fill(log, 256 * 4, group=4)
        await asyncio.sleep(GRACE_SECONDS + 1)
        while log.sealed < 256 * 4:
            spent = MOST_DELETED * (log.sealed // 256)
            await log.compaction.compact_next()
            assert len(world.names("group")) >= 256 - spent
    world.server.requests.clear()
    again = world.log()
    await again.open()
    lists = [one for one in world.server.requests if not one.place.name and one.method == "GET"]
    assert all(int(one.query["limit"]) <= 100 for one in lists if "archived" not in str(one.query))
    gets = [one for one in world.server.requests if one.place.name.startswith("audit-tile-")]
    assert len(gets) <= 2
    assert again.size == 256 * 4


class Late(FakeApi):
    """A process that lists groups when another has just compacted them."""

    def __init__(self, server: FakeServer, other: ConfigMapLog) -> None:
        super().__init__(server)
        self._other = other

    async def call(self, method: str, path: str, *arguments: Any, **named: Any) -> Any:
        """Let the other finish before a list of as many groups as bundles need."""
        if (named.get("query") or {}).get("limit") == str(len(SPENT) + 1):
            await finish(self._other)
        return await super().call(method, path, *arguments, **named)


async def test_what_another_compacted_meanwhile_is_no_blockage(tmp_path: Path) -> None:
    """Groups that are gone are in a bundle, and the next look takes that over."""
    world = World(tmp_path)
    async with running(other := world.log()):
        await fill(other, SIZE)
    log = log_of(Late(world.server, other))
    await log.open()
    await asyncio.sleep(GRACE_SECONDS + 1)
    assert await log.compaction.compact_next()
    assert (other.sealed, log.sealed) == (512, 0)
    await finish(log)
    assert log.sealed == 512
    assert (world.names("tile"), world.names("group")) == ([0, 256], [500])


async def test_groups_that_are_gone_and_in_no_bundle_are_an_error(tmp_path: Path) -> None:
    """Nothing is made of what is left."""
    world = World(tmp_path)
    async with running(log := world.log()):
        await fill(log, SIZE)
        world.server.lose("configmaps", "audit-group-0000000000000100", HOME)
        await asyncio.sleep(GRACE_SECONDS + 1)
        with pytest.raises(NotFound):
            await log.compaction.compact_next()
    assert not world.names("tile")
