from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from pilot_identity.adapters.kubernetes.cluster import KubernetesCluster, merge_patch
from pilot_identity.core.decisions.plan import CredentialOrder, MakeServiceAccount, Owner
from pilot_identity.core.resources import TaskGrant
from pilot_identity.core.resources.metadata import FINALIZER, Key
from pilot_identity.core.resources.parsing import parse
from pilot_identity.core.spiffe.ids import SpiffeId
from pilot_identity.ports import Conflict, NameTaken, SignedCredential
from tests.fakes import manifests
from tests.fakes.clock import START, SetClock
from tests.fakes.server import FakeApi, FakeServer

OWNER = Owner(Key("TaskGrant", "team-a", "task-1"), "uid-1")
OTHER = Owner(Key("TaskGrant", "team-a", "task-2"), "uid-2")
FOREIGN = {"type": "Opaque", "metadata": {"name": "task-1"}, "data": {}}
KEY = b"-----BEGIN PRIVATE KEY-----"


def credential(identifier: str) -> SignedCredential:
    """A credential of that id."""
    spiffe_id = SpiffeId.parse("spiffe://sandbox.example.org/ns/team-a/pilot/triage/task/task-1")
    order = CredentialOrder(identifier, "sandbox", spiffe_id, 1, START, START + dt.timedelta(minutes=1))
    return SignedCredential(order, "00", {"tls.key": KEY})


@pytest.fixture
def server() -> FakeServer:
    """An empty API server."""
    return FakeServer(SetClock())


@pytest.fixture
def cluster(server: FakeServer) -> KubernetesCluster:
    """The real adapter on it."""
    return KubernetesCluster(FakeApi(server))


def grant(server: FakeServer) -> TaskGrant:
    """A grant as the operator sees it."""
    found = parse(server.apply(manifests.grant()))
    assert isinstance(found, TaskGrant)
    return found


async def test_a_credential_is_written_to_a_secret_of_its_owner(
    server: FakeServer, cluster: KubernetesCluster
) -> None:
    """With what the admission policies and the garbage collector go by."""
    uid = await cluster.write_credential(OWNER, "task-1", credential("one"), replaces="")
    secret = server.find("secrets", "task-1")
    assert secret is not None
    assert secret["metadata"]["uid"] == uid
    assert secret["type"] == "pilotidentity.dev/credential"
    assert secret["metadata"]["annotations"] == {"pilotidentity.dev/credential": "one"}
    (owner,) = secret["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == (
        "TaskGrant",
        "task-1",
        "uid-1",
        True,
    )


async def test_a_credential_replaces_exactly_the_one_it_names(
    server: FakeServer, cluster: KubernetesCluster
) -> None:
    """In place; any other is left as it is."""
    uid = await cluster.write_credential(OWNER, "task-1", credential("one"), replaces="")
    assert await cluster.write_credential(OWNER, "task-1", credential("two"), replaces="one") == uid
    with pytest.raises(NameTaken):
        await cluster.write_credential(OWNER, "task-1", credential("three"), replaces="one")
    with pytest.raises(NameTaken):
        await cluster.write_credential(OTHER, "task-1", credential("three"), replaces="two")
    secret = server.find("secrets", "task-1")
    assert secret is not None
    assert secret["metadata"]["annotations"]["pilotidentity.dev/credential"] == "two"


async def test_what_is_not_ours_is_never_overwritten(server: FakeServer, cluster: KubernetesCluster) -> None:
    """Neither as a new credential nor as a renewal."""
    server.plant(("secrets", "team-a", "task-1"), FOREIGN)
    for replaces in ("", "one"):
        with pytest.raises(NameTaken):
            await cluster.write_credential(OWNER, "task-1", credential("two"), replaces=replaces)
    found = server.find("secrets", "task-1")
    assert found is not None
    assert found["type"] == "Opaque"


async def test_a_secret_that_is_gone_is_made_anew_by_a_renewal(
    server: FakeServer, cluster: KubernetesCluster
) -> None:
    """It then replaces nothing."""
    await cluster.write_credential(OWNER, "task-1", credential("two"), replaces="one")
    secret = server.find("secrets", "task-1")
    assert secret is not None
    assert secret["metadata"]["annotations"] == {"pilotidentity.dev/credential": "two"}


async def test_what_a_secret_holds_is_asked_without_reading_or_changing_it(
    server: FakeServer, cluster: KubernetesCluster
) -> None:
    """The UID where it is that credential of that owner, empty where it is not, nothing where none is."""
    assert await cluster.holds(OWNER, "task-1", "one") is None
    uid = await cluster.write_credential(OWNER, "task-1", credential("one"), replaces="")
    before = server.find("secrets", "task-1")
    assert await cluster.holds(OWNER, "task-1", "one") == uid
    assert await cluster.holds(OWNER, "task-1", "two") == ""
    assert await cluster.holds(OTHER, "task-1", "one") == ""
    assert server.find("secrets", "task-1") == before
    assert "GET" not in {request.method for request in server.requests}


async def test_deleting_takes_the_named_secret_and_no_other(
    server: FakeServer, cluster: KubernetesCluster
) -> None:
    """Where another stands under the name, or none, ours is gone already."""
    uid = await cluster.write_credential(OWNER, "task-1", credential("one"), replaces="")
    await cluster.delete_credential("team-a", "task-1", "another-uid")
    assert server.find("secrets", "task-1") is not None
    await cluster.delete_credential("team-a", "task-1", uid)
    assert server.find("secrets", "task-1") is None
    await cluster.delete_credential("team-a", "task-1", uid)


async def test_a_service_account_is_made_once_and_only_for_its_owner(
    server: FakeServer, cluster: KubernetesCluster
) -> None:
    """It mounts no token by itself; one that someone else made is not taken over."""
    wanted = MakeServiceAccount(OWNER, "pilot-workload-triage")
    assert await cluster.owns_service_account(OWNER, wanted.name) is None
    await cluster.make_service_account(wanted)
    await cluster.make_service_account(wanted)
    account = server.find("serviceaccounts", wanted.name)
    assert account is not None
    assert account["automountServiceAccountToken"] is False
    assert await cluster.owns_service_account(OWNER, wanted.name) is True
    assert await cluster.owns_service_account(OTHER, wanted.name) is False
    with pytest.raises(NameTaken):
        await cluster.make_service_account(MakeServiceAccount(OTHER, wanted.name))


async def test_a_bundle_is_written_over_an_older_one_and_removed(
    server: FakeServer, cluster: KubernetesCluster
) -> None:
    """One that is gone is gone."""
    for text in ("old", "new"):
        await cluster.publish_bundle("team-a", "sandbox", {"bundle.pem": text})
    found = server.find("configmaps", "pilot-bundle-sandbox")
    assert found is not None
    assert found["data"] == {"bundle.pem": "new"}
    await cluster.remove_bundle("team-a", "sandbox")
    await cluster.remove_bundle("team-a", "sandbox")
    assert server.find("configmaps", "pilot-bundle-sandbox") is None


async def test_a_config_map_of_someone_else_is_no_bundle(
    server: FakeServer, cluster: KubernetesCluster
) -> None:
    """It is neither overwritten nor removed."""
    theirs = {"metadata": {"name": "pilot-bundle-sandbox"}, "data": {"theirs": "yes"}}
    server.plant(("configmaps", "team-a", "pilot-bundle-sandbox"), theirs)
    with pytest.raises(NameTaken):
        await cluster.publish_bundle("team-a", "sandbox", {"bundle.pem": "ours"})
    await cluster.remove_bundle("team-a", "sandbox")
    found = server.find("configmaps", "pilot-bundle-sandbox")
    assert found is not None
    assert found["data"] == {"theirs": "yes"}


async def test_a_status_is_written_to_the_version_that_was_read(
    server: FakeServer, cluster: KubernetesCluster
) -> None:
    """Only what changed, and the spec stays; an object that moved on, or went, is looked at again."""
    read = grant(server)
    written = await cluster.write_status(read, {}, {"phase": "Active", "stage": "sandbox"})
    assert isinstance(written, TaskGrant)
    assert written.status.stage == "sandbox"
    assert written.metadata.version > read.metadata.version
    with pytest.raises(Conflict):
        await cluster.write_status(read, {}, {"phase": "Expired"})
    after = await cluster.write_status(written, {"phase": "Active", "stage": "sandbox"}, {"phase": "Expired"})
    assert isinstance(after, TaskGrant)
    assert (after.status.phase, after.status.stage, after.spec) == ("Expired", "", read.spec)
    server.ask_to_delete("taskgrants", "task-1")
    with pytest.raises(Conflict):
        await cluster.write_status(after, {}, {"phase": "Active"})


async def test_the_status_of_another_object_of_the_name_is_not_written(
    server: FakeServer, cluster: KubernetesCluster
) -> None:
    """The UID goes with it."""
    read = grant(server)
    server.ask_to_delete("taskgrants", "task-1")
    server.apply(manifests.grant())
    with pytest.raises(Conflict):
        await cluster.write_status(read, {}, {"phase": "Active"})


async def test_our_finalizer_comes_and_goes_and_the_others_stay(
    server: FakeServer, cluster: KubernetesCluster
) -> None:
    """An object that goes with it is told as gone."""
    server.apply(
        manifests.grant() | {"metadata": {**manifests.grant()["metadata"], "finalizers": ["theirs"]}}
    )
    held = await cluster.set_finalizer(grant(server), held=True)
    assert held is not None
    assert held.metadata.finalizers == ("theirs", FINALIZER)
    free = await cluster.set_finalizer(held, held=False)
    assert free is not None
    assert free.metadata.finalizers == ("theirs",)


async def test_an_object_that_goes_with_our_finalizer_is_told_as_gone(
    server: FakeServer, cluster: KubernetesCluster
) -> None:
    """Likewise one that was gone already."""
    held = await cluster.set_finalizer(grant(server), held=True)
    assert held is not None
    server.ask_to_delete("taskgrants", "task-1")
    body = server.find("taskgrants", "task-1")
    assert body is not None
    assert await cluster.set_finalizer(parse(body), held=False) is None
    assert await cluster.set_finalizer(held, held=False) is None


async def test_a_list_covers_the_chosen_namespaces(server: FakeServer) -> None:
    """All, or those that were named; stages have none."""
    for namespace in ("team-a", "team-b", "team-c"):
        body = manifests.grant()
        body["metadata"]["namespace"] = namespace
        server.apply(body)
    server.apply(manifests.stage())
    api = FakeApi(server)

    async def listed(kind: str, *namespaces: str) -> list[str]:
        found = [one async for one in KubernetesCluster(api, namespaces).list(kind)]
        return [one.metadata.namespace for one in found if not isinstance(one, Key)]

    assert await listed("TaskGrant") == ["team-a", "team-b", "team-c"]
    assert await listed("TaskGrant", "team-c", "team-a") == ["team-c", "team-a"]
    assert await listed("StagePolicy", "team-a") == [""]


async def test_a_list_tells_the_key_of_what_does_not_parse(
    server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It is there, so it is not gone; the log says what is wrong with it."""
    place = ("taskgrants", "team-a", "broken")
    server.plant(place, manifests.grant("broken") | {"status": {"phase": "Gone"}})
    server.apply(manifests.grant("intact"))
    found = [one async for one in KubernetesCluster(FakeApi(server)).list("TaskGrant")]
    intact = server.find("taskgrants", "intact")
    assert intact is not None
    assert found == [Key("TaskGrant", "team-a", "broken"), parse(intact)]
    assert "not understood, so not touched" in caplog.text


async def test_a_list_tells_what_has_an_unreadable_spec_as_stopped(
    server: FakeServer, cluster: KubernetesCluster
) -> None:
    """And so do the answers to writes, which never hold what only stands in memory."""
    server.apply(manifests.grant(duration="a while"))
    (found,) = [one async for one in cluster.list("TaskGrant")]
    assert isinstance(found, TaskGrant)
    assert found.spec.revoke is not None
    written = await cluster.write_status(found, {}, {"phase": "Revoked"})
    assert "spec.duration" in written.metadata.unreadable
    assert await cluster.set_finalizer(written, held=True) is not None
    kept = server.find("taskgrants", "task-1")
    assert kept is not None
    assert "revoke" not in kept["spec"]
    assert "unreadable" not in kept["metadata"]


def test_a_credential_in_memory_never_shows_its_keys() -> None:
    """Its text form names it."""
    assert repr(credential("one")) == "SignedCredential(one)"


@pytest.mark.parametrize(
    "before, after, patch",
    [
        pytest.param({}, {}, {}, id="nothing"),
        pytest.param({"a": 1}, {"a": 1}, {}, id="no change"),
        pytest.param({"a": [1, 2]}, {"a": [1]}, {"a": [1]}, id="lists as a whole"),
        pytest.param({"a": {"b": 1}}, {"a": 2}, {"a": 2}, id="a mapping that became a value"),
        pytest.param({"a": {"b": 1, "c": 2}}, {"a": {"c": 2}}, {"a": {"b": None}}, id="an inner removal"),
        pytest.param({"a": 1}, {}, {"a": None}, id="a removal"),
    ],
)
def test_a_patch_says_no_more_than_what_changed(
    before: dict[str, Any], after: dict[str, Any], patch: dict[str, Any]
) -> None:
    """RFC 7386."""
    assert merge_patch(before, after) == patch
