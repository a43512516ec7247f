"""A crash at any request leaves no Kubernetes access that should not be (promises 1, 2 and 6).

As in `test_crashes`, with grants that are bound to a role in two namespaces: one that is renewed and expires,
one that is deleted while it is active. Each time something goes wrong at another request.
"""

from __future__ import annotations

import pytest

from pilot_identity.core.audit.entries import EntryType
from tests.fakes import access, manifests
from tests.fakes.clock import LoopClock
from tests.fakes.replica import World, world
from tests.fakes.server import FakeServer, Fault, Object, Place
from tests.fakes.witness import Witness

pytestmark = [
    pytest.mark.looptime(noop_cycles=1),
    pytest.mark.no_cover,  # hundreds of runs over lines that other tests run once
]
"""Nothing comes from outside the loop, so that there is nothing to wait for before its time moves on."""

MORE_REQUESTS_THAN_THE_STORY_HAS = 400
DOWN_SECONDS = 0.5
REACH = [
    {
        "name": name,
        "dataClass": "sandbox-data",
        "kubernetes": {"roleRef": {"kind": "ClusterRole", "name": "view"}, **where},
    }
    for name, where in (("here", {}), ("there", {"namespace": "team-b"}))
]
ASKED = [{"name": "tickets"}, {"name": "here"}, {"name": "there"}]


def account_of(uid: str) -> str:
    """The name of a grant's account."""
    return "pilot-grant-" + uid.replace("-", "")[:20]


def has_ended(grant: Object | None) -> bool:
    """Whether a grant is gone, or says that it is over."""
    return grant is None or grant.get("status", {}).get("phase") in {"Expired", "Revoked"}


class Onlooker:
    """Sees every RoleBinding come and go, and writes down what is out of order."""

    def __init__(self, server: FakeServer, witness: Witness) -> None:
        self.broken: list[str] = []
        self._server = server
        self._witness = witness
        server.watchers.append(self._see)

    def _see(self, place: Place, before: Object | None, after: Object | None) -> None:
        if place.plural == "rolebindings" and before is None:
            named = [
                binding["name"]
                for entry in self._witness.entries()
                for binding in entry.data.get("credential", {}).get("kubernetes", {}).get("bindings", ())
            ]
            if place.name not in named:
                self.broken.append(f"{place.name} stands, and no entry names it")
        if place.plural == "taskgrants" and has_ended(after):
            account = account_of((after or before or {})["metadata"]["uid"])
            left = [one for one in self._server.all("rolebindings") if one["subjects"][0]["name"] == account]
            if left:
                self.broken.append(f"{place.name} ended with its bindings still there")


async def tell(here: World) -> None:
    """Live through the story."""
    server = here.server
    server.apply(manifests.stage())
    pilot = manifests.pilot()
    pilot["spec"]["access"] += REACH
    server.apply(pilot)
    server.apply(manifests.grant("expires", duration="45s", access=ASKED))
    server.apply(manifests.grant("deleted", duration="10m", access=ASKED))
    await here.pass_time(15)
    server.ask_to_delete("taskgrants", "deleted")
    await here.pass_time(100)


async def run(fault: Fault | None) -> tuple[FakeServer, Witness]:
    """Tell the story with a fault in it, and check what is left."""
    server = FakeServer(LoopClock())
    access.furnish(server)
    witness = Witness(server)
    onlooker = Onlooker(server, witness)
    if fault is not None:
        server.faults.append(fault)
    async with world(server, down_seconds=DOWN_SECONDS) as here:
        await tell(here)
        assert here.restarts <= 1
    witness.verify_log()
    witness.account_for_announcements()
    broken = witness.broken + onlooker.broken
    assert not broken, "; ".join(broken)
    assert server.all("rolebindings") == []
    announced = {entry.subject_uid for entry in witness.entries() if "credential" in entry.data}
    for account in server.all("serviceaccounts"):
        # What was made in the moment before its entry gives nothing, and is the garbage collector's.
        (owner,) = account["metadata"]["ownerReferences"]
        assert owner["kind"] == "PilotIdentity" or owner["uid"] not in announced
    assert witness.grants["expires"]["status"]["phase"] in {"Expired", "Denied"}
    return server, witness


async def test_the_story_holds_where_nothing_goes_wrong() -> None:
    """Bound, renewed without another binding, taken back, and proven."""
    server, witness = await run(None)
    requests = [str(request) for request in server.requests]
    assert len(requests) < MORE_REQUESTS_THAN_THE_STORY_HAS
    account = account_of(witness.grants["expires"]["metadata"]["uid"])
    assert requests.count(f"POST tokens/{account}") >= 3
    assert requests.count(f"DELETE rolebindings/{account}-here") == 1
    order = [f"DELETE rolebindings/{account}-there", f"DELETE serviceaccounts/{account}"]
    assert requests.index(order[0]) < requests.index(order[1]) < requests.index("DELETE secrets/expires")
    proofs = {proof["name"]: proof for proof in witness.grants["expires"]["status"]["closure"]["proofs"]}
    assert proofs["access-denied"]["proven"]
    assert proofs["token-refused"]["message"] == "TokenReview says not authenticated"
    (issued,) = [
        entry
        for entry in witness.entries()
        if entry.type == EntryType.GRANT_ISSUED and entry.subject.endswith("/expires")
    ]
    told = issued.data["credential"]["kubernetes"]
    assert [binding["namespace"] for binding in told["bindings"]] == ["team-a", "team-b"]


@pytest.mark.parametrize(
    "after_effect, kills",
    [
        pytest.param(False, True, id="the process dies before the effect"),
        pytest.param(True, True, id="the process dies after the effect"),
        pytest.param(False, False, id="the request is lost"),
        pytest.param(True, False, id="the answer is lost"),
    ],
)
async def test_no_request_is_one_at_which_a_fault_leaves_access(*, after_effect: bool, kills: bool) -> None:
    """No binding before its entry, none after its end: whichever request is hit."""
    failures: list[str] = []
    for number in range(MORE_REQUESTS_THAN_THE_STORY_HAS):
        fault = Fault(number, after_effect=after_effect, kills=kills)
        try:
            await run(fault)
        except Exception as error:  # noqa: BLE001 - all are gathered, so that one run shows every weak place
            failures.append(f"request {number} ({fault.struck}): {error!r}")
        if fault.struck is None:
            break
    else:
        failures.append("the story is longer than the number of tries")
    assert not failures, "\n".join(failures)


async def test_a_role_that_is_taken_back_while_its_grant_runs() -> None:
    """The grant is not renewed and says why, the log does not grow by tries, and the end still comes."""
    server = FakeServer(LoopClock())
    access.furnish(server)
    witness = Witness(server)
    async with world(server, down_seconds=DOWN_SECONDS) as here:
        server.apply(manifests.stage())
        pilot = manifests.pilot()
        pilot["spec"]["access"] += REACH
        server.apply(pilot)
        server.apply(manifests.grant("long", duration="10m", access=ASKED))
        await here.pass_time(5)
        server.bindable.clear()
        await here.pass_time(60)
        (ready,) = witness.grants["long"]["status"]["conditions"]
        assert ready["reason"] == "RoleNotBindable"
        told = [entry.type for entry in witness.entries() if entry.subject.endswith("/long")]
        assert [told[0], told[-1]] == [EntryType.GRANT_REQUESTED, EntryType.GRANT_ISSUED]
        assert EntryType.GRANT_RENEWED not in told
        server.apply(manifests.grant("long", duration="10m", access=ASKED, completed=True))
        await here.pass_time(10)
    assert witness.grants["long"]["status"]["phase"] == "Completed"
    assert server.all("rolebindings") == []
