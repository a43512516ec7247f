from __future__ import annotations

import asyncio
import logging

import pytest

from pilot_identity.control.duty import TELL_SECONDS, Duty

pytestmark = pytest.mark.looptime


async def test_who_ends_takes_nothing_while_it_tells() -> None:
    """Nor afterwards; what it told is in order."""
    duty, told = Duty(lambda: True), []

    async def tell(what: str) -> None:
        told.append((what, duty.is_working()))

    assert duty.is_working()
    await duty.end(lambda: tell("use"), lambda: tell("end"))
    assert told == [("use", False), ("end", False)]
    assert not duty.is_working()


@pytest.mark.parametrize("is_on", [True, False])
async def test_only_who_leads_works_and_tells(is_on: bool) -> None:
    """Another has nothing to tell."""
    duty, told = Duty(lambda: is_on), []

    async def tell() -> None:
        told.append("use")

    assert duty.is_working() is is_on
    await duty.end(tell)
    assert bool(told) is is_on


async def test_one_telling_that_fails_or_hangs_does_not_keep_the_lease(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """All of them together have so long; what fails at once leaves its time to the next."""
    told = []

    async def fail() -> None:
        raise OSError("nobody answers")

    async def tell() -> None:
        told.append("end")

    async def hang() -> None:
        await asyncio.Event().wait()

    before = asyncio.get_running_loop().time()
    with caplog.at_level(logging.WARNING):
        await Duty(lambda: True).end(fail, tell, hang)
    assert asyncio.get_running_loop().time() - before == pytest.approx(TELL_SECONDS)
    assert told == ["end"]
    assert [line.getMessage() for line in caplog.records] == [
        "ends before all was told: OSError('nobody answers')",
        "ends before all was told: TimeoutError()",
    ]
