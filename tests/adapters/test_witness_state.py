from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pilot_identity.adapters.witness_state import (
    ConfigMapState,
    FileState,
)
from pilot_identity.ports import Conflict, Cosigned, Unavailable, WitnessState
from tests.fakes.clock import SetClock
from tests.fakes.server import WITNESS_HOME as NAMESPACE
from tests.fakes.server import FakeApi, FakeServer

Open = Callable[[], WitnessState]


@pytest.fixture(params=["files", "ConfigMap"])
async def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens the same state, as another replica or a later process does."""
    if request.param == "files":
        return lambda: FileState(tmp_path)
    server = FakeServer(SetClock())
    await ConfigMapState(FakeApi(server), NAMESPACE).begin()
    return lambda: ConfigMapState(FakeApi(server), NAMESPACE)


async def test_what_was_kept_is_there_for_the_next_process(reopen: Open) -> None:
    """Each log has its own."""
    first = reopen()
    for origin in ("a", "b"):
        await first.replace(origin, await first.read(origin), f"note of {origin}\n")
    assert [(await reopen().read(origin)).note for origin in ("a", "b", "c")] == [
        "note of a\n",
        "note of b\n",
        "",
    ]


async def test_of_two_who_go_on_from_one_head_one_fails(reopen: Open) -> None:
    """The second replica must look again."""
    one, other = reopen(), reopen()
    seen = await one.read("a"), await other.read("a")
    await one.replace("a", seen[0], "one\n")
    with pytest.raises(Conflict):
        await other.replace("a", seen[1], "other\n")
    assert (await reopen().read("a")).note == "one\n"
    await other.replace("a", await other.read("a"), "other\n")
    assert (await reopen().read("a")).note == "other\n"


async def test_a_directory_that_is_not_there_is_no_state(tmp_path: Path) -> None:
    """It is not made: a volume that was not mounted would look like a new beginning."""
    with pytest.raises(FileNotFoundError):
        FileState(tmp_path / "volume")


async def test_a_disk_that_refuses_is_told(tmp_path: Path) -> None:
    """As an answer that did not come."""
    state = FileState(tmp_path)
    await asyncio.to_thread(shutil.rmtree, tmp_path)
    with pytest.raises(Unavailable):
        await state.replace("a", Cosigned("", ""), "note\n")
