"""The log's side of the protocol, against the real endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilot_identity.adapters import witnesses
from pilot_identity.adapters.audit_archived import ArchivedConfigMaps
from pilot_identity.adapters.audit_log import ConfigMapLog
from pilot_identity.adapters.audit_tiles import TileConfigMaps
from pilot_identity.adapters.witness_state import FileState
from pilot_identity.adapters.witnesses import (
    COSIGNED_CONFIG_MAP,
    VKEYS,
    Address,
    WitnessedOtherwiseError,
    WitnessError,
    Witnesses,
    WitnessRefusalError,
)
from pilot_identity.core.audit.archived import Archived
from pilot_identity.core.audit.checkpoint import LogSigner
from pilot_identity.core.audit.cosignature import Cosigner
from pilot_identity.core.audit.entries import Entry, EntryType
from pilot_identity.core.audit.groups import BrokenLogError
from pilot_identity.core.audit.growth import Growth
from pilot_identity.core.decisions.witnessed import WitnessStanding
from pilot_identity.core.resources.conditions import Reason
from pilot_identity.endpoints.server import listen
from pilot_identity.endpoints.witnessing import Witnessing
from pilot_identity.ports import Unavailable
from tests.fakes.clock import START, SetClock
from tests.fakes.server import HOME, FakeApi, FakeServer, Fault, Object, Place

LOG = LogSigner("pilots.example.org/log", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
WITNESS = Cosigner("witness.example.org/w1", KEY)


@dataclass
class Desk:
    """An operator's log, and its side of the protocol.

    Attributes:
        server: the API server that both are stored in.
        log: the log.
        asking: what posts its heads.
    """

    server: FakeServer
    log: ConfigMapLog
    asking: Witnesses
    growth: Growth

    async def add(self, count: int, *, kind: EntryType = EntryType.GRANT_CLOSED) -> None:
        """Commit so many entries, in groups of a hundred; those of another kind make another history."""
        size = self.log.size
        for at in range(size, size + count, 100):
            numbers = range(at, min(at + 100, size + count))
            await self.log.commit(
                [Entry(f"uid/{number}", kind, "TaskGrant a/b", "uid", START, {}) for number in numbers]
            )

    async def bring(self) -> None:
        """Bring the only witness to the head."""
        (peer,) = self.asking._peers  # noqa: SLF001 - what `run` does, once and awaited
        async with aiohttp.ClientSession() as session:
            await self.asking._recall(peer)  # noqa: SLF001
            await self.asking.bring(peer, session)

    def published(self) -> Object | None:
        """What stands beside the log."""
        found = self.server.find("configmaps", COSIGNED_CONFIG_MAP, HOME)
        return dict(found["data"]) if found is not None else None


@asynccontextmanager
async def desk(url: str, server: FakeServer | None = None) -> AsyncIterator[Desk]:
    """An operator that is at work; on the server of another one it takes up that one's log."""
    server = server or FakeServer(SetClock())
    api, growth = FakeApi(server), Growth()
    log = ConfigMapLog(api, HOME, LOG, on_read=lambda _: None, growth=growth)
    await log.open()
    writer = asyncio.create_task(log.run())
    address = Address(WITNESS.verifier(), url)
    try:
        yield Desk(server, log, Witnesses(api, HOME, LOG, growth, [address], server.clock), growth)
    finally:
        writer.cancel()
        await asyncio.wait([writer])


@dataclass
class Served:
    """A witness, and where it is."""

    witnessing: Witnessing
    url: str


@asynccontextmanager
async def witness(directory: Path, cosigner: Cosigner = WITNESS) -> AsyncIterator[Served]:
    """A witness with its state in a directory."""
    witnessing = Witnessing(
        cosigner, {LOG.name: LOG.verifier()}, FileState(directory), SetClock(), may_begin=True
    )
    async with listen(witnessing.application(), 0, None) as port:
        yield Served(witnessing, f"http://localhost:{port}/")


async def test_each_head_is_cosigned_and_published(tmp_path: Path) -> None:
    """Under the id of the witness's key, with the key itself."""
    async with witness(tmp_path) as served, desk(served.url) as here:
        for count in (3, 4):
            await here.add(count)
            assert here.asking.behind == count
            await here.bring()
            published = here.published()
            assert published is not None
            note = published[WITNESS.verifier().identifier.hex()]
            assert LOG.verifier().open(note).size == here.log.size
            assert WITNESS.verifier().cosigned_at(note) == START
            assert published[VKEYS] == f"{WITNESS.verifier()}\n"
            assert (here.asking.cosigned, here.asking.behind) == (here.log.size, 0)


async def test_a_restarted_operator_goes_on_where_the_witness_stands(tmp_path: Path) -> None:
    """By what is published; and where that is gone, by what the witness says."""
    server = FakeServer(SetClock())
    async with witness(tmp_path) as served:
        async with desk(served.url, server) as here:
            await here.add(5)
            await here.bring()
        async with desk(served.url, server) as here:
            await here.add(5)
            await here.bring()
            assert here.asking.cosigned == 10
        server.lose("configmaps", COSIGNED_CONFIG_MAP, HOME)
        async with desk(served.url, server) as here:
            await here.add(5)
            await here.bring()
            assert here.asking.cosigned == 15
        assert served.witnessing.cosigned == 3


@pytest.mark.parametrize("seen", [0, 100, 256, 300])
async def test_a_witness_that_is_far_behind_comes_in_steps(
    tmp_path: Path, seen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is no longer in memory is proven from bundles, from wherever the witness stands."""
    monkeypatch.setattr(witnesses, "BUNDLES_AT_ONCE", 2)
    server = FakeServer(SetClock())
    async with witness(tmp_path) as served:
        async with desk(served.url, server) as here:
            if seen:
                await here.add(seen)
                await here.bring()
            await here.add(1500 - seen)
            await compact(here)
        async with desk(served.url, server) as here:
            assert here.growth.start == 1280
            await here.bring()
            assert here.asking.cosigned == 1500
        # Where it stood at nothing the head needs no proof; else there are steps of two bundles.
        assert served.witnessing.cosigned == {0: 1, 100: 5, 256: 4, 300: 4}[seen]


async def compact(here: Desk) -> None:
    """Compact all that can be, as if it were old enough."""
    for standing in here.log._chain._standing.values():  # noqa: SLF001 - instead of waiting
        here.log._chain.date(standing, since=float("-inf"))  # noqa: SLF001
    while await here.log.compaction.compact_next():
        pass


async def test_where_the_archive_ends_a_proof_begins(tmp_path: Path) -> None:
    """The record of the archive has the edge that the bundle before would have had."""
    server = FakeServer(SetClock())
    async with witness(tmp_path) as served:
        async with desk(served.url, server) as here:
            await here.add(300)
            await here.bring()
            await here.add(500)
            await compact(here)
            first = await TileConfigMaps(FakeApi(server), HOME).read(0)
        assert first is not None
        await ArchivedConfigMaps(FakeApi(server), HOME).write(
            Archived(256, first.edge, first.note).sealed(LOG)
        )
        del server.objects[Place("configmaps", HOME, "audit-tile-0000000000000000")]
        async with desk(served.url, server) as here:
            await here.bring()
            assert here.asking.cosigned == 800


async def test_a_bundle_that_is_gone_is_told(tmp_path: Path) -> None:
    """Not passed over: what lies between could not be proven."""
    server = FakeServer(SetClock())
    async with witness(tmp_path) as served:
        async with desk(served.url, server) as here:
            await here.add(100)
            await here.bring()
            await here.add(500)
            await compact(here)
        async with desk(served.url, server) as here:
            del server.objects[Place("configmaps", HOME, "audit-tile-0000000000000000")]
            with pytest.raises(BrokenLogError, match="entry 0 on is not there to prove from"):
                await here.bring()


async def test_a_log_that_was_cut_is_refused_and_told(tmp_path: Path) -> None:
    """The witness saw more than there is; later, longer again, it is another history."""
    async with witness(tmp_path) as served:
        async with desk(served.url) as here:
            await here.add(20)
            await here.bring()
        async with desk(served.url) as here:
            await here.add(10, kind=EntryType.GRANT_DENIED)
            with pytest.raises(WitnessedOtherwiseError, match="it cosigned 20 entries, this log has 10"):
                await here.bring()
            await here.add(50)
            with pytest.raises(WitnessedOtherwiseError, match="it answers 422"):
                await here.bring()
            assert here.published() is None


async def test_what_was_cosigned_and_not_published_is_published_later(tmp_path: Path) -> None:
    """The head is due again, although the witness has cosigned it."""
    async with witness(tmp_path) as served, desk(served.url) as here:
        await here.add(3)
        # What is published is looked up when it begins, and again before it is written.
        fault = Fault(len(here.server.requests) + 2, after_effect=False, kills=False)
        here.server.faults.append(fault)
        with pytest.raises(Unavailable):
            await here.bring()
        assert str(fault.struck) == "POST configmaps"
        (peer,) = here.asking._peers  # noqa: SLF001 - whether `run` would ask again at once
        assert here.asking._is_due(peer)  # noqa: SLF001
        await here.bring()
        assert here.published() is not None
        assert not here.asking._is_due(peer)  # noqa: SLF001


async def test_an_imposter_is_not_believed(tmp_path: Path) -> None:
    """A cosignature by another key than the one that was configured is none, even under its name."""
    other = Cosigner(WITNESS.name, Ed25519PrivateKey.generate())
    async with witness(tmp_path, other) as served, desk(served.url) as here:
        await here.add(3)
        with pytest.raises(Exception, match="no cosignature by"):
            await here.bring()
        assert here.published() is None
        assert here.asking.cosigned == 0


async def test_what_is_published_and_does_not_verify_is_not_believed(tmp_path: Path) -> None:
    """The witness is asked where it stands, as if nothing were there."""
    async with witness(tmp_path) as served, desk(served.url) as here:
        await here.add(3)
        name = WITNESS.verifier().identifier.hex()
        body = {"metadata": {"name": COSIGNED_CONFIG_MAP}, "data": {name: "nonsense", VKEYS: ""}}
        here.server.plant(("configmaps", HOME, COSIGNED_CONFIG_MAP), body)
        await here.bring()
        assert here.asking.cosigned == 3


ANSWERS = {
    "an error": (500, b"", WitnessError, "it answers 500"),
    "a redirection": (307, b"", WitnessError, "it answers 307"),
    "a refusal": (404, b"no such log\n", WitnessRefusalError, "it answers 404: no such log"),
    "a conflict without a size": (409, b"", WitnessError, "409 without the size"),
    "a conflict with the same size": (409, b"0\n", WitnessError, "409 without the size"),
    "a witness that stands far beyond": (409, b"999999999999\n", WitnessRefusalError, "this log has 3"),
    "no end": (200, b"x" * 70_000, WitnessError, "more than 65536 bytes"),
}


@pytest.mark.parametrize("status, body, kind, told", ANSWERS.values(), ids=ANSWERS)
async def test_a_witness_that_answers_anything_else_is_told(
    status: int, body: bytes, kind: type[Exception], told: str
) -> None:
    """And nothing is published."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, body=body, headers={"Location": "/elsewhere"})

    app = web.Application()
    app.add_routes([web.post("/add-checkpoint", answer)])
    async with listen(app, 0, None) as port, desk(f"http://localhost:{port}") as here:
        await here.add(3)
        with pytest.raises(kind, match=told):
            await here.bring()
        assert here.published() is None


async def test_one_false_conflict_silences_no_witness() -> None:
    """No 409 is signed: whoever answered it once is asked again, from where the witness's signature was."""
    answers = [(409, b"900000000000\n"), (409, b"900000000000\n"), (404, b"no such log\n")]
    asked: list[bytes] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(await request.read())
        status, body = answers[len(asked) - 1]
        return web.Response(status=status, body=body)

    app = web.Application()
    app.add_routes([web.post("/add-checkpoint", answer)])
    async with listen(app, 0, None) as port, desk(f"http://localhost:{port}") as here:
        await here.add(3)
        for told in ("this log has 3", "this log has 3", "no such log"):
            with pytest.raises(WitnessRefusalError, match=told):
                await here.bring()
    assert [each.partition(b"\n")[0] for each in asked] == [b"old 0"] * 3


async def test_a_witness_that_is_away_holds_nothing_up(caplog: pytest.LogCaptureFixture) -> None:
    """Commits go on; figures and the log tell how far behind it is."""
    async with listen(web.Application(), 0, None) as port:
        nobody = port
    async with desk(f"http://localhost:{nobody}") as here:
        running = asyncio.create_task(here.asking.run())
        await here.add(3)
        async with asyncio.timeout(20):
            while not here.asking.failures:  # noqa: ASYNC110 - a figure, as a scrape reads it
                await asyncio.sleep(0.02)
        await here.add(4)
        assert (here.asking.behind, here.asking.refusals) == (7, 0)
        assert "witness.example.org/w1: no answer" in caplog.text
        running.cancel()
        await asyncio.wait([running])


async def shown(here: Desk, reason: Reason | None, *, cosigned: bool = False) -> WitnessStanding:
    """Wait until the witness stands so."""

    def stands() -> bool:
        (one,) = here.asking.standings()
        return (one.trouble.reason if one.trouble else None) is reason and (one.at is not None) is cosigned

    async with asyncio.timeout(20):
        while not stands():  # noqa: ASYNC110 - as people are told, now and then
            await asyncio.sleep(0.02)
    (one,) = here.asking.standings()
    return one


async def test_how_it_stands_with_a_witness(tmp_path: Path) -> None:
    """What began its trouble stays, with its time, until it cosigns again; a restart knows what it did."""
    server = FakeServer(SetClock())
    async with listen(web.Application(), 0, None) as port:
        nobody = port
    async with witness(tmp_path) as served:
        async with desk(served.url, server) as here:
            await here.add(3)
            running = asyncio.create_task(here.asking.run())
            assert (await shown(here, None, cosigned=True)).size == 3
            running.cancel()
            await asyncio.wait([running])
        async with desk(f"http://localhost:{nobody}", server) as here:
            await here.add(1)
            running = asyncio.create_task(here.asking.run())
            found = await shown(here, Reason.WITNESS_UNREACHABLE, cosigned=True)
            assert (found.name, found.size, found.at) == (WITNESS.name, 3, START)
            assert found.trouble is not None
            assert found.trouble.since == START
            assert found.trouble.message.startswith("no answer: ")
            running.cancel()
            await asyncio.wait([running])
        async with desk(served.url) as here:  # another server: the log was lost, and begins anew
            await here.add(2)
            running = asyncio.create_task(here.asking.run())
            found = await shown(here, Reason.WITNESS_INCONSISTENT)
            assert found.trouble is not None
            assert "it cosigned 3 entries, this log has 2" in found.trouble.message
            running.cancel()
            await asyncio.wait([running])


async def test_memory_is_bounded_however_long_a_witness_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it lacks is kept up to the window; what no witness lacks goes at once."""
    monkeypatch.setattr(witnesses, "WINDOW", 512)
    async with desk("http://localhost:1") as here:
        await here.add(1024)
        here.asking._forget()  # noqa: SLF001 - what `run` does after each look
        assert here.growth.start == 0
        await here.add(300)
        here.asking._forget()  # noqa: SLF001
        assert here.growth.start == 768
        (peer,) = here.asking._peers  # noqa: SLF001
        peer.stands_at = 1320
        await here.add(600)
        here.asking._forget()  # noqa: SLF001
        assert here.growth.start == 1280


@pytest.mark.parametrize("url", ["", "ftp://x", "http://", "http://a b", "http://a?b", "http://a#b"])
def test_an_address_is_a_url(url: str) -> None:
    """Said before anything starts."""
    with pytest.raises(ValueError, match="begins with http"):
        Address(WITNESS.verifier(), url)
