from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from pilot_identity.adapters.kubernetes.leases import KubernetesLease
from pilot_identity.clocks import Instant
from pilot_identity.control.elector import Elector, LostLeadershipError, Timing
from tests.fakes.clock import LoopClock
from tests.fakes.server import HOME, FakeApi, FakeServer, Fault, Object, Place, Process

pytestmark = pytest.mark.looptime

LEASE = Place("leases", HOME, "pilot-identity")
TIMING = Timing()


def replica(server: FakeServer, identity: str, process: Process | None = None) -> Elector:
    """A replica's elector; its own clock is the event loop's, which `looptime` makes fast.

    Its wall clock is of no account to the others.
    """
    return Elector(KubernetesLease(FakeApi(server, process), HOME), identity, server.clock, monotonic=now)


def lease(server: FakeServer) -> Any:
    """The Lease's spec."""
    return server.objects[LEASE]["spec"]


def now() -> float:
    """The loop's time."""
    return asyncio.get_running_loop().time()


async def test_the_first_replica_takes_the_lease() -> None:
    """Where there is none it is made, and names its holder."""
    server = FakeServer(LoopClock())
    waits: list[float] = []
    await replica(server, "one").acquire(on_wait=lambda: waits.append(now()))
    assert waits == []
    assert (lease(server)["holderIdentity"], lease(server)["leaseTransitions"]) == ("one", 0)
    assert lease(server)["acquireTime"] == lease(server)["renewTime"]


async def test_the_holder_renews_and_keeps_when_it_acquired() -> None:
    """Each renewal is new, with the same holder and beginning, while another replica waits for ever."""
    server = FakeServer(LoopClock())
    one, two = replica(server, "one"), replica(server, "two")
    await one.acquire()
    acquired = lease(server)["acquireTime"]
    waits: list[float] = []
    keeping = asyncio.create_task(one.keep())
    waiting = asyncio.create_task(two.acquire(on_wait=lambda: waits.append(now())))
    await asyncio.sleep(300)
    assert not keeping.done()
    assert not waiting.done()
    assert len(waits) >= 100, "whoever waits says so each time, so that it can be told ready"
    assert lease(server)["acquireTime"] == acquired < lease(server)["renewTime"]
    for task in (keeping, waiting):
        task.cancel()
    await asyncio.wait({keeping, waiting})


async def test_another_replica_waits_a_whole_duration_by_its_own_clock() -> None:
    """From when it first saw the last renewal, whatever the times that are written there say."""
    server = FakeServer(LoopClock())
    await replica(server, "one").acquire()
    server.objects[LEASE]["spec"]["renewTime"] = "1999-01-01T00:00:00.000000Z"
    began = now()
    await replica(server, "two").acquire()
    assert TIMING.duration <= now() - began <= TIMING.duration + 2 * TIMING.retry
    assert (lease(server)["holderIdentity"], lease(server)["leaseTransitions"]) == ("two", 1)


async def test_the_same_identity_goes_on_at_once() -> None:
    """A container that is restarted within its pod does not wait for its own lease to run out."""
    server = FakeServer(LoopClock())
    await replica(server, "one").acquire()
    began = now()
    await replica(server, "one").acquire()
    assert now() - began < 1
    assert lease(server)["leaseTransitions"] == 0


async def test_two_processes_of_one_identity_both_keep_the_lease(caplog: pytest.LogCaptureFixture) -> None:
    """Each meets what the other wrote at every turn, and renews that at once, not at its next turn."""
    server = FakeServer(LoopClock())
    one, two = replica(server, "one"), replica(server, "one")
    await one.acquire()
    await two.acquire()
    keeping = [asyncio.create_task(one.keep()), asyncio.create_task(two.keep())]
    await asyncio.sleep(60)
    assert not [task for task in keeping if task.done()]
    failed = [record for record in caplog.records if "cannot renew" in record.message]
    assert len(failed) < 60 / TIMING.retry / 3, "of both together"
    for task in keeping:
        task.cancel()
    await asyncio.wait(keeping)


async def test_a_lease_that_was_given_back_is_taken_at_once() -> None:
    """Whoever asks next has it."""
    server = FakeServer(LoopClock())
    one = replica(server, "one")
    await one.acquire()
    await one.release()
    assert lease(server)["holderIdentity"] == ""
    began = now()
    await replica(server, "two").acquire()
    assert now() - began < 1


async def test_a_replica_that_never_led_gives_nothing_back() -> None:
    """The holder's lease stays."""
    server = FakeServer(LoopClock())
    await replica(server, "one").acquire()
    await replica(server, "two").release()
    assert lease(server)["holderIdentity"] == "one"


async def test_a_holder_that_cannot_renew_stops_before_another_may_start() -> None:
    """It gives up within the renewal deadline, which is shorter than the duration that others wait."""
    server = FakeServer(LoopClock())
    one = replica(server, "one")
    await one.acquire()
    began = now()
    server.refused.add("leases")
    with pytest.raises(LostLeadershipError, match="not renewed within 10 s"):
        await one.keep()
    assert now() - began <= TIMING.renew_deadline + TIMING.retry < TIMING.duration


async def test_a_holder_that_hears_no_answer_stops_in_time() -> None:
    """A request that hangs is given up."""
    server, process = FakeServer(LoopClock()), Process()
    one = replica(server, "one", process)
    await one.acquire()
    began = now()
    process.died.set()
    with pytest.raises(LostLeadershipError):
        await one.keep()
    assert now() - began <= TIMING.renew_deadline + TIMING.retry


@pytest.mark.parametrize("clock", ["boot", "wall"])
async def test_a_holder_that_was_suspended_does_not_believe_its_old_lease(clock: str) -> None:
    """The loop's clock stood still meanwhile; it stops before it asks, since another may lead by now."""
    server, passed = FakeServer(LoopClock()), 0.0

    def suspended() -> Instant:
        return replace(Instant.now(), **{clock: passed})

    store = KubernetesLease(FakeApi(server), HOME)
    one = Elector(store, "one", server.clock, monotonic=now, now=suspended)
    await one.acquire()
    keeping = asyncio.create_task(one.keep())
    await asyncio.sleep(TIMING.retry / 2)
    passed, asked = 3600.0, len(server.requests)
    with pytest.raises(LostLeadershipError, match="not renewed"):
        await keeping
    assert len(server.requests) == asked


async def test_a_holder_that_was_paused_with_all_its_clocks_stops_at_its_next_renewal() -> None:
    """It asks `retry` after it goes on, and finds the other's name; nothing is written over that."""
    server = FakeServer(LoopClock())
    one = replica(server, "one")
    await one.acquire()
    keeping = asyncio.create_task(one.keep())
    await asyncio.sleep(TIMING.retry / 2)
    body: Object = server.objects[LEASE]
    body["spec"]["holderIdentity"], body["metadata"]["resourceVersion"] = "two", "999"
    began = now()
    with pytest.raises(LostLeadershipError, match="another replica"):
        await keeping
    assert now() - began <= TIMING.retry
    assert lease(server)["holderIdentity"] == "two"


async def test_a_holder_survives_one_renewal_that_failed() -> None:
    """A lost answer, or another version than the one it wrote, is looked at again in time."""
    server = FakeServer(LoopClock())
    one = replica(server, "one")
    await one.acquire()
    server.faults = [Fault(len(server.requests), after_effect=True, kills=False)]
    keeping = asyncio.create_task(one.keep())
    await asyncio.sleep(60)
    assert server.faults[0].struck is not None
    assert not keeping.done()
    keeping.cancel()
    await asyncio.wait({keeping})


async def test_a_holder_whose_lease_was_taken_stops() -> None:
    """It sees the other's name as soon as it looks."""
    server = FakeServer(LoopClock())
    one = replica(server, "one")
    await one.acquire()
    await replica(server, "one").acquire()  # writes a newer version
    server.objects[LEASE]["spec"]["holderIdentity"] = "two"
    with pytest.raises(LostLeadershipError, match="another replica"):
        await one.keep()


async def test_of_two_that_take_at_the_same_time_one_wins() -> None:
    """Every write goes to the version that was read; one that exists is not made again."""
    server = FakeServer(LoopClock())
    for attempt in range(2):
        takers = [asyncio.create_task(replica(server, f"{attempt}-{name}").acquire()) for name in "ab"]
        await asyncio.sleep(1 if attempt == 0 else TIMING.duration + 2 * TIMING.retry)
        assert [task.done() for task in takers].count(True) == 1
        for task in takers:
            task.cancel()
        await asyncio.wait(takers)


async def test_a_lease_store_that_fails_is_asked_again() -> None:
    """A replica that cannot reach the API server at its start waits for it."""
    server = FakeServer(LoopClock())
    server.refused.add("leases")
    taking = asyncio.create_task(replica(server, "one").acquire())
    await asyncio.sleep(10)
    server.refused.clear()
    await taking


async def test_a_lease_that_cannot_be_given_back_stops_nobody_on_the_way_out() -> None:
    """It runs out by itself."""
    server = FakeServer(LoopClock())
    one = replica(server, "one")
    await one.acquire()
    server.refused.add("leases")
    await one.release()
    body: Object = server.objects[LEASE]
    assert body["spec"]["holderIdentity"] == "one"
