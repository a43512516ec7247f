from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from pilot_identity.control.deadlines import LONGEST_SLEEP, Deadlines
from pilot_identity.core.resources.metadata import Key
from tests.fakes.clock import START, LoopClock, SetClock

A, B = (Key("TaskGrant", "team-a", name) for name in "ab")


def after(seconds: float) -> dt.datetime:
    """A moment after the start."""
    return START + dt.timedelta(seconds=seconds)


@asynccontextmanager
async def running(deadlines: Deadlines) -> AsyncIterator[None]:
    """Run the waiting task while the context is open."""
    task = asyncio.create_task(deadlines.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


@pytest.mark.looptime
async def test_keys_are_handed_over_when_they_are_due() -> None:
    """Each at its time, whatever the order in which they were set; also one set while it waits."""
    clock = LoopClock()
    due: list[tuple[Key, float]] = []
    deadlines = Deadlines(clock, lambda key: due.append((key, (clock() - START).total_seconds())))
    async with running(deadlines):
        deadlines.set(B, after(100))
        await asyncio.sleep(1)
        deadlines.set(A, after(5))
        await asyncio.sleep(200)
    assert due == [(A, 5.0), (B, 100.0)]
    assert len(deadlines) == 0


@pytest.mark.looptime
async def test_a_key_has_one_deadline_the_last() -> None:
    """Set again, earlier or later, only the last counts; cleared, none does."""
    clock = LoopClock()
    due: list[tuple[Key, float]] = []
    deadlines = Deadlines(clock, lambda key: due.append((key, (clock() - START).total_seconds())))
    async with running(deadlines):
        for seconds in (50, 10, 70):
            deadlines.set(A, after(seconds))
        deadlines.set(B, after(20))
        deadlines.set(B, None)
        await asyncio.sleep(200)
    assert due == [(A, 70.0)]


def test_the_past_is_due_at_once() -> None:
    """A deadline that passed while nobody looked is handed over, the oldest first."""
    due: list[Key] = []
    deadlines = Deadlines(SetClock(), due.append)
    deadlines.set(A, after(-1))
    deadlines.set(B, after(-3600))
    assert deadlines.pop_due() == LONGEST_SLEEP
    assert due == [B, A]


def test_a_deadline_that_was_cleared_and_set_again_is_due_once() -> None:
    """What is left in the heap of the first setting is passed over."""
    clock, due = SetClock(), list[Key]()
    deadlines = Deadlines(clock, due.append)
    deadlines.set(A, after(10))
    deadlines.set(A, None)
    deadlines.set(A, after(10))
    clock.turn(11)
    deadlines.pop_due()
    assert due == [A]


def test_a_clock_that_is_set_back_hands_over_nothing_early() -> None:
    """The wait is counted anew by the clock as it is now, and is never longer than the bound."""
    clock, due = SetClock(), list[Key]()
    deadlines = Deadlines(clock, due.append)
    deadlines.set(A, after(10))
    clock.turn(-3600)
    assert deadlines.pop_due() == LONGEST_SLEEP
    assert due == []
    clock.turn(3608)
    assert deadlines.pop_due() == pytest.approx(2)
    clock.turn(2)
    deadlines.pop_due()
    assert due == [A]


@pytest.mark.looptime
async def test_a_clock_that_is_set_forward_is_noticed_within_the_bound() -> None:
    """The loop's own clock runs on unmoved, so the wall clock is looked at now and then."""
    clock, due = SetClock(), list[Key]()
    deadlines = Deadlines(clock, due.append)
    async with running(deadlines):
        deadlines.set(A, after(3600))
        await asyncio.sleep(1)
        clock.turn(3600)
        assert due == []
        await asyncio.sleep(LONGEST_SLEEP)
        assert due == [A]
