from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from pilot_identity.adapters.audit_log import LOOK_SECONDS, ConfigMapLog, Halted
from pilot_identity.clocks import Instant
from pilot_identity.core.audit.chain import FRESH_SECONDS, GRACE_SECONDS
from pilot_identity.core.audit.entries import Entry, EntryType
from pilot_identity.core.audit.groups import BrokenLogError, group_name
from pilot_identity.core.decisions.plan import Notice
from pilot_identity.ports import Unavailable
from tests.adapters.test_compaction import (
    SIGNER,
    Sleepy,
    compact_all,
    entry,
    fill,
    ids,
    names,
    running,
    writer,
)
from tests.fakes.clock import START, LoopClock
from tests.fakes.server import HOME, FakeApi, FakeServer, Object, Place

pytestmark = pytest.mark.looptime


class Pausable:
    """A machine's clocks, which stand still while it is paused and do not know of it afterwards."""

    def __init__(self) -> None:
        self._lost = 0.0
        self._paused_at: Instant | None = None

    def __call__(self) -> Instant:
        """This moment, as far as the machine knows."""
        now = Instant.now()
        return Instant(now.loop - self._lost, now.boot, now.wall)

    def pause(self) -> None:
        """Stop them."""
        self._paused_at = Instant.now()

    def resume(self) -> None:
        """Let them go on from where they stood."""
        assert self._paused_at is not None
        self._lost += self._paused_at.until(Instant.now())
        self._paused_at = None


class Notes:
    """A recorder that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def tell(self, notice: Notice, index: int) -> None:
        """Keep the type and the reason."""
        assert index == -1
        self.told.append((notice.type, str(notice.reason)))


def announcement(number: int) -> Entry:
    """An entry that a credential waits for."""
    data = {"credential": {"id": f"c{number}", "issuance": 1}}
    uid = f"uid-{number}"
    return Entry(f"{uid}/credential/1", EntryType.GRANT_ISSUED, "TaskGrant team-a/z", uid, START, data)


def take_away(server: FakeServer, *sizes: int) -> list[tuple[Place, Object]]:
    """Delete groups past every policy, as whoever restores a backup does; returns what they were."""
    places = [Place("configmaps", HOME, group_name(size)) for size in sizes]
    return [(place, server.objects.pop(place)) for place in places]


def put_back(server: FakeServer, taken: list[tuple[Place, Object]]) -> None:
    """Create them again, as other objects with the same contents."""
    for place, body in taken:
        del body["metadata"]["uid"]
        server.plant(place, body)


async def test_a_machine_that_was_paused_with_all_its_clocks_does_not_fork_the_log() -> None:
    """The API server's clock went on: the group is taken back, nobody is told it, its entry is said again."""
    server, machine = FakeServer(LoopClock()), Pausable()
    api = Sleepy(server)
    paused = ConfigMapLog(api, HOME, SIGNER, on_read=lambda _: None, now=machine)
    other = writer(server)
    async with running(paused, other):
        await fill(paused, 0, 100)
        api.may_write.clear()
        late = asyncio.create_task(paused.commit([announcement(1000)]))
        await asyncio.sleep(0.1)  # it has looked, and is about to write
        machine.pause()
        await fill(other, 100, 700)
        await compact_all(other)
        assert names(server, "group")[0] > 100
        machine.resume()
        api.may_write.set()
        assert await late == 700
    assert ids(server)[-1] == "uid-1000/credential/1"
    assert len(ids(server)) == 701
    again = writer(server)
    await again.open()
    assert again.steps("uid-1000") == {"credential/1": 700}


@pytest.mark.parametrize("until", [256, 300])
async def test_a_group_that_others_went_on_from_while_its_writer_slept_is_left(until: int) -> None:
    """Its answer came late: it lies in the log, over the edge of a bundle or in one, and loses no entry."""
    server = FakeServer(LoopClock())
    api = LateAnswer(server)
    sleeper, other = ConfigMapLog(api, HOME, SIGNER, on_read=lambda _: None), writer(server)
    async with running(sleeper, other):
        await fill(sleeper, 0, 200)
        api.may_answer.clear()
        late = asyncio.create_task(sleeper.commit([entry(number) for number in range(200, until)]))
        await asyncio.sleep(0.1)  # its group stands
        await fill(other, until, until + 10)
        await compact_all(other)
        assert names(server, "tile") == [0]
        api.may_answer.set()
        assert await late == until - 1
        assert await sleeper.commit([entry(1000)]) == until + 10
        await compact_all(sleeper)
    assert ids(server) == [f"uid-{number}/{number}" for number in (*range(until + 10), 1000)]


class LateAnswer(FakeApi):
    """A process that is stopped while the answer to its write is on its way."""

    def __init__(self, server: FakeServer) -> None:
        super().__init__(server)
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def call(self, method: str, path: str, *arguments: object, **options: object) -> object:
        """Hear the answer to a write later."""
        answer = await super().call(method, path, *arguments, **options)  # type: ignore[arg-type]
        if method == "POST":
            await self.may_answer.wait()
        return answer


async def test_under_load_nothing_is_asked_beside_the_writes() -> None:
    """Within the time in which no rival can be gone, by both clocks, a group costs its write alone."""
    server = FakeServer(LoopClock())
    log = writer(server)
    async with running(log):
        await log.commit([entry(0)])
        asked = len(server.requests)
        for number in range(1, 50):
            await log.commit([entry(number)])
            await asyncio.sleep(LOOK_SECONDS / 60)
        requests = [str(request) for request in server.requests[asked:]]
    assert len([request for request in requests if request.startswith("POST")]) == 49
    assert len(requests) <= 49 + 2, requests


async def test_after_a_rest_what_is_written_is_looked_at_before_it_counts() -> None:
    """The head may be old by the API server's clock: is it there, and has a bundle the group's place?"""
    server = FakeServer(LoopClock())
    log = writer(server)
    async with running(log):
        await log.commit([entry(0)])
        await asyncio.sleep(FRESH_SECONDS + 2)
        asked = len(server.requests)
        await log.commit([entry(1)])
        methods = [request.method for request in server.requests[asked:]]
    assert methods.index("POST") < len(methods) - 1
    assert len(methods) <= 5, "the write, and four questions"


def newest(server: FakeServer) -> list[int]:
    """The two newest groups."""
    return names(server, "group")[-2:]


def in_the_middle(server: FakeServer) -> list[int]:
    """One that is neither the first nor the newest."""
    return names(server, "group")[1:2]


@pytest.mark.parametrize("choose", [newest, in_the_middle])
@pytest.mark.parametrize("rest", [0.0, FRESH_SECONDS + 1, 2 * GRACE_SECONDS + 10])
async def test_behind_a_hole_nothing_is_written_and_all_is_told(
    rest: float, choose: Callable[[FakeServer], list[int]]
) -> None:
    """Groups went that no bundle has. Put back, as other objects, the log goes on from them by itself."""
    server, notes = FakeServer(LoopClock()), Notes()
    log = ConfigMapLog(FakeApi(server), HOME, SIGNER, on_read=lambda _: None, recorder=notes)
    async with running(log):
        await fill(log, 0, 180)
        await asyncio.sleep(rest)
        taken = take_away(server, *choose(server))
        await asyncio.sleep(2 * GRACE_SECONDS + 10)
        left = names(server, "group")
        with pytest.raises(Halted, match="has a hole"):
            await log.commit([announcement(1000)])
        assert names(server, "group") == left
        assert log.blockage.is_there
        assert notes.told == [("Warning", "AuditLogHalted")]
        put_back(server, taken)
        await asyncio.sleep(LOOK_SECONDS + 1)
        assert log.blockage.cause == ""
        assert notes.told[1:] == [("Normal", "AuditLogGoesOn")]
        assert await log.commit([announcement(1000)]) == 180
        await fill(log, 181, 300)
        await compact_all(log)
    assert names(server, "tile") == [0], "what was put back is compacted, and goes"
    assert len(names(server, "group")) < 3
    assert len(ids(server)) == 300


@pytest.mark.parametrize("rest", [0.0, FRESH_SECONDS + 1])
async def test_a_hole_is_found_by_whoever_writes_before_the_next_look(rest: float) -> None:
    """After a rest, or a lost answer: what was written behind the hole is taken back before it is told."""
    server = FakeServer(LoopClock())
    log = writer(server)
    async with running(log):
        await fill(log, 0, 180)
        await asyncio.sleep(rest)
        if not rest:
            server.refused.add("configmaps")
            with pytest.raises(Exception, match="403"):
                await log.commit([entry(500)])
            server.refused.clear()
        take_away(server, 60, 120)
        with pytest.raises(Halted, match="audit-group-0000000000000120 is gone"):
            await log.commit([announcement(1000)])
        assert names(server, "group") == [0]


async def test_a_group_that_was_replaced_is_a_hole_too() -> None:
    """Under its name another stands, signed by the log's key: the entries are gone all the same."""
    server = FakeServer(LoopClock())
    rival = FakeServer(server.clock)
    log, other = writer(server), writer(rival)
    async with running(log, other):
        await fill(log, 0, 60)
        await other.commit([entry(number) for number in range(1000, 1060)])
        take_away(server, 0)
        place = Place("configmaps", HOME, group_name(0))
        server.plant(
            place, rival.objects[place] | {"metadata": {**rival.objects[place]["metadata"], "uid": "x"}}
        )
        await asyncio.sleep(LOOK_SECONDS + 1)
        with pytest.raises(Halted, match="was replaced"):
            await log.commit([entry(60)])


async def test_a_group_that_was_put_back_with_another_word_is_a_hole() -> None:
    """Under its own signed head, but not as it was: the operator does not take up what it did not write."""
    server = FakeServer(LoopClock())
    log = writer(server)
    async with running(log):
        await fill(log, 0, 180)
        [(place, body)] = take_away(server, 120)
        body["data"]["entries"] = body["data"]["entries"].replace("uid-150", "uid-999")
        put_back(server, [(place, body)])
        await asyncio.sleep(LOOK_SECONDS + 1)
        with pytest.raises(Halted, match="was replaced"):
            await log.commit([entry(180)])


async def test_a_loss_that_is_accepted_ends_with_a_restart() -> None:
    """What stands behind the hole keeps a start from it until people take it away; then the rest goes on."""
    server = FakeServer(LoopClock())
    log = writer(server)
    async with running(log):
        await fill(log, 0, 180)
    take_away(server, 60)
    with pytest.raises(BrokenLogError, match=r"audit-group-0000000000000120: .* a group is missing"):
        await writer(server).open()
    take_away(server, 120)
    again = writer(server)
    async with running(again):
        assert await again.commit([entry(1000)]) == 60
    assert len(ids(server)) == 61


async def test_what_is_owed_waits_until_the_hole_is_mended() -> None:
    """Withdrawals do not wait for the log: what they owe it is paid when it takes entries again."""
    server = FakeServer(LoopClock())
    log = writer(server)
    async with running(log):
        await fill(log, 0, 180)
        paying = asyncio.create_task(log.pay())
        taken = take_away(server, 120)
        await asyncio.sleep(LOOK_SECONDS + 1)
        log.owe([entry(180)])
        await asyncio.sleep(60)
        assert not paying.done()
        put_back(server, taken)
        await asyncio.sleep(60)
        paying.cancel()
    assert ids(server)[-1] == "uid-180/180"


async def test_an_api_server_that_does_not_answer_is_no_hole() -> None:
    """Nothing is known then, and nothing is told."""
    server = FakeServer(LoopClock())
    log = writer(server)
    async with running(log):
        await fill(log, 0, 60)
        server.refused.add("configmaps")
        await asyncio.sleep(300)
        assert not log.blockage.is_there
        server.refused.clear()
        assert await log.commit([entry(60)]) == 60


async def test_two_operators_that_look_after_each_other_s_log_halt_nobody() -> None:
    """What one compacts and deletes is no hole to the other, however long it was idle."""
    server = FakeServer(LoopClock())
    busy, idle = writer(server), writer(server)
    async with running(busy, idle):
        for since in range(0, 3000, 300):
            await fill(busy, since, since + 300)
            await compact_all(busy)
            await asyncio.sleep(LOOK_SECONDS * 3)
            assert not idle.blockage.is_there, idle.blockage.cause
        assert await idle.commit([entry(3000)]) == 3000
    assert len(ids(server)) == 3001


def test_a_halted_log_is_unavailable_to_whoever_waits() -> None:
    """They try again, as whenever the log does not answer; a defect would be told otherwise."""
    assert issubclass(Halted, Unavailable)
