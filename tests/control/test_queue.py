from __future__ import annotations

import asyncio

import pytest

from pilot_identity.control.queue import FIRST_RETRY, LONGEST_RETRY, TURN_EVERY, Priority, WorkQueue
from pilot_identity.core.resources.metadata import Key

A, B, C = (Key("TaskGrant", "team-a", name) for name in "abc")


async def drained(queue: WorkQueue) -> list[Key]:
    """Take and finish everything that waits."""
    taken: list[Key] = []
    while len(queue):
        taken.append(await queue.take())
        queue.done(taken[-1])
    return taken


async def test_a_key_waits_once() -> None:
    """However often a key is marked, one pass answers."""
    queue = WorkQueue()
    for _ in range(50):
        queue.add(A, Priority.ISSUE)
    assert await drained(queue) == [A]


async def test_the_most_urgent_goes_first() -> None:
    """Revocations overtake everything else, and equals are first come, first served."""
    queue = WorkQueue()
    for key, priority in ((A, Priority.DRIFT), (B, Priority.ISSUE), (C, Priority.ISSUE)):
        queue.add(key, priority)
    revoked = Key("TaskGrant", "team-a", "revoked")
    queue.add(revoked, Priority.REVOKE)
    assert await drained(queue) == [revoked, B, C, A]


async def test_a_waiting_key_becomes_more_urgent_and_never_less() -> None:
    """Marked again at another priority, a key keeps the most urgent, and is still taken once."""
    queue = WorkQueue()
    queue.add(B, Priority.EXPIRE)
    queue.add(A, Priority.DRIFT)
    queue.add(A, Priority.REVOKE)
    queue.add(A, Priority.RENEW)
    assert await drained(queue) == [A, B]
    assert queue.is_idle


async def test_a_key_is_with_one_worker_at_a_time() -> None:
    """A key that becomes dirty during its pass comes back after it, at its most urgent priority."""
    queue = WorkQueue()
    queue.add(A, Priority.ISSUE)
    assert await queue.take() == A
    queue.add(A, Priority.DRIFT)
    queue.add(A, Priority.REVOKE)
    queue.add(B, Priority.ISSUE)
    assert await queue.take() == B
    waiting = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    assert not waiting.done()
    assert not queue.is_idle
    queue.done(A)
    assert await waiting == A


async def test_a_priority_that_was_overtaken_leaves_no_second_turn() -> None:
    """What stays in the heap of an earlier, less urgent mark is passed over."""
    queue = WorkQueue()
    queue.add(A, Priority.DRIFT)
    queue.add(A, Priority.REVOKE)
    assert await queue.take() == A
    waiting = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()


async def test_failures_wait_longer_and_longer_until_one_pass_goes_through() -> None:
    """The wait doubles up to a bound, for each key by itself, and starts over after a success."""
    queue = WorkQueue()

    async def fail(key: Key) -> float:
        queue.add(key, Priority.ISSUE)
        return queue.failed(await queue.take())

    waits = [await fail(A) for _ in range(40)]
    assert waits[:4] == [FIRST_RETRY, 2 * FIRST_RETRY, 4 * FIRST_RETRY, 8 * FIRST_RETRY]
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST_RETRY
    assert await fail(B) == FIRST_RETRY
    queue.add(A, Priority.ISSUE)
    queue.done(await queue.take())
    assert await fail(A) == FIRST_RETRY


async def test_a_taker_waits_for_the_first_key() -> None:
    """Workers that came before the work get it."""
    queue = WorkQueue()
    workers = [asyncio.create_task(queue.take()) for _ in range(2)]
    await asyncio.sleep(0)
    queue.add(A, Priority.ISSUE)
    queue.add(B, Priority.ISSUE)
    assert set(await asyncio.gather(*workers)) == {A, B}


FLOOD = [Key("TaskGrant", "flood", f"task-{number}") for number in range(10_000)]


@pytest.mark.parametrize("flooding", Priority)
@pytest.mark.parametrize("asked", Priority)
async def test_a_flood_delays_nobody_elses_key_by_more_than_a_turn(
    flooding: Priority, asked: Priority
) -> None:
    """Ten thousand keys of one namespace, urgent or not: another's is among the first few taken."""
    queue = WorkQueue()
    for key in FLOOD:
        queue.add(key, flooding)
    queue.add(A, asked)
    taken = [await queue.take() for _ in range(2 * TURN_EVERY)]
    assert A in taken[: 2 if asked <= flooding else None]
    assert len(queue) == len(FLOOD) + 1 - len(taken)


async def test_namespaces_take_turns() -> None:
    """Within a priority each namespace gets one key in turn; within a namespace first come, first served."""
    queue = WorkQueue()
    keys = [Key("TaskGrant", f"team-{team}", f"task-{number}") for team in "abc" for number in range(2)]
    for key in keys:
        queue.add(key, Priority.ISSUE)
    assert [f"{key.namespace[-1]}{key.name[-1]}" for key in await drained(queue)] == [
        *("a0", "b0", "c0"),
        *("a1", "b1", "c1"),
    ]


async def test_a_flood_that_does_not_end_starves_nobody() -> None:
    """Every key taken from the flood is followed by another, more urgent than anybody else's."""
    queue = WorkQueue()
    for key in FLOOD[:100]:
        queue.add(key, Priority.REVOKE)
    others = [Key("TaskGrant", f"team-{number}", "task") for number in range(10)]
    for key in others:
        queue.add(key, Priority.DRIFT)
    taken: list[Key] = []
    while set(others) - set(taken):
        taken.append(await queue.take())
        queue.done(taken[-1])
        if taken[-1] not in others:
            queue.add(taken[-1], Priority.REVOKE)
    assert len(taken) <= TURN_EVERY * (len(others) + 2)


async def test_a_key_that_became_more_urgent_is_taken_once() -> None:
    """What it left behind in its old lane is passed over, whoever's turn it is."""
    queue = WorkQueue()
    for key in FLOOD[:50]:
        queue.add(key, Priority.DRIFT)
        queue.add(key, Priority.ISSUE)
        queue.add(key, Priority.REVOKE)
    queue.add(A, Priority.DRIFT)
    taken = await drained(queue)
    assert sorted(taken) == sorted([*FLOOD[:50], A])
    assert queue.is_idle
