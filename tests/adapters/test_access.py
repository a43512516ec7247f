"""Kubernetes access of grants, on the fake API server."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

from pilot_identity.adapters.kubernetes import access as adapter
from pilot_identity.adapters.kubernetes.access import Endpoint, GrantAccounts
from pilot_identity.adapters.kubernetes.api import Invalid, NotFound
from pilot_identity.core.decisions.hindrance import Obstacle
from pilot_identity.core.decisions.plan import AccessDenied, AccountOrder, Owner, TokenRefused
from pilot_identity.core.resources.metadata import Key
from pilot_identity.core.resources.pilot_identity import RoleRef
from pilot_identity.core.resources.task_grant import Binding
from pilot_identity.ports import Conflict, NameTaken, PortError, Unavailable
from tests.fakes import access
from tests.fakes.clock import SetClock
from tests.fakes.server import FakeApi, FakeServer

OWNER = Owner(Key("TaskGrant", "team-a", "task-1"), "uid-1")
OTHER = Owner(Key("TaskGrant", "team-a", "task-2"), "uid-2")
ACCOUNT = "pilot-grant-1"
VIEW = RoleRef("ClusterRole", "view")
HERE = Binding("team-a", f"{ACCOUNT}-pods", VIEW)
THERE = Binding("team-b", f"{ACCOUNT}-others", VIEW)
ORDER = AccountOrder(ACCOUNT, (THERE, HERE), dt.timedelta(minutes=10))
ENDPOINT = Endpoint("https://api.example.org:6443", ca=b"-----BEGIN CERTIFICATE-----")
FOREIGN: dict[str, Any] = {
    "metadata": {"name": HERE.name, "namespace": "team-a"},
    "roleRef": {},
    "subjects": [],
}


@pytest.fixture
def server() -> FakeServer:
    """An API server whose admin lets the operator bind `view`."""
    server = FakeServer(SetClock())
    access.furnish(server)
    return server


@pytest.fixture
def accounts(server: FakeServer) -> GrantAccounts:
    """The real adapter on it."""
    return GrantAccounts(FakeApi(server), ENDPOINT)


@pytest.fixture(autouse=True)
def _looks_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the real adapter, in a hundredth of the time."""
    monkeypatch.setattr(adapter, "_LOOKS", (0.001,))


def denied(*bindings: Binding) -> AccessDenied:
    """The test of a grant's access."""
    return AccessDenied(OWNER, ACCOUNT, bindings)


async def test_an_account_its_token_and_a_kubeconfig(server: FakeServer, accounts: GrantAccounts) -> None:
    """The account is the grant's alone and mounts nowhere; the kubeconfig is whole."""
    made = await accounts.make(OWNER, ORDER, is_renewal=False)
    account = server.find("serviceaccounts", ACCOUNT)
    assert account is not None
    assert [owner["uid"] for owner in account["metadata"]["ownerReferences"]] == ["uid-1"]
    assert account["automountServiceAccountToken"] is False
    assert made.facts.uid == account["metadata"]["uid"]
    assert made.facts.credential_id == "jti-1"
    assert made.facts.not_after == server.clock().replace(microsecond=0) + dt.timedelta(minutes=10)
    config = json.loads(made.kubeconfig)
    cluster = config["clusters"][0]["cluster"]
    assert cluster["server"] == "https://api.example.org:6443"
    assert base64.b64decode(cluster["certificate-authority-data"]) == ENDPOINT.ca
    assert config["contexts"][0]["context"]["namespace"] == "team-b", "that of the first binding"
    assert config["users"][0]["user"]["token"] in server.tokens
    assert config["users"][0]["user"]["token"] not in repr(made)
    assert not server.all("rolebindings"), "no access stands before its entry"


async def test_the_authority_is_read_anew(tmp_path: Path) -> None:
    """A CA that was replaced under a running operator is the next kubeconfig's."""
    path = tmp_path / "ca.crt"
    endpoint = Endpoint("https://api.example.org", str(path))
    for text in (b"old", b"new"):
        path.write_bytes(text)
        assert endpoint.authority() == text
    assert Endpoint("https://api.example.org").authority() == b""


async def test_making_twice_makes_one_account(accounts: GrantAccounts) -> None:
    """After a crash the account is found again; each time there is another token."""
    first = await accounts.make(OWNER, ORDER, is_renewal=False)
    second = await accounts.make(OWNER, ORDER, is_renewal=False)
    assert first.facts.uid == second.facts.uid
    assert first.facts.credential_id != second.facts.credential_id


async def test_a_renewal_brings_back_an_account_that_went(
    server: FakeServer, accounts: GrantAccounts
) -> None:
    """A renewal asks for a token at once; only where there is no account it makes one."""
    await accounts.make(OWNER, ORDER, is_renewal=False)
    before = len(server.requests)
    await accounts.make(OWNER, ORDER, is_renewal=True)
    assert [str(request) for request in server.requests[before:]] == [f"POST tokens/{ACCOUNT}"]
    server.lose("serviceaccounts", ACCOUNT)
    await accounts.make(OWNER, ORDER, is_renewal=True)
    assert server.find("serviceaccounts", ACCOUNT) is not None


async def test_anothers_account_is_never_used(server: FakeServer, accounts: GrantAccounts) -> None:
    """No token is asked of an account that is not this grant's."""
    await accounts.make(OTHER, ORDER, is_renewal=False)
    with pytest.raises(NameTaken, match="is not this grant's"):
        await accounts.make(OWNER, ORDER, is_renewal=False)
    assert len(server.tokens) == 1


@pytest.mark.parametrize("token", ["", "one.two", "e30.bm8.x", "e30.e30.x", "e30.eyJqdGkiOiJqIn0.x"])
async def test_a_token_that_tells_no_id_is_not_given_out(
    token: str, monkeypatch: pytest.MonkeyPatch, accounts: GrantAccounts
) -> None:
    """What an entry cannot name is not released; the error does not show it."""

    async def create(*_: object) -> dict[str, Any]:
        return {"status": {"token": token, "expirationTimestamp": "2026-01-01T00:00:00Z"}}

    monkeypatch.setattr(accounts._api, "create", create)  # noqa: SLF001
    with pytest.raises(Unavailable, match="without jti and account UID") as caught:
        await accounts.make(OWNER, ORDER, is_renewal=False)
    assert caught.value.__cause__ is None


async def test_a_binding_is_owned_where_it_can_be(server: FakeServer, accounts: GrantAccounts) -> None:
    """In its grant's namespace the garbage collector would take it; elsewhere an annotation names it."""
    for binding in (HERE, THERE):
        await accounts.bind(OWNER, ACCOUNT, binding)
        await accounts.bind(OWNER, ACCOUNT, binding)  # it stands: nothing to do
    here = server.find("rolebindings", HERE.name)
    there = server.find("rolebindings", THERE.name, "team-b")
    assert here is not None
    assert there is not None
    assert [owner["uid"] for owner in here["metadata"]["ownerReferences"]] == ["uid-1"]
    assert "ownerReferences" not in there["metadata"]
    for stood in (here, there):
        assert stood["metadata"]["annotations"] == {"pilotidentity.dev/grant": "team-a/task-1"}
        assert stood["subjects"] == [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": "team-a"}]
        assert stood["roleRef"] == access.VIEW


@pytest.mark.parametrize("change", ["subject", "role", "deleting"])
async def test_another_binding_of_that_name_is_no_binding_of_ours(
    change: str, server: FakeServer, accounts: GrantAccounts
) -> None:
    """A subject more, another role, or one that is on its way out: it does not say what ours says."""
    await accounts.bind(OWNER, ACCOUNT, HERE)
    stood = server.find("rolebindings", HERE.name)
    assert stood is not None
    match change:
        case "subject":
            stood["subjects"].append({"kind": "User", "name": "mallory"})
        case "role":
            stood["roleRef"]["name"] = "edit"
        case "deleting":
            stood["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    server.plant(("rolebindings", "team-a", HERE.name), stood)
    with pytest.raises(NameTaken, match="is not this grant's"):
        await accounts.bind(OWNER, ACCOUNT, HERE)
    hindrance = await accounts.hindrance(OWNER, ACCOUNT, HERE)
    assert hindrance is not None
    assert hindrance.obstacle is Obstacle.NAME_TAKEN


async def test_nothing_is_in_the_way_and_nothing_is_made(server: FakeServer, accounts: GrantAccounts) -> None:
    """Trying leaves no trace; trying what stands already is fine."""
    assert await accounts.hindrance(OWNER, ACCOUNT, HERE) is None
    assert not server.all("rolebindings")
    await accounts.bind(OWNER, ACCOUNT, HERE)
    assert await accounts.hindrance(OWNER, ACCOUNT, HERE) is None


@pytest.mark.parametrize(
    "obstacle", [Obstacle.NOT_BINDABLE, Obstacle.ROLE_MISSING, Obstacle.NAMESPACE_MISSING]
)
async def test_what_is_in_the_way(obstacle: Obstacle, server: FakeServer, accounts: GrantAccounts) -> None:
    """Each cause is told apart, since each has another remedy."""
    match obstacle:
        case Obstacle.NOT_BINDABLE:
            server.bindable.clear()
        case Obstacle.ROLE_MISSING:
            server.lose("clusterroles", "view", "")
        case _:
            server.missing_namespaces.add("team-a")
    found = await accounts.hindrance(OWNER, ACCOUNT, HERE)
    assert found is not None
    assert (found.obstacle, found.binding) == (obstacle, HERE)


async def test_a_role_that_may_be_bound_but_not_read(server: FakeServer, accounts: GrantAccounts) -> None:
    """Without its rules its end could not be proven, so that it is not given out."""
    server.refused.add("clusterroles")
    found = await accounts.hindrance(OWNER, ACCOUNT, HERE)
    assert found is not None
    assert found.obstacle is Obstacle.NOT_BINDABLE


async def test_taking_back_is_idempotent(server: FakeServer, accounts: GrantAccounts) -> None:
    """What is gone is gone; what is not ours is left."""
    await accounts.make(OWNER, ORDER, is_renewal=False)
    await accounts.bind(OWNER, ACCOUNT, HERE)
    for _ in range(2):
        await accounts.unbind(HERE)
        await accounts.delete("team-a", ACCOUNT)
    assert not server.all("rolebindings")
    assert not server.all("serviceaccounts")
    server.plant(("rolebindings", "team-a", HERE.name), FOREIGN)
    await accounts.unbind(HERE)
    assert server.find("rolebindings", HERE.name) is not None


async def test_what_is_ours_and_cannot_be_taken_back_is_told(
    server: FakeServer, accounts: GrantAccounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A policy that keeps what we made leaves a withdrawal that failed, not one that is done."""
    await accounts.make(OWNER, ORDER, is_renewal=False)
    await accounts.bind(OWNER, ACCOUNT, HERE)

    async def kept(path: str, **_: object) -> None:
        raise Invalid(f"{path}: 422: somebody's policy")

    monkeypatch.setattr(accounts._api, "delete", kept)  # noqa: SLF001
    for attempt in (accounts.unbind(HERE), accounts.delete("team-a", ACCOUNT)):
        with pytest.raises(Invalid, match="somebody's policy"):
            await attempt
    server.lose("rolebindings", HERE.name)
    await accounts.unbind(HERE)


async def test_without_reviews_what_is_gone_is_the_proof(server: FakeServer, accounts: GrantAccounts) -> None:
    """The admin took the last role out of the values, and with it the right to make reviews."""
    made = await accounts.make(OWNER, ORDER, is_renewal=False)
    await accounts.bind(OWNER, ACCOUNT, HERE)
    server.refused |= {"subjectaccessreviews", "tokenreviews"}
    token = TokenRefused(OWNER, ACCOUNT, made.facts.uid, made.facts.credential_id)
    assert not (await accounts.test_access(denied(HERE))).proven
    assert not (await accounts.test_token(token)).proven
    await accounts.unbind(HERE)
    await accounts.delete("team-a", ACCOUNT)
    told = await accounts.test_access(denied(HERE))
    assert (told.proven, told.message) == (True, f"RoleBinding team-a/{HERE.name} is gone")
    assert (await accounts.test_token(token)).proven


async def test_access_is_proven_to_have_ended(accounts: GrantAccounts) -> None:
    """One question for each binding, about something that its role allows, in its namespace."""
    for binding in (HERE, THERE):
        await accounts.bind(OWNER, ACCOUNT, binding)
    before = await accounts.test_access(denied(HERE, THERE))
    assert not before.proven
    assert "may still get pods in team-a" in before.message
    await accounts.unbind(HERE)
    assert not (await accounts.test_access(denied(HERE, THERE))).proven
    await accounts.unbind(THERE)
    after = await accounts.test_access(denied(HERE, THERE))
    assert after.proven
    assert after.message == (
        "SubjectAccessReview: may not get pods in team-a; SubjectAccessReview: may not get pods in team-b"
    )


async def test_an_authorizer_that_lags_is_asked_again(
    server: FakeServer, accounts: GrantAccounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It learns of a deletion a moment late; that alone is no failure."""
    await accounts.bind(OWNER, ACCOUNT, HERE)
    server.remembered = server.all("rolebindings")
    await accounts.unbind(HERE)
    assert not (await accounts.test_access(denied(HERE))).proven

    async def sleep(_: float) -> None:
        server.remembered = []

    monkeypatch.setattr("asyncio.sleep", sleep)
    assert (await accounts.test_access(denied(HERE))).proven


async def test_what_others_allow_is_told_and_is_not_ours(server: FakeServer, accounts: GrantAccounts) -> None:
    """Another binding that gives the same keeps no grant from closing, unless it hides ours."""
    await accounts.bind(OWNER, ACCOUNT, HERE)
    stood = server.find("rolebindings", HERE.name)
    assert stood is not None
    stood["metadata"]["name"] = "a-wider-one"
    server.remembered = [stood]
    server.plant(
        ("rolebindings", "team-a", "a-wider-one"), stood
    )  # listed before ours, so named by the answer
    assert not (await accounts.test_access(denied(HERE))).proven
    await accounts.unbind(HERE)
    proof = await accounts.test_access(denied(HERE))
    assert proof.proven
    assert "is gone; others still allow to get pods in team-a: RBAC: allowed by" in proof.message


async def test_a_role_that_went_is_proven_by_its_binding(server: FakeServer, accounts: GrantAccounts) -> None:
    """Nothing can be asked about a role whose rules nobody knows; its binding can be looked for."""
    await accounts.bind(OWNER, ACCOUNT, HERE)
    server.lose("clusterroles", "view", "")
    assert not (await accounts.test_access(denied(HERE))).proven
    await accounts.unbind(HERE)
    proof = await accounts.test_access(denied(HERE))
    assert (proof.proven, proof.message) == (True, f"RoleBinding team-a/{HERE.name} is gone")


@pytest.mark.parametrize(
    "rule, asked",
    [
        ({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}, ("get", "", "pods", "", "")),
        (
            {"apiGroups": ["apps"], "resources": ["deployments/scale"], "verbs": ["patch"]},
            ("patch", "apps", "deployments", "scale", ""),
        ),
        (
            {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"], "resourceNames": ["one"]},
            ("get", "", "secrets", "", "one"),
        ),
    ],
)
async def test_what_is_asked(
    rule: dict[str, Any], asked: tuple[str, ...], server: FakeServer, accounts: GrantAccounts
) -> None:
    """Something that the rule really allows: a wildcard by what is common, a name by itself."""
    server.plant(
        ("clusterroles", "", "view"),
        {"metadata": {"name": "view"}, "rules": [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}, rule]},
    )
    await accounts.test_access(denied(HERE))
    (review,) = [one for one in server.requests if one.place.plural == "subjectaccessreviews"]
    attributes = review.body["spec"]["resourceAttributes"]
    fields = ("verb", "group", "resource", "subresource", "name")
    assert tuple(attributes[field] for field in fields) == asked
    assert review.body["spec"]["user"] == f"system:serviceaccount:team-a:{ACCOUNT}"
    assert "system:serviceaccounts:team-a" in review.body["spec"]["groups"]


async def test_a_token_is_proven_refused_and_forgotten(server: FakeServer, accounts: GrantAccounts) -> None:
    """As long as the API server's cache believes it, it is not; afterwards the account is the proof."""
    made = await accounts.make(OWNER, ORDER, is_renewal=False)
    test = TokenRefused(OWNER, ACCOUNT, made.facts.uid, made.facts.credential_id)
    assert not (await accounts.test_token(test)).proven
    await accounts.delete("team-a", ACCOUNT)
    server.believed.add(made.facts.uid)
    assert "caches" in (await accounts.test_token(test)).message
    server.believed.clear()
    first, second = await accounts.test_token(test), await accounts.test_token(test)
    assert (first.proven, first.message) == (True, "TokenReview says not authenticated")
    assert second.proven
    assert "cannot be asked about" in second.message


async def test_a_token_of_an_earlier_process(server: FakeServer, accounts: GrantAccounts) -> None:
    """The account's end, told by its UID, stands for the token's; one of the same name is another."""
    made = await GrantAccounts(FakeApi(server), ENDPOINT).make(OWNER, ORDER, is_renewal=False)
    test = TokenRefused(OWNER, ACCOUNT, made.facts.uid, made.facts.credential_id)
    before = await accounts.test_token(test)
    assert (before.proven, before.message) == (False, f"ServiceAccount team-a/{ACCOUNT} is still there")
    assert (await accounts.test_token(dataclasses.replace(test, account_uid="another"))).proven
    await accounts.delete("team-a", ACCOUNT)
    assert (await accounts.test_token(test)).proven


async def test_only_so_many_tokens_are_kept(
    accounts: GrantAccounts, monkeypatch: pytest.MonkeyPatch, server: FakeServer
) -> None:
    """Memory is bounded: the oldest goes first, and its grant is closed on its account's end."""
    monkeypatch.setattr(adapter, "TOKENS_KEPT", 1)
    first = await accounts.make(OWNER, ORDER, is_renewal=False)
    await accounts.make(OTHER, dataclasses.replace(ORDER, name="pilot-grant-2"), is_renewal=False)
    test = TokenRefused(OWNER, ACCOUNT, first.facts.uid, first.facts.credential_id)
    assert "is still there" in (await accounts.test_token(test)).message
    assert not [one for one in server.requests if one.place.plural == "tokenreviews"]


@pytest.mark.parametrize("call", ["bind", "hindrance"])
async def test_a_binding_that_goes_while_it_is_looked_at(
    call: str, accounts: GrantAccounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The world changed in between: look again."""
    await accounts.bind(OWNER, ACCOUNT, HERE)

    async def gone(*_: object) -> None:
        raise NotFound("404")

    monkeypatch.setattr(accounts._api, "get", gone)  # noqa: SLF001
    with pytest.raises(Conflict, match="went meanwhile"):
        await getattr(accounts, call)(OWNER, ACCOUNT, HERE)


async def test_errors_of_the_api_server_are_passed_on(server: FakeServer, accounts: GrantAccounts) -> None:
    """What is refused is told, never taken for done."""
    await accounts.bind(OWNER, ACCOUNT, HERE)
    server.refused |= {"rolebindings", "serviceaccounts", "subjectaccessreviews"}
    for attempt in (
        accounts.unbind(HERE),
        accounts.delete("team-a", ACCOUNT),
        accounts.make(OWNER, ORDER, is_renewal=False),
        accounts.bind(OWNER, ACCOUNT, HERE),
        accounts.test_access(denied(HERE)),
    ):
        with pytest.raises(PortError):
            await attempt
