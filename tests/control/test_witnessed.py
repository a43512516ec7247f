"""What the loop writes of it, on a server in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from pilot_identity.adapters.kubernetes.cluster import KubernetesCluster
from pilot_identity.adapters.kubernetes.recorder import EventRecorder
from pilot_identity.control.store import Store
from pilot_identity.control.telling import Teller
from pilot_identity.control.witnessed import LOOK_SECONDS, Witnessed
from pilot_identity.core.decisions.witnessed import PATIENCE, Trouble, WitnessStanding
from pilot_identity.core.resources import parse
from pilot_identity.core.resources.conditions import Reason
from pilot_identity.core.resources.metadata import Key
from tests.fakes import manifests
from tests.fakes.clock import START, LoopClock
from tests.fakes.replica import world
from tests.fakes.server import FakeApi, FakeServer, Fault

pytestmark = pytest.mark.looptime

GOOD = WitnessStanding("w1", 41, START)
AWAY = WitnessStanding("w1", 41, START, Trouble(Reason.WITNESS_UNREACHABLE, START - PATIENCE, "no answer"))
STAGES = ("sandbox", "pilot")


@dataclass
class Standings:
    """`ports.LogWitnesses` that says what it is told to."""

    said: list[WitnessStanding] = field(default_factory=list)

    def standings(self) -> Sequence[WitnessStanding]:
        """Say it."""
        return self.said


@dataclass
class Room:
    """The loop over stages that are ready."""

    server: FakeServer
    standings: Standings
    witnessed: Witnessed
    marked: list[Key]

    def told(self) -> list[tuple[str, str]]:
        """What each stage is told."""
        bodies = [self.server.find("stagepolicies", name, "") for name in STAGES]
        return [
            (one["status"], one["reason"])
            for body in bodies
            if body is not None
            for one in body["status"]["conditions"]
            if one["type"] == "Witnessed"
        ]

    def writes(self) -> int:
        """How often a status was written since the last time."""
        count = sum(str(request).startswith("PATCH stagepolicies") for request in self.server.requests)
        self.server.requests.clear()
        return count

    def events(self) -> list[tuple[str, str, str]]:
        """The Events that there are of it."""
        return sorted(
            (body["type"], body["reason"], body["regarding"]["name"])
            for body in self.server.all("events")
            if body["action"] == "Witness"
        )


@asynccontextmanager
async def room() -> AsyncIterator[Room]:
    """Two stages that a first process made ready."""
    server = FakeServer(LoopClock())
    async with world(server) as here:
        for rank, name in enumerate(STAGES):
            server.apply(manifests.stage(name, rank=rank))
        await here.pass_time(2)
    api, store, marked, standings = FakeApi(server), Store(), list[Key](), Standings()
    for name in STAGES:
        store.put(parse({**(server.find("stagepolicies", name, "") or {}), "kind": "StagePolicy"}))
    recorder = EventRecorder(api, server.clock, "replica-1")
    teller = Teller(store, KubernetesCluster(api), recorder, marked.extend)
    tasks = [asyncio.create_task(recorder.run())]
    try:
        yield Room(server, standings, Witnessed(standings, teller, server.clock), marked)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def test_every_stage_is_told_once_for_each_change() -> None:
    """With an Event each; looks between cost nothing."""
    async with room() as here:
        here.writes()
        for said, told in (([GOOD], ("True", "Cosigned")), ([AWAY], ("False", "WitnessUnreachable"))):
            here.standings.said = said
            for _ in range(5):
                await here.witnessed.look()
            assert here.told() == [told, told]
            assert here.writes() == len(STAGES)
        await asyncio.sleep(1)
        assert here.events() == [
            ("Normal", "Cosigned", "pilot"),
            ("Normal", "Cosigned", "sandbox"),
            ("Warning", "WitnessUnreachable", "pilot"),
            ("Warning", "WitnessUnreachable", "sandbox"),
        ]


async def test_a_write_that_fails_is_made_at_the_next_look() -> None:
    """By the loop itself, and the other stage does not wait for it."""
    async with room() as here:
        here.standings.said = [AWAY]
        here.server.faults.append(Fault(len(here.server.requests) + 1, after_effect=False, kills=False))
        looping = asyncio.create_task(here.witnessed.run())
        await asyncio.sleep(LOOK_SECONDS / 2)
        assert len(here.told()) == 1
        await asyncio.sleep(LOOK_SECONDS)
        assert here.told() == [("False", "WitnessUnreachable")] * 2
        looping.cancel()
        await asyncio.wait({looping})


async def test_a_pass_leaves_what_is_told_of_witnesses() -> None:
    """A stage that is decided on anew keeps the condition, and without witnesses it goes."""
    async with room() as here:
        here.standings.said = [AWAY]
        await here.witnessed.look()
        async with world(here.server) as working:
            here.server.apply(manifests.stage("pilot", rank=1, freeze=True))
            await working.pass_time(2)
        assert here.told() == [("False", "WitnessUnreachable")] * 2
        for name in STAGES:
            body = here.server.find("stagepolicies", name, "")
            here.witnessed.teller.store.put(parse({**(body or {}), "kind": "StagePolicy"}))
        here.standings.said = []
        await here.witnessed.look()
        assert here.told() == []
