from __future__ import annotations

import asyncio

from pilot_identity.control.queue import FIRST_RETRY, LONGEST_RETRY, Priority, WorkQueue
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
