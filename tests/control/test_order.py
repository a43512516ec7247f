"""The order in which plans are carried out is the first promise; the API server's own record shows it."""

from __future__ import annotations

import logging

import pytest

from pilot_identity.core.audit.entries import EntryType
from pilot_identity.core.decisions.pilots import TAKEN_RECHECK
from tests.fakes import manifests
from tests.fakes.clock import LoopClock
from tests.fakes.replica import World, world
from tests.fakes.server import CREDENTIAL_TYPE, FakeServer, Fault, Object
from tests.fakes.witness import Witness

pytestmark = pytest.mark.looptime


def asked(server: FakeServer, since: int = 0) -> list[str]:
    """What was written since a request, but for Events, which hold up nothing."""
    return [
        str(request)
        for request in server.requests[since:]
        if request.method != "GET" and not request.is_dry and request.place.plural != "events"
    ]


async def issued(here: World) -> None:
    """Wait until a stage, a pilot and an active grant are there."""
    for body in (manifests.stage(), manifests.pilot(), manifests.grant()):
        here.server.apply(body)
    await here.pass_time(5)
    grant = here.server.find("taskgrants", "task-1")
    assert grant is not None
    assert grant["status"]["phase"] == "Active"


async def test_an_entry_is_durable_before_its_credential_and_the_status_says_so_last() -> None:
    """Keys, pilot and grant: finalizer, entry, credential, status."""
    server = FakeServer(LoopClock())
    async with world(server) as here:
        server.apply(manifests.stage())
        await here.pass_time(5)
        assert asked(server)[-4:] == [
            "POST configmaps",
            "POST secrets",
            "POST configmaps",
            "PATCH stagepolicies/sandbox/status",
        ]
        since = len(server.requests)
        server.apply(manifests.pilot())
        await here.pass_time(5)
        assert asked(server, since) == [
            "PATCH pilotidentities/triage",
            "PUT configmaps/pilot-bundle-sandbox",
            "POST configmaps",
            "POST serviceaccounts",
            "POST configmaps",
            "POST secrets",
            "PATCH pilotidentities/triage/status",
        ]
        since = len(server.requests)
        server.apply(manifests.grant())
        await here.pass_time(5)
        assert asked(server, since) == [
            "PATCH taskgrants/task-1",
            "POST configmaps",
            "POST secrets",
            "PATCH taskgrants/task-1/status",
        ]


async def test_a_stamped_finalizer_costs_no_write() -> None:
    """Where the API server stamps it, a grant is issued with two writes beside the log's."""
    server = FakeServer(LoopClock(), stamps_finalizer=True)
    async with world(server) as here:
        await issued(here)
    writes = [line for line in asked(server) if "task" in line or line == "POST secrets"]
    assert writes[-2:] == ["POST secrets", "PATCH taskgrants/task-1/status"]
    assert "PATCH taskgrants/task-1" not in writes


async def test_a_deletion_cuts_records_and_lets_go_in_this_order() -> None:
    """The finalizer holds the grant until its Secret is gone and the log says so."""
    server = FakeServer(LoopClock())
    async with world(server) as here:
        await issued(here)
        since = len(server.requests)
        server.ask_to_delete("taskgrants", "task-1")
        await here.pass_time(5)
        assert asked(server, since) == [
            "DELETE secrets/task-1",
            # The revocation list, which is new; then the log.
            "PUT configmaps/pilot-revoked-sandbox",
            "POST configmaps",
            "POST configmaps",
            "PATCH taskgrants/task-1",
        ]


async def test_an_end_cuts_before_it_records() -> None:
    """And the status comes after both."""
    server = FakeServer(LoopClock())
    async with world(server) as here:
        await issued(here)
        since = len(server.requests)
        server.apply(manifests.grant(revoke={"by": "ann", "reason": "done"}))
        await here.pass_time(5)
        assert asked(server, since) == [
            "DELETE secrets/task-1",
            "PUT configmaps/pilot-revoked-sandbox",
            "POST configmaps",
            "POST configmaps",
            "PATCH taskgrants/task-1/status",
        ]


async def test_withdrawal_never_waits_for_the_log() -> None:
    """With a log that cannot be written access is cut on time; the record follows when it can."""
    server = FakeServer(LoopClock())
    witness = Witness(server)
    async with world(server) as here:
        await issued(here)
        server.refused.add("configmaps")
        server.apply(manifests.grant(revoke={"by": "ann", "reason": "done"}))
        await here.pass_time(2)
        assert server.find("secrets", "task-1") is None
        server.refused.clear()
        await here.pass_time(40)
    witness.verify_log()
    assert not witness.broken
    assert witness.grants["task-1"]["status"]["phase"] == "Revoked"


async def test_a_deleted_grant_waits_for_the_log_only_so_long() -> None:
    """Its access is cut at once; past the bound it is let go, though its end is not recorded."""
    server = FakeServer(LoopClock())
    async with world(server) as here:
        await issued(here)
        server.refused.add("configmaps")
        server.ask_to_delete("taskgrants", "task-1")
        await here.pass_time(2)
        assert server.find("secrets", "task-1") is None
        await here.pass_time(40)
        assert server.find("taskgrants", "task-1") is not None
        await here.pass_time(60)
        assert server.find("taskgrants", "task-1") is None


async def test_nothing_is_released_without_the_log() -> None:
    """With a log that cannot be written no credential comes to be; it does once the log is back."""
    server = FakeServer(LoopClock())
    async with world(server) as here:
        server.apply(manifests.stage())
        server.apply(manifests.pilot())
        await here.pass_time(5)
        server.refused.add("configmaps")
        server.apply(manifests.grant())
        await here.pass_time(40)
        assert server.find("secrets", "task-1") is None
        server.refused.clear()
        await here.pass_time(40)
        assert server.find("secrets", "task-1") is not None


@pytest.mark.parametrize("ending", ["deleted", "suspended"])
async def test_what_was_announced_and_never_released_is_abandoned_in_the_log(ending: str) -> None:
    """Also where the pilot is deleted or suspended before its announced SVID came to be."""
    server = FakeServer(LoopClock())
    witness = Witness(server)
    async with world(server, down_seconds=10) as here:
        server.apply(manifests.stage())
        await here.pass_time(2)
        server.apply(manifests.pilot())
        # Its writes: finalizer, bundle (twice), account, the entry, and then the Secret.
        at = len(server.requests) + 7
        server.faults = [Fault(at, after_effect=False, kills=True)]
        await here.pass_time(2)
        assert str(server.faults[0].struck) == "POST secrets"
        if ending == "deleted":
            server.ask_to_delete("pilotidentities", "triage")
        else:
            server.apply(manifests.pilot(suspend=True))
        await here.pass_time(30)
        assert here.restarts == 1
    witness.verify_log()
    witness.account_for_announcements()
    assert not witness.broken, witness.broken


async def test_renewals_do_not_use_up_the_rate_of_requests() -> None:
    """`requestsPerMinute` bounds what is asked for, not how often a running task is renewed."""
    server = FakeServer(LoopClock())
    async with world(server) as here:
        server.apply(manifests.stage(limits={"activeGrants": 10, "requestsPerMinute": 3}))
        server.apply(manifests.pilot())
        server.apply(manifests.grant(duration="10m"))
        await here.pass_time(120)
        server.apply(manifests.grant("task-2"))
        await here.pass_time(2)
        second = server.find("taskgrants", "task-2")
    assert second is not None
    assert second["status"].get("phase") == "Active", second["status"]["conditions"]


async def test_a_pass_that_failed_does_not_use_up_the_rate_of_requests() -> None:
    """A grant whose first pass failed is issued by the next one, not a minute later."""
    server = FakeServer(LoopClock())
    async with world(server) as here:
        server.apply(manifests.stage(limits={"activeGrants": 10, "requestsPerMinute": 1}))
        server.apply(manifests.pilot())
        await here.pass_time(5)
        server.apply(manifests.grant())
        # The finalizer, then the entry, which is lost.
        server.faults = [Fault(len(server.requests) + 1, after_effect=False, kills=False)]
        await here.pass_time(5)
        grant = server.find("taskgrants", "task-1")
    assert str(server.faults[0].struck) == "POST configmaps"
    assert grant is not None
    assert grant["status"].get("phase") == "Active", grant["status"]["conditions"]


async def test_someone_elses_secret_is_never_overwritten() -> None:
    """The grant is refused, told why, and the Secret is as it was."""
    server = FakeServer(LoopClock())
    witness = Witness(server)
    taken = {"type": "Opaque", "metadata": {"name": "task-1"}, "data": {"a": "Yg=="}}
    async with world(server) as here:
        server.plant(("secrets", "team-a", "task-1"), taken)
        for body in (manifests.stage(), manifests.pilot(), manifests.grant()):
            server.apply(body)
        await here.pass_time(10)
        left = server.find("secrets", "task-1")
    assert left is not None
    assert left["data"] == taken["data"]
    status = witness.grants["task-1"]["status"]
    assert (status["phase"], status["decision"]["reason"]) == ("Denied", "SecretNameTaken")
    assert EntryType.GRANT_DENIED in {entry.type for entry in witness.entries()}


def take_place(server: FakeServer, secret: str) -> None:
    """Somebody deletes one of our Secrets, and puts one of their own in its place."""
    server.lose("secrets", secret)
    server.plant(
        ("secrets", "team-a", secret), {"type": "Opaque", "metadata": {"name": secret}, "data": {"a": "Yg=="}}
    )


def ready_of(body: Object | None) -> tuple[str, str]:
    """An object's Ready condition: its status, and its reason."""
    assert body is not None
    found = {condition["type"]: condition for condition in body["status"]["conditions"]}["Ready"]
    return found["status"], found["reason"]


async def test_a_pilot_whose_secrets_place_is_taken_says_so_once_and_recovers() -> None:
    """Looked at again and again it adds nothing to the log; once the foreign Secret is gone it is renewed."""
    server = FakeServer(LoopClock())
    witness = Witness(server)
    async with world(server) as here:
        server.apply(manifests.stage())
        server.apply(manifests.pilot())
        await here.pass_time(5)
        take_place(server, "pilot-svid-triage")
        await here.pass_time(30)  # its renewal was due after 20
        assert ready_of(server.find("pilotidentities", "triage")) == ("False", "SecretNameTaken")
        told, written = len(witness.entries()), asked(server)
        assert [
            entry.type for entry in witness.entries() if entry.subject == "PilotIdentity team-a/triage"
        ] == [
            EntryType.PILOT_DEFINED,
            EntryType.PILOT_REGISTERED,
            EntryType.PILOT_RENEWED,
            EntryType.CREDENTIAL_ABANDONED,
            EntryType.PILOT_REFUSED,
        ]
        events = len(server.all("events"))
        since = len(server.requests)
        await here.pass_time(5 * TAKEN_RECHECK.total_seconds())
        looks = [str(request) for request in server.requests[since:] if request.is_dry]
        # Twice at each look: whose it is, and, since a number was abandoned, whether one would be taken.
        assert looks == ["PUT secrets/pilot-svid-triage (dry run)"] * 10
        assert ready_of(server.find("pilotidentities", "triage")) == ("False", "SecretNameTaken")
        assert (len(witness.entries()), asked(server)) == (told, written)
        assert len(server.all("events")) == events
        foreign = server.find("secrets", "pilot-svid-triage")
        assert foreign is not None
        assert (foreign["type"], foreign["data"]) == ("Opaque", {"a": "Yg=="})

        server.lose("secrets", "pilot-svid-triage")
        await here.pass_time(TAKEN_RECHECK.total_seconds() + 1)
        pilot = server.find("pilotidentities", "triage")
        assert ready_of(pilot) == ("True", "IdentityIssued")
        renewed = server.find("secrets", "pilot-svid-triage")
    assert pilot is not None
    assert renewed is not None
    assert renewed["metadata"]["uid"] == pilot["status"]["credential"]["secretUID"]
    assert not [one for one in pilot["status"]["conditions"] if one["reason"] == "SecretNameTaken"]
    witness.verify_log()
    witness.account_for_announcements()
    assert not witness.broken, witness.broken


async def test_a_grant_whose_secrets_place_is_taken_lapses_and_is_not_tried_again() -> None:
    """It says so once; its task ends on time, and the foreign Secret stays as it is."""
    server = FakeServer(LoopClock())
    witness = Witness(server)
    async with world(server) as here:
        await issued(here)
        take_place(server, "task-1")
        await here.pass_time(15)  # its renewal was due after 10
        assert ready_of(server.find("taskgrants", "task-1")) == ("False", "SecretNameTaken")
        told = [entry.type for entry in witness.entries() if entry.subject == "TaskGrant team-a/task-1"]
        before = told.index(EntryType.GRANT_ISSUED)
        assert told[before:] == [
            EntryType.GRANT_ISSUED,
            EntryType.GRANT_RENEWED,
            EntryType.CREDENTIAL_ABANDONED,
        ]
        await here.pass_time(60)
        foreign = server.find("secrets", "task-1")
    assert foreign is not None
    assert foreign["data"] == {"a": "Yg=="}
    told = [entry.type for entry in witness.entries() if entry.subject == "TaskGrant team-a/task-1"]
    assert told[before + 3 :] == [EntryType.GRANT_CLOSED]
    assert witness.grants["task-1"]["status"]["phase"] == "Expired"
    witness.verify_log()
    witness.account_for_announcements()
    assert not witness.broken, witness.broken


async def test_a_secret_that_was_deleted_comes_back_at_the_next_renewal() -> None:
    """Secrets are not watched."""
    server = FakeServer(LoopClock())
    async with world(server) as here:
        await issued(here)
        server.lose("secrets", "task-1")
        await here.pass_time(15)
        assert server.find("secrets", "task-1") is not None


async def test_suspending_a_pilot_ends_everything_and_lifting_it_begins_anew() -> None:
    """Its SVID and its grants' credentials go at once; it gets a new SVID of a new number later."""
    server = FakeServer(LoopClock())
    witness = Witness(server)
    async with world(server) as here:
        await issued(here)
        server.apply(manifests.pilot(suspend=True))
        await here.pass_time(2)
        assert [body for body in server.all("secrets") if body["type"] == CREDENTIAL_TYPE] == []
        server.apply(manifests.pilot())
        await here.pass_time(2)
        pilot = server.find("pilotidentities", "triage")
    assert pilot is not None
    assert pilot["status"]["credential"]["issuance"] == 2
    assert witness.grants["task-1"]["status"]["phase"] == "Revoked"
    assert not witness.broken


async def test_a_defect_in_one_pass_stops_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged with its object; the workers go on, and withdraw what others hold."""
    server = FakeServer(LoopClock())
    async with world(server) as here:
        await issued(here)
        body = server.find("taskgrants", "task-1")
        assert body is not None
        del body["status"]["expiresAt"]  # an active grant without an end cannot be
        server.plant(("taskgrants", "team-a", "task-1"), body)
        server.apply(manifests.grant("task-2"))
        with caplog.at_level(logging.ERROR):
            await here.pass_time(10)
        second = server.find("taskgrants", "task-2")
    assert second is not None
    assert second["status"]["phase"] == "Active"
    failed = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert {getattr(record, "object", None) for record in failed} == {"TaskGrant team-a/task-1"}
