"""The archiver is killed at every call and every request: no entry is lost, and the next process finishes."""

from __future__ import annotations

import asyncio
import copy
import functools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from pilot_identity.adapters import audit_archiving
from pilot_identity.adapters.archive import DirectoryArchive
from pilot_identity.core.audit.tiles import WIDTH
from pilot_identity.ports import Archive
from tests.fakes.old_log import LEFT, World, archive_all
from tests.fakes.server import Fault, Process

pytestmark = pytest.mark.looptime

Result = TypeVar("Result")


class Mortal(Archive):
    """A directory that dies at one of its calls, before or after its effect."""

    def __init__(self, volume: Path, at: int, *, after_effect: bool) -> None:
        self._inner = DirectoryArchive(volume)
        self._left = at
        self._after_effect = after_effect

    async def read(self, path: str) -> bytes | None:
        """Read, or die."""
        return await self._live(functools.partial(self._inner.read, path))

    async def write_once(self, path: str, content: bytes) -> None:
        """Write, or die."""
        await self._live(functools.partial(self._inner.write_once, path, content))

    async def replace(self, path: str, content: bytes) -> None:
        """Write, or die."""
        await self._live(functools.partial(self._inner.replace, path, content))

    async def _live(self, work: Callable[[], Awaitable[Result]]) -> Result:
        self._left -= 1
        if self._left == 0 and not self._after_effect:
            raise DeadError
        result = await work()
        if self._left == 0:
            raise DeadError
        return result


class DeadError(Exception):
    """The process was killed."""


async def whole_after(world: World, before: list[bytes]) -> None:
    """What a crash left is the log as it was; the next process finishes."""
    assert world.read(with_archive=True)[1] == before
    log = world.log()
    await log.open()
    await archive_all(world.archiver(log))
    assert world.names("tile") == [LEFT, LEFT + WIDTH]
    assert world.names("archived") == [LEFT]
    assert world.read(with_archive=True)[1] == before


async def pass_through_crashes(
    make: Callable[[], World], crash: Callable[[World, int], Any], monkeypatch: pytest.MonkeyPatch
) -> int:
    """Crash at the first call, the second and so on, until one goes through; returns how many crashed."""
    monkeypatch.setattr(audit_archiving, "BATCH", 2)  # so that one crash is within a second batch
    old = make()
    await old.fill()
    before = old.read(with_archive=False)[1]
    for at in range(1, 1000):
        world = make()
        world.clock, world.server.objects = old.clock, copy.deepcopy(old.server.objects)
        died = await crash(world, at)
        await whole_after(world, before)
        if not died:
            return at - 1
    raise AssertionError("it never went through")


@pytest.mark.parametrize("after_effect", [False, True])
async def test_a_crash_at_any_call_of_the_archive_is_repaired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, after_effect: bool
) -> None:
    """No entry is lost, at no moment is one nowhere, and what was deleted is in the archive."""

    async def crash(world: World, at: int) -> bool:
        log = world.log()
        await log.open()
        mortal = Mortal(world.volume, at, after_effect=after_effect)
        try:
            await archive_all(world.archiver(log, mortal))
        except DeadError:
            return True
        return False

    assert await pass_through_crashes(worlds(tmp_path), crash, monkeypatch) > 20


@pytest.mark.parametrize("after_effect", [False, True])
async def test_a_crash_at_any_request_is_repaired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, after_effect: bool
) -> None:
    """Between the record of what is archived and each deletion as well."""

    async def crash(world: World, at: int) -> bool:
        log, process = world.log(), Process()
        await log.open()
        fault = Fault(len(world.server.requests) + at - 1, after_effect=after_effect, kills=True)
        world.server.faults = [fault]
        work = asyncio.create_task(archive_all(world.archiver(log, process=process)))
        await asyncio.wait({work}, timeout=60)
        work.cancel()
        await asyncio.wait({work})
        world.server.faults.clear()
        return fault.struck is not None

    assert await pass_through_crashes(worlds(tmp_path), crash, monkeypatch) > 16


def worlds(root: Path) -> Callable[[], World]:
    """Makes a world with a volume of its own each time."""
    made = iter(range(1000))

    def make() -> World:
        volume = root / str(next(made))
        volume.mkdir()
        return World(volume)

    return make
