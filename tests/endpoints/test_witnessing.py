from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilot_identity.adapters.witness_state import FileState
from pilot_identity.core.audit.checkpoint import Checkpoint, LogSigner
from pilot_identity.core.audit.cosignature import Cosigner
from pilot_identity.core.audit.proofs import Tree
from pilot_identity.core.witness.judgement import Refusal
from pilot_identity.core.witness.request import MAX_REQUEST_BYTES, AddCheckpoint, origin_hash
from pilot_identity.endpoints.server import listen
from pilot_identity.endpoints.witnessing import STATUSES, Witnessing
from pilot_identity.ports import Conflict, Cosigned, Unavailable
from tests.fakes.clock import SetClock

LOG = LogSigner("pilots.example.org/log", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
WITNESS = Cosigner("witness.example.org/w1", Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))


def tree(salt: str = "") -> Tree:
    """A log of forty entries; another salt makes another history."""
    return Tree(hashlib.sha256(f"{salt}{number}".encode()).digest() for number in range(40))


TREE, OTHER = tree(), tree("other")


def asked(old: int, size: int, of: Tree = TREE) -> AddCheckpoint:
    """A log's request to go from one size to another."""
    note = LOG.sign(Checkpoint(LOG.name, size, of.root(size)))
    return AddCheckpoint(old, of.consistency(old, size) if 0 < old <= size else (), note)


@dataclass
class Served:
    """A witness, and what it is asked."""

    witnessing: Witnessing
    clock: SetClock
    port: int = 0
    headers: dict[str, str] = field(default_factory=dict)

    async def post(self, body: AddCheckpoint | bytes) -> tuple[int, str]:
        """Post a request; returns the status and the text."""
        content = body if isinstance(body, bytes) else str(body).encode()
        url = f"http://localhost:{self.port}/add-checkpoint"
        async with aiohttp.ClientSession() as session, session.post(url, data=content) as answer:
            self.headers = dict(answer.headers)
            return answer.status, await answer.text()

    async def newest(self, origin: str = LOG.name) -> tuple[int, str]:
        """Ask for the newest head that was cosigned, as a monitor does."""
        url = f"http://localhost:{self.port}/{origin_hash(origin)}/checkpoint"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return answer.status, await answer.text()


Serve = Callable[..., AbstractAsyncContextManager[Served]]


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """Serves a witness whose state outlives it."""

    @asynccontextmanager
    async def run(state: FileState | None = None, *, may_begin: bool = True) -> AsyncIterator[Served]:
        clock = SetClock()
        kept = state or FileState(tmp_path)
        witnessing = Witnessing(WITNESS, {LOG.name: LOG.verifier()}, kept, clock, may_begin)
        async with listen(witnessing.application(), 0, None) as port:
            yield Served(witnessing, clock, port)

    return run


async def test_heads_that_go_on_are_cosigned(serve: Serve) -> None:
    """The answer's lines and the head that was sent are a cosigned head; monitors get it, too."""
    async with serve() as served:
        for old, size in ((0, 7), (7, 20), (20, 20)):
            served.clock.turn(61)
            request = asked(old, size)
            status, line = await served.post(request)
            assert status == 200
            assert WITNESS.verifier().cosigned_at(request.note + line) == served.clock()
            assert await served.newest() == (200, request.note + line)
        assert served.witnessing.cosigned == 3


async def test_the_state_outlives_the_process(serve: Serve) -> None:
    """What the next one is asked it holds to what this one cosigned; nothing more is trusted at first use."""
    async with serve() as served:
        assert (await served.post(asked(0, 20)))[0] == 200
    async with serve(may_begin=False) as served:
        assert await served.post(asked(0, 30)) == (409, "20\n")
        assert served.headers["Content-Type"] == "text/x.tlog.size"
        assert (await served.post(asked(20, 30)))[0] == 200


REFUSED = {
    Refusal.UNKNOWN_LOG: str(asked(20, 30)).replace(LOG.name, "other.example.org").encode(),
    Refusal.NOT_SIGNED: str(asked(20, 30)).replace("\n30\n", "\n31\n").encode(),
    Refusal.OLD_BEYOND: str(asked(31, 30)).encode(),
    Refusal.NOT_THE_LAST: str(asked(19, 30)).encode(),
    Refusal.INCONSISTENT: str(asked(20, 30, OTHER)).encode(),
}


@pytest.mark.parametrize("refusal", REFUSED)
async def test_refusals_have_the_protocols_statuses(serve: Serve, refusal: Refusal) -> None:
    """And change nothing."""
    async with serve() as served:
        _, line = await served.post(asked(0, 20))
        status, _ = await served.post(REFUSED[refusal])
        assert status == STATUSES[refusal]
        assert served.witnessing.refused[refusal] == 1
        assert await served.newest() == (200, asked(0, 20).note + line)


async def test_a_head_that_does_not_go_on_is_told_and_not_too_often(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """With the log's signature, which may be evidence; anybody may send it again and again."""
    async with serve() as served:
        await served.post(asked(0, 20))
        for _ in range(3):
            assert (await served.post(asked(20, 20, OTHER)))[0] == 422
        assert len(caplog.messages) == 1
        assert f"{asked(20, 20, OTHER).note!r}" in caplog.messages[0]
        served.clock.turn(10)
        await served.post(asked(20, 20, OTHER))
        assert len(caplog.messages) == 2
        assert served.witnessing.refused[Refusal.INCONSISTENT] == 4


async def test_a_log_of_which_nothing_is_known_must_be_let_begin(serve: Serve) -> None:
    """A state that was lost is not made up anew, whatever the log shows."""
    async with serve(may_begin=False) as served:
        assert (await served.post(asked(0, 20)))[0] == 404
        assert (await served.newest())[0] == 404


async def test_a_clock_that_went_back_cosigns_nothing(serve: Serve) -> None:
    """A later head never bears an earlier time."""
    async with serve() as served:
        await served.post(asked(0, 20))
        served.clock.turn(-1)
        assert (await served.post(asked(20, 30)))[0] == 503
        served.clock.turn(1)
        assert (await served.post(asked(20, 30)))[0] == 200


async def test_the_same_head_is_cosigned_once_a_minute(serve: Serve) -> None:
    """Anybody may send it again; that must not cost a write each time."""
    async with serve() as served:
        first = await served.post(asked(0, 20))
        served.clock.turn(59)
        assert await served.post(asked(20, 20)) == first
        served.clock.turn(1)
        assert await served.post(asked(20, 20)) != first
        assert served.witnessing.cosigned == 2


@pytest.mark.parametrize(
    "body, status",
    [
        (b"", 400),
        (b"old x\n\nnonsense", 400),
        (b"x" * (MAX_REQUEST_BYTES + 1), 413),
    ],
    ids=["nothing", "nonsense", "too much"],
)
async def test_what_is_no_request_is_refused(serve: Serve, body: bytes, status: int) -> None:
    """Before anything is read or looked up."""
    async with serve() as served:
        assert (await served.post(body))[0] == status


class Rivalled(FileState):
    """A state into which another replica writes just before this one does.

    Attributes:
        rival: what the other one cosigns, each once.
    """

    rival: list[str]

    async def replace(self, origin: str, before: Cosigned, note: str) -> None:
        """Let the other be faster."""
        if self.rival:
            await super().replace(origin, await self.read(origin), self.rival.pop(0))
        await super().replace(origin, before, note)


async def test_two_replicas_cosign_one_history(serve: Serve, tmp_path: Path) -> None:
    """The slower one finds that the log is elsewhere by now, and does not return what it had signed."""
    state = Rivalled(tmp_path)
    other = asked(0, 20, OTHER).note
    state.rival = [other + WITNESS.cosign(other, SetClock()())]
    async with serve(state) as served:
        assert await served.post(asked(0, 30)) == (409, "20\n")
        assert (await served.post(asked(20, 30)))[0] == 422
        assert served.witnessing.cosigned == 0


async def test_of_requests_at_once_one_history_comes(serve: Serve) -> None:
    """Both of two histories ask at the same time, many times: one of them is cosigned, once."""
    async with serve() as served:
        answers = await asyncio.gather(
            *(served.post(asked(0, 20, history)) for _ in range(8) for history in (TREE, OTHER))
        )
        assert {status for status, _ in answers} <= {200, 409, 422}
        assert sum(status == 200 for status, _ in answers) == 1


class Away(FileState):
    """A state that cannot be reached."""

    async def read(self, origin: str) -> Cosigned:
        """Fail."""
        raise Unavailable(origin)


class Contended(FileState):
    """A state that somebody else always changes first."""

    async def replace(self, origin: str, before: Cosigned, note: str) -> None:
        """Fail."""
        del before, note
        raise Conflict(origin)


@pytest.mark.parametrize("kind", [Away, Contended])
async def test_without_its_state_it_cosigns_nothing(
    serve: Serve, tmp_path: Path, kind: type[FileState]
) -> None:
    """The log is told to come again."""
    async with serve(kind(tmp_path)) as served:
        assert (await served.post(asked(0, 20)))[0] == 503
        assert served.witnessing.cosigned == 0


async def test_a_state_that_it_did_not_write_is_not_taken_for_nothing(serve: Serve, tmp_path: Path) -> None:
    """Another witness's head, or a damaged one, is not overwritten."""
    note = asked(0, 20).note
    stranger = Cosigner("stranger.example.org", Ed25519PrivateKey.generate())
    state = FileState(tmp_path)
    foreign = note + stranger.cosign(note, dt.datetime.now(dt.UTC))
    await state.replace(LOG.name, Cosigned("", ""), foreign)
    async with serve(state) as served:
        assert (await served.post(asked(0, 30)))[0] == 503
        assert (await state.read(LOG.name)).note == foreign


async def test_only_what_counts_is_kept(serve: Serve) -> None:
    """Lines of strangers do not come back to monitors."""
    request = asked(0, 20)
    stranger = Cosigner("stranger.example.org", Ed25519PrivateKey.generate())
    noisy = request.note + stranger.cosign(request.note, dt.datetime.now(dt.UTC))
    async with serve() as served:
        status, line = await served.post(AddCheckpoint(0, (), noisy))
        assert status == 200
        assert await served.newest() == (200, request.note + line)


def test_every_refusal_has_a_status() -> None:
    """None falls through."""
    assert set(STATUSES) == set(Refusal)
