from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilot_identity.adapters.audit_log import ConfigMapLog
from pilot_identity.core.audit.checkpoint import CheckpointError, LogSigner
from pilot_identity.core.audit.entries import Entry, EntryType
from pilot_identity.core.audit.groups import BrokenLogError, Group, follow, group_name
from pilot_identity.core.audit.merkle import Frontier
from pilot_identity.ports import AlreadyRecorded, Unavailable
from tests.fakes.clock import START, LoopClock
from tests.fakes.server import HOME, FakeApi, FakeServer, Fault, Object, Place

pytestmark = pytest.mark.looptime

SIGNER = LogSigner("pilotidentity.dev/log/test", Ed25519PrivateKey.from_private_bytes(bytes(32)))


def entry(entry_id: str, *, subject: str = "uid-1", credential: str = "") -> Entry:
    """An entry; one that announces a credential where that has a name."""
    data: dict[str, Any] = {"credential": {"id": credential, "issuance": 1}} if credential else {"a": 1}
    return Entry(entry_id, EntryType.GRANT_ISSUED, "TaskGrant team-a/task-1", subject, START, data)


def writer(server: FakeServer) -> ConfigMapLog:
    """A process's log."""
    return ConfigMapLog(FakeApi(server), HOME, SIGNER, on_read=lambda _: None)


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


def stored(server: FakeServer) -> list[str]:
    """Follow the stored log from scratch; returns the ids of its entries."""
    frontier, ids = Frontier(), list[str]()
    for body in server.all("configmaps"):
        group = Group.from_data(body["metadata"]["name"], body["data"])
        frontier = follow(frontier, group, SIGNER.verifier())
        ids.extend(line.decode().split('"id":"')[-1].split('"')[0] for line in group.entries)
    return ids


async def test_an_idle_log_writes_at_once() -> None:
    """One write, and its index."""
    server = FakeServer(LoopClock())
    log = writer(server)
    async with running(log):
        assert await log.commit([entry("a")]) == 0
        assert await log.commit([entry("b"), entry("c")]) == 2
    assert stored(server) == ["a", "b", "c"]
    assert log.groups_written == 2


async def test_what_waits_becomes_one_group() -> None:
    """While one write is in flight the next group fills: the cost is per group, not per entry."""
    server = FakeServer(LoopClock())
    log = writer(server)
    async with running(log):
        first = asyncio.create_task(log.commit([entry("first")]))
        await asyncio.sleep(0.0005)  # its write is under way
        others = [asyncio.create_task(log.commit([entry(f"e{number}")])) for number in range(100)]
        assert await asyncio.gather(first, *others) == list(range(101))
    assert len(server.all("configmaps")) == 2
    assert len(stored(server)) == 101


async def test_a_last_report_in_the_same_group_as_the_end_is_recorded_once() -> None:
    """Though after the end no report is remembered for good; and it keeps its index when it is sent again."""
    server = FakeServer(LoopClock())
    log = writer(server)
    names = ("uid-1/activity/mine/0123", "uid-1/closed")
    async with running(log):
        first = asyncio.create_task(log.commit([entry("first")]))
        await asyncio.sleep(0.0005)  # its write is under way
        others = [asyncio.create_task(log.commit([entry(name)])) for name in names]
        assert await asyncio.gather(first, *others) == [0, 1, 2]
        assert await log.commit([entry(names[0])]) == 1
    assert stored(server) == ["first", *names]


async def test_an_id_is_recorded_once() -> None:
    """Committed again, by this process or after a restart, a step keeps its index and costs nothing."""
    server = FakeServer(LoopClock())
    log = writer(server)
    async with running(log):
        twice = [asyncio.create_task(log.commit([entry("a")])) for _ in range(2)]
        assert await asyncio.gather(*twice) == [0, 0]
    again = writer(server)
    await again.open()
    async with running(again):
        assert await again.commit([entry("a")]) == 0
    assert stored(server) == ["a"]


async def test_another_announcement_under_a_recorded_id_is_refused() -> None:
    """Two passes that decided the same step differently: only the recorded credential may be released."""
    server = FakeServer(LoopClock())
    log = writer(server)
    async with running(log):
        assert await log.commit([entry("uid-1/credential/1", credential="one")]) == 0
        with pytest.raises(AlreadyRecorded):
            await log.commit([entry("uid-1/credential/1", credential="two")])
        assert await log.commit([entry("uid-1/credential/1", credential="one")]) == 0
    found = await log.announced("uid-1", 0)
    assert found is not None
    assert (found[0], found[1].data["credential"]["id"]) == (0, "one")


async def test_an_announcement_is_known_until_it_is_settled() -> None:
    """Also after a restart; settling an older one leaves a newer."""
    server = FakeServer(LoopClock())
    log = writer(server)
    async with running(log):
        await log.commit([entry("c/1", credential="one")])
        await log.commit([entry("c/2", credential="two")])
    again = writer(server)
    await again.open()
    for reader in (log, again):
        reader.settle("uid-1", 0)
        found = await reader.announced("uid-1", 0)
        assert found is not None
        assert found[1].data["credential"]["id"] == "two"
        reader.settle("uid-1", 1)
        assert await reader.announced("uid-1", 0) is None
        assert await reader.announced("unknown", 0) is None


async def test_subjects_that_are_gone_are_forgotten() -> None:
    """So that memory follows the cluster, not its history."""
    server = FakeServer(LoopClock())
    log = writer(server)
    async with running(log):
        await log.commit([entry("a", subject="stays", credential="one")])
        await log.commit([entry("b", subject="goes", credential="two")])
    log.retain({"stays"})
    assert await log.announced("stays", 0) is not None
    assert await log.announced("goes", 0) is None


@pytest.mark.parametrize("delay", [0.0, 0.0005, 0.001, 0.0015])
async def test_two_writers_never_fork_the_log(delay: float) -> None:
    """Whatever their interleaving: one log that follows from scratch, with every entry once."""
    server = FakeServer(LoopClock())
    one, two = writer(server), writer(server)

    async def write(log: ConfigMapLog, name: str, pause: float) -> list[int]:
        indices = []
        for number in range(20):
            indices.append(await log.commit([entry(f"{name}{number}", subject=name)]))
            await asyncio.sleep(pause)
        return indices

    async with running(one, two):
        first, second = await asyncio.gather(write(one, "a", 0.0), write(two, "b", delay))
    ids = stored(server)
    assert sorted(ids) == sorted(f"{name}{number}" for name in "ab" for number in range(20))
    assert [ids[index] for index in first] == [f"a{number}" for number in range(20)]
    assert [ids[index] for index in second] == [f"b{number}" for number in range(20)]


async def test_two_writers_of_the_same_step_record_it_once() -> None:
    """The one that comes second learns of the first's."""
    server = FakeServer(LoopClock())
    one, two = writer(server), writer(server)
    async with running(one, two):
        results = await asyncio.gather(
            one.commit([entry("c/1", credential="one")]),
            two.commit([entry("c/1", credential="two")]),
            return_exceptions=True,
        )
    assert [type(result) for result in results] in ([int, AlreadyRecorded], [AlreadyRecorded, int])
    assert stored(server) == ["c/1"]


@pytest.mark.parametrize("after_effect", [False, True])
async def test_a_lost_answer_is_found_out(*, after_effect: bool) -> None:
    """Whoever waited is told that nobody knows; the next commit reads what became of it first."""
    server = FakeServer(LoopClock())
    log = writer(server)
    async with running(log):
        server.faults = [Fault(len(server.requests), after_effect=after_effect, kills=False)]
        with pytest.raises(Unavailable):
            await log.commit([entry("a")])
        assert await log.commit([entry("b"), entry("a")]) == (0 if after_effect else 1)
    assert sorted(stored(server)) == ["a", "b"]


async def test_a_waiter_that_gave_up_stops_nobody() -> None:
    """Its entry may be in the log; whoever comes after is answered."""
    server = FakeServer(LoopClock())
    log = writer(server)
    async with running(log):
        gone = asyncio.create_task(log.commit([entry("a")]))
        await asyncio.sleep(0.0005)  # its write is under way
        gone.cancel()
        assert await asyncio.wait_for(log.commit([entry("b")]), 10) == 1
    assert stored(server) == ["a", "b"]


async def test_a_log_is_read_back_whole() -> None:
    """Its size and its ids, from any number of groups."""
    server = FakeServer(LoopClock(), page=2)
    log = writer(server)
    async with running(log):
        for number in range(7):
            await log.commit([entry(f"e{number}")])
    again = writer(server)
    await again.open()
    assert again.size == log.size == 7


def drop(groups: list[Object]) -> None:
    """A group in the middle is gone."""
    del groups[1]


def drop_first(groups: list[Object]) -> None:
    """The log begins later."""
    del groups[0]


def edit(groups: list[Object]) -> None:
    """An entry says something else."""
    groups[1]["data"]["entries"] = groups[1]["data"]["entries"].replace('"a":1', '"a":2')


def swap(groups: list[Object]) -> None:
    """Two groups' contents changed places."""
    groups[0]["data"], groups[1]["data"] = groups[1]["data"], groups[0]["data"]


def rename(groups: list[Object]) -> None:
    """A group's name is no size."""
    groups[1]["metadata"]["name"] = "audit-group-two"


def empty(groups: list[Object]) -> None:
    """A group's data is gone."""
    groups[1].pop("data")


def add(groups: list[Object]) -> None:
    """An entry was added to a group under its old checkpoint."""
    groups[2]["data"]["entries"] += "\n" + groups[0]["data"]["entries"].replace('"e0"', '"e9"')


def forge(groups: list[Object]) -> None:
    """Someone else's key signed it."""
    forger = LogSigner(SIGNER.name, Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32))
    checkpoint = SIGNER.verifier().open(groups[2]["data"]["checkpoint"])
    groups[2]["data"]["checkpoint"] = forger.sign(checkpoint)


@pytest.mark.parametrize(
    "corrupt, error",
    [
        (drop, BrokenLogError),
        (drop_first, BrokenLogError),
        (edit, BrokenLogError),
        (swap, BrokenLogError),
        (rename, BrokenLogError),
        (empty, BrokenLogError),
        (add, BrokenLogError),
        (forge, CheckpointError),
    ],
    ids=lambda value: value.__name__,
)
async def test_a_log_that_was_tampered_with_is_not_opened(
    corrupt: Callable[[list[Object]], None], error: type[Exception]
) -> None:
    """Nothing is added to what is no log of ours."""
    server = FakeServer(LoopClock())
    log = writer(server)
    async with running(log):
        for number in range(3):
            await log.commit([entry(f"e{number}")])
    groups = server.all("configmaps")
    for place in [place for place in server.objects if place.plural == "configmaps"]:
        del server.objects[place]
    corrupt(groups)
    for body in groups:
        server.objects[Place("configmaps", HOME, body["metadata"]["name"])] = body
    with pytest.raises(error):
        await writer(server).open()


async def test_a_stranger_s_group_in_the_way_ends_no_waiting_for_ever() -> None:
    """What another wrote under the next name is checked; where it is no group of ours all are told."""
    server = FakeServer(LoopClock())
    log = writer(server)
    name = group_name(0)
    server.plant(("configmaps", HOME, name), {"metadata": {"name": name}, "data": {"entries": "{}"}})
    async with running(log):
        with pytest.raises(BrokenLogError):
            await asyncio.wait_for(log.commit([entry("a")]), 10)
