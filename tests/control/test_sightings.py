from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pilot_identity.adapters.kubernetes.cluster import KubernetesCluster
from pilot_identity.control import sightings as module
from pilot_identity.control.sightings import BATCH, PACE, TooMuchError
from pilot_identity.core.audit.access import Account, Target
from pilot_identity.core.audit.entries import EntryType, RecordedEntry
from pilot_identity.core.resources import TaskGrant, parse
from pilot_identity.ports import Conflict
from tests.fakes.clock import START, LoopClock
from tests.fakes.desk import Desk, desk
from tests.fakes.server import FakeServer, Fault
from tests.fakes.used import plant, planted, request

pytestmark = pytest.mark.looptime


@asynccontextmanager
async def opened(*bodies: dict[str, Any]) -> AsyncIterator[Desk]:
    """A desk over a server with these grants."""
    clock = LoopClock()
    server = FakeServer(clock)
    plant(server, *bodies)
    async with desk(server, clock) as here:
        yield here


def parsed(body: dict[str, Any]) -> TaskGrant:
    """A grant as it is read."""
    body["metadata"].setdefault("resourceVersion", "7")
    grant = parse(body)
    assert isinstance(grant, TaskGrant)
    return grant


def seen(here: Desk) -> list[RecordedEntry]:
    """The entries on access."""
    return here.entries(EntryType.ACCESS_SEEN)


async def test_a_first_use_is_told_at_once() -> None:
    """In the log, and then in the status."""
    async with opened(planted()) as here:
        grant = here.grant()
        here.sightings.take([request(grant, 1), request(grant, 2, code=403)])
        await asyncio.sleep(0.1)
        (entry,) = seen(here)
        assert entry.subject == "TaskGrant team-a/task-1"
        assert entry.subject_uid == grant.metadata.uid
        assert entry.data["requests"] == 2
        assert entry.data["refused"] == 1
        assert entry.data["pilot"] == "triage"
        assert entry.data["tokens"] == [{"credentialID": "token-1", "requests": 2, "isKnown": True}]
        assert entry.data["receiver"] == "r1"
        assert here.usage() == {
            "firstUsed": "2026-06-01T12:00:01Z",
            "lastUsed": "2026-06-01T12:00:02Z",
            "requests": 2,
            "refused": 1,
        }


async def test_use_is_told_once_a_minute_while_it_goes_on() -> None:
    """A thousand requests are two entries and two writes of a status."""
    async with opened(planted()) as here:
        for second in range(100):
            here.sightings.take(request(here.grant(), second) for _ in range(10))
            await asyncio.sleep(0.5)
        await asyncio.sleep(60)
        assert [entry.data["requests"] for entry in seen(here)] == [10, 990]
        assert here.usage()["requests"] == 1000
        writes = [str(request) for request in here.server.requests if request.is_status]
        assert writes == ["PATCH taskgrants/task-1/status"] * 2


async def test_nothing_is_told_where_nothing_was_used() -> None:
    """No entry, no write, and nothing stays in memory."""
    async with opened(planted()) as here:
        here.sightings.take([request(here.grant())])
        await asyncio.sleep(300)
        assert len(seen(here)) == 1
        assert len(here.sightings) == 0


async def test_the_end_of_a_grant_is_told_at_once() -> None:
    """With what was seen since the last entry."""
    body = planted()
    async with opened(body) as here:
        here.sightings.take([request(here.grant(), 1)])
        await asyncio.sleep(3)
        here.sightings.take([request(here.grant(), 2)])
        await asyncio.sleep(3)
        assert len(seen(here)) == 1
        body["status"]["phase"] = "Completed"
        plant(here.server, body)
        await asyncio.sleep(3)
        assert [entry.data["requests"] for entry in seen(here)] == [1, 1]


async def test_what_the_api_server_tells_after_a_grants_end_is_told_too() -> None:
    """What was done after the withdrawal is told apart."""
    ended = planted(phase="Revoked", closure={"outcome": "Revoked", "withdrawnAt": "2026-06-01T12:00:10Z"})
    async with opened(ended) as here:
        here.sightings.take([request(here.grant(), 9), request(here.grant(), 11)])
        await asyncio.sleep(1)
        (entry,) = seen(here)
        late = entry.data["afterEnd"]
        assert (late["requests"], late["allowed"], late["about"]["requests"]) == (1, 1, 1)
        assert here.usage()["requests"] == 2
        assert (here.sightings.figures.allowed_late, here.server.all("events")) == (0, [])


async def test_use_long_after_a_grants_end_is_told_to_people() -> None:
    """By an Event on the grant and by the metrics; neither clocks nor a cache explain it."""
    ended = planted(phase="Revoked", closure={"outcome": "Revoked", "withdrawnAt": "2026-06-01T12:00:00Z"})
    async with opened(ended) as here:
        here.sightings.take([request(here.grant(), 60), request(here.grant(), 61, code=403)])
        await asyncio.sleep(1)
        (event,) = here.server.all("events")
        assert (event["reason"], event["regarding"]["name"]) == ("UsedAfterEnd", "task-1")
        assert event["note"].startswith("1 requests were ")
        assert here.sightings.figures.allowed_late == 1


async def test_a_dead_grants_account_that_is_used_after_a_restart_is_told_to_people() -> None:
    """The operator knows no such grant any more: on the account itself, and by the metrics."""
    async with opened() as here:
        account = Account("team-a", "pilot-grant-0123456789abcdef0123")
        here.sightings.take([request(parsed(planted()), 1, account=account)])
        await asyncio.sleep(1)
        (event,) = here.server.all("events")
        assert (event["reason"], event["regarding"]["kind"]) == ("UsedWithoutGrant", "ServiceAccount")
        assert (event["regarding"]["name"], event["regarding"]["uid"]) == (account.name, "account-uid")
        assert here.sightings.figures.unmatched == 1


async def test_whoever_acts_as_a_grants_account_does_not_use_it() -> None:
    """It is in the entry and in the metrics, and neither in the status nor an alarm."""
    async with opened(planted()) as here:
        here.sightings.take([request(here.grant(), 1, borrower="alice", credential_id="")])
        await asyncio.sleep(1)
        (entry,) = seen(here)
        assert entry.data["requests"] == 0
        assert entry.data["impersonatedBy"]["users"] == [{"user": "alice", "requests": 1}]
        assert here.usage() == {}
        figures = here.sightings.figures
        assert (figures.impersonated, figures.unmatched, figures.unknown_tokens) == (1, 0, 0)
        assert here.server.all("events") == []


async def test_tokens_of_nobodys_are_counted() -> None:
    """What the operator did not issue to the grant."""
    async with opened(planted()) as here:
        here.sightings.take([request(here.grant(), 1), request(here.grant(), 1, credential_id="other")])
        await asyncio.sleep(1)
        assert here.sightings.figures.unknown_tokens == 1


async def test_what_is_told_after_the_object_is_gone_is_still_the_grants() -> None:
    """An owner deletes a grant while the API server still has a batch to send."""
    async with opened(planted()) as here:
        grant = here.grant()
        here.server.lose("taskgrants", "task-1")
        here.sightings.take([request(grant, 1)])
        await asyncio.sleep(1)
        (entry,) = seen(here)
        assert entry.subject_uid == grant.metadata.uid
        assert here.sightings.figures.unmatched == 0


async def test_a_namesake_is_another_grant() -> None:
    """Its account has another name, and its use is its own."""
    async with opened(planted()) as here:
        former = here.grant()
        here.server.lose("taskgrants", "task-1")
        plant(here.server, planted())
        here.sightings.take([request(former, 1)])
        await asyncio.sleep(1)
        assert [entry.subject_uid for entry in seen(here)] == [former.metadata.uid]
        assert here.usage() == {}


async def test_a_namesake_whose_predecessors_end_was_missed_is_another_grant() -> None:
    """A watch that began anew tells the new one and never that the old one went."""
    async with opened(planted()) as here:
        former = here.grant()
        plant(here.server, planted())
        here.sightings.take([request(former, 1), request(here.grant(), 1)])
        await asyncio.sleep(1)
        assert {entry.subject_uid for entry in seen(here)} == {
            former.metadata.uid,
            here.grant().metadata.uid,
        }
        assert here.usage()["requests"] == 1


async def test_an_account_of_no_grant_is_told_by_its_own_name() -> None:
    """Nothing that such an account does is passed over."""
    async with opened(planted()) as here:
        stranger = request(here.grant(), 1, account=Account("team-b", "pilot-grant-0"))
        here.sightings.take([stranger, request(here.grant(), 1, account=Account("team-b", "pilot-grant-0"))])
        await asyncio.sleep(1)
        (entry,) = seen(here)
        assert (entry.subject, entry.subject_uid) == ("ServiceAccount team-b/pilot-grant-0", "account-uid")
        assert entry.data["requests"] == 2
        assert here.sightings.figures.unmatched == 2


async def test_a_grant_that_no_watch_has_told_of_yet_is_found_in_the_store() -> None:
    """A sweep fills the store before the watches begin."""
    async with opened() as here:
        body = planted()
        body["metadata"]["resourceVersion"] = "7"
        grant = parsed(body)
        here.store.put(grant)
        here.sightings.take([request(grant, 1)])
        await asyncio.sleep(1)
        assert [entry.subject_uid for entry in seen(here)] == [grant.metadata.uid]
        assert here.sightings.figures.unmatched == 0


async def test_a_request_that_is_told_again_counts_once() -> None:
    """The API server sends a batch again when it got no answer."""
    async with opened(planted()) as here:
        batch = [request(here.grant(), 1), request(here.grant(), 1)]
        here.sightings.take(batch)
        here.sightings.take(batch)
        await asyncio.sleep(1)
        assert seen(here)[0].data["requests"] == 2
        assert here.sightings.figures.repeated == 2


async def test_a_token_that_was_renewed_stays_known() -> None:
    """Requests with it come in later than the news of its successor."""
    body = planted()
    async with opened(body) as here:
        body["status"]["credential"]["kubernetes"]["credentialID"] = "JTI=token-2"
        plant(here.server, body)
        grant = here.grant()
        here.sightings.take(
            request(grant, 1, credential_id=name) for name in ("token-1", "token-2", "token-3")
        )
        await asyncio.sleep(1)
        known = {token["credentialID"]: token["isKnown"] for token in seen(here)[0].data["tokens"]}
        assert known == {"token-1": True, "token-2": True, "token-3": False}


async def test_ancestors_tell_what_was_delegated_from_them() -> None:
    """Each ancestor's status has the sums of its tree apart from its own; the entry names the chain."""
    root, child = planted("root"), planted("child")
    child["spec"]["parent"] = "root"
    child["status"] |= {"chain": ["root"], "parentUID": root["metadata"]["uid"]}
    leaf = planted("leaf")
    leaf["spec"]["parent"] = "child"
    leaf["status"] |= {"chain": ["root", "child"], "parentUID": child["metadata"]["uid"]}
    async with opened(root, child, leaf) as here:
        here.sightings.take([request(here.grant("leaf"), 1), request(here.grant("leaf"), 2, code=403)])
        here.sightings.reported(here.grant("child"), 3, START + dt.timedelta(seconds=5))
        await asyncio.sleep(70)
        (entry,) = seen(here)
        assert [ancestor["grant"] for ancestor in entry.data["delegation"]] == ["root", "child"]
        used = {"lastUsed": "2026-06-01T12:00:02Z", "requests": 2, "refused": 1}
        assert here.usage("leaf") == {"firstUsed": "2026-06-01T12:00:01Z", **used}
        assert here.usage("child")["activities"] == 3
        assert here.usage("child")["chained"] == used
        assert "requests" not in here.usage("root")
        assert here.usage("root")["chained"] == used | {"lastUsed": "2026-06-01T12:00:05Z", "activities": 3}


async def test_however_many_are_busy_no_more_are_told_than_the_pace_allows() -> None:
    """The others are summed for longer, in turn, and nothing is lost."""
    count = 4 * BATCH
    async with opened(*(planted(f"task-{number}") for number in range(count))) as here:
        grants = [here.grant(f"task-{number}") for number in range(count)]
        for _ in range(10):
            here.sightings.take(request(grant, 1) for grant in grants)
        await asyncio.sleep(0.5 * PACE)
        assert len(seen(here)) == BATCH
        await asyncio.sleep(3 * PACE + 1)
        assert {entry.data["requests"] for entry in seen(here)} == {10}
        assert len(seen(here)) == count
        groups = [body for body in here.server.all("configmaps") if "entries" in body.get("data", {})]
        assert len(groups) == 4


async def test_a_log_that_cannot_be_written_loses_nothing() -> None:
    """The same entry is tried again, once; what came meanwhile is in the next one."""
    async with opened(planted()) as here:
        asked = len(here.server.requests)
        here.server.faults.append(Fault(asked, after_effect=True, kills=False))
        here.sightings.take([request(here.grant(), 1)])
        await asyncio.sleep(1)
        here.sightings.take([request(here.grant(), 2)])
        await asyncio.sleep(120)
        assert [entry.data["requests"] for entry in seen(here)] == [1, 1]
        assert len({entry.id for entry in seen(here)}) == 2
        assert here.usage()["requests"] == 2


async def test_a_status_that_changed_meanwhile_is_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """And each request counts once in it."""
    async with opened(planted()) as here:
        write, failed = KubernetesCluster.write_status, asyncio.Event()

        async def late_once(*arguments: Any) -> Any:
            if not failed.is_set():
                failed.set()
                raise Conflict("changed since")
            return await write(*arguments)

        monkeypatch.setattr(KubernetesCluster, "write_status", late_once)
        here.sightings.take([request(here.grant(), 1)])
        await asyncio.sleep(1)
        assert failed.is_set()
        assert here.usage() == {}
        await asyncio.sleep(10)
        assert here.usage()["requests"] == 1
        assert len(seen(here)) == 1


async def test_who_ends_tells_what_it_knows() -> None:
    """Before the minute is over."""
    async with opened(planted()) as here:
        here.sightings.take([request(here.grant(), 1)])
        await asyncio.sleep(3)
        here.sightings.take([request(here.grant(), 2)])
        await here.sightings.drain()
        assert [entry.data["requests"] for entry in seen(here)] == [1, 1]
        assert here.usage()["requests"] == 2


async def test_who_ends_tells_the_log_all_before_it_writes_a_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though no status can be written in the time that is left, and one is being written already."""
    count = 3 * BATCH

    async def hang(*_: Any) -> None:
        await asyncio.Event().wait()

    async with opened(*(planted(f"task-{number}") for number in range(count))) as here:
        monkeypatch.setattr(KubernetesCluster, "write_status", hang)
        here.sightings.take(request(here.grant(f"task-{number}"), 1) for number in range(count))
        await asyncio.sleep(1)
        assert len(seen(here)) == BATCH
        here.sightings.take([request(here.grant("task-0"), 2)])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await here.sightings.drain()
        assert len(seen(here)) == count + 1
        assert sum(entry.data["requests"] for entry in seen(here)) == count + 1


async def test_who_ends_shows_what_was_delegated_too() -> None:
    """An ancestor that nobody used itself has something to show only when the log has its child's use."""
    root, child = planted("root"), planted("child")
    child["spec"]["parent"] = "root"
    child["status"] |= {"chain": ["root"], "parentUID": root["metadata"]["uid"]}
    async with opened(root, child) as here:
        here.sightings.take([request(here.grant("child"), 1)])
        await here.sightings.drain()
        assert here.usage("child")["requests"] == 1
        assert here.usage("root")["chained"]["requests"] == 1


async def test_another_process_goes_on_where_the_first_ended() -> None:
    """The status' sums go on, and the entries tell the processes apart."""
    clock = LoopClock()
    server = FakeServer(clock)
    plant(server, planted())
    for receiver in ("r1", "r2"):
        async with desk(server, clock, receiver=receiver) as here:
            here.sightings.take([request(here.grant(), 1)])
            await asyncio.sleep(1)
    assert [entry.data["receiver"] for entry in seen(here)] == ["r1", "r2"]
    assert here.usage()["requests"] == 2


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no room the API server is asked to come back, and what it tells again counts once."""
    monkeypatch.setattr(module, "MAX_BOOKS", 2)
    async with opened(*(planted(f"task-{number}") for number in range(3))) as here:
        batch = [request(here.grant(f"task-{number}"), 1) for number in range(3)]
        with pytest.raises(TooMuchError):
            here.sightings.take(batch)
        await asyncio.sleep(150)
        here.sightings.take(batch)
        await asyncio.sleep(1)
        assert sorted(entry.subject for entry in seen(here)) == [
            f"TaskGrant team-a/task-{number}" for number in range(3)
        ]
        assert {entry.data["requests"] for entry in seen(here)} == {1}


async def test_a_crowd_is_told_with_fewer_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that memory stays bounded whatever all of them ask for; the sums are complete."""
    monkeypatch.setattr(module, "CROWD", 0)
    async with opened(planted()) as here:
        targets = [Target("get", f"kind-{number}", "") for number in range(40)]
        here.sightings.take(request(here.grant(), 1, target=target) for target in targets)
        await asyncio.sleep(1)
        data = seen(here)[0].data
        assert len(data["access"]) == module.CROWDED_ROWS
        assert data["otherAccess"]["requests"] == 40 - module.CROWDED_ROWS
        assert data["requests"] == 40


async def test_marks_of_requests_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest are forgotten first."""
    monkeypatch.setattr(module, "MAX_MARKS", 2)
    async with opened(planted()) as here:
        batch = [request(here.grant(), 1) for _ in range(3)]
        here.sightings.take(batch)
        here.sightings.take(batch[1:])
        assert (here.sightings.figures.requests, here.sightings.figures.repeated) == (3, 2)
