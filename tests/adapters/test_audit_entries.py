from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilot_identity.adapters.audit_entries import ConfigMapEntries
from pilot_identity.adapters.audit_log import ConfigMapLog
from pilot_identity.adapters.kubernetes.surroundings import KubernetesSurroundings
from pilot_identity.core.audit.chain import GRACE_SECONDS
from pilot_identity.core.audit.checkpoint import LogSigner
from pilot_identity.core.audit.entries import Entry, EntryType
from tests.fakes.clock import START, LoopClock
from tests.fakes.server import HOME, FakeApi, FakeServer

pytestmark = pytest.mark.looptime

SIGNER = LogSigner("pilotidentity.dev/log/test", Ed25519PrivateKey.from_private_bytes(bytes(32)))
LABELS = {"app.kubernetes.io/managed-by": "pilot-identity"}


@asynccontextmanager
async def stored(count: int) -> AsyncIterator[FakeServer]:
    """A server with a log of so many entries in groups of sixty, compacted as far as may be."""
    server = FakeServer(LoopClock())
    log = ConfigMapLog(FakeApi(server), HOME, SIGNER, on_read=lambda _: None)
    await log.open()
    writing = asyncio.create_task(log.run())
    for first in range(0, count, 60):
        await log.commit([entry(number) for number in range(first, min(first + 60, count))])
    await asyncio.sleep(GRACE_SECONDS + 1)
    while await log.compaction.compact_next():
        pass
    writing.cancel()
    await asyncio.wait({writing})
    server.requests.clear()
    yield server


def entry(number: int) -> Entry:
    """The log's entry of this index."""
    return Entry(f"u/{number}", EntryType.ACCESS_SEEN, "TaskGrant a/b", "u", START, {"number": number})


async def test_entries_are_read_by_their_indices() -> None:
    """Out of a bundle, and out of a group behind it that has entries of both; each place is read once."""
    async with stored(400) as server:
        read = await ConfigMapEntries(FakeApi(server), HOME).read({0, 1, 255, 256, 399})
        assert {index: one.data["number"] for index, one in read.items()} == {
            n: n for n in (0, 1, 255, 256, 399)
        }
        assert [str(one) for one in server.requests] == [
            "GET configmaps/audit-tile-0000000000000000",
            "GET configmaps/audit-tile-0000000000000256",
            "GET configmaps",
        ]


async def test_nothing_is_asked_for_nothing() -> None:
    """A round in which nothing changed reads no entry."""
    async with stored(10) as server:
        assert await ConfigMapEntries(FakeApi(server), HOME).read(set()) == {}
        assert server.requests == []


async def test_what_is_not_stored_or_cannot_be_read_is_left_out() -> None:
    """An entry of the future, one that is archived, one in a bundle that is broken."""
    async with stored(600) as server:
        bundle = server.find("configmaps", "audit-tile-0000000000000256", HOME)
        assert bundle is not None
        bundle["binaryData"]["leaves"] = "AAAA"
        server.plant(("configmaps", HOME, "audit-tile-0000000000000256"), bundle)
        server.lose("configmaps", "audit-tile-0000000000000000", HOME)
        read = await ConfigMapEntries(FakeApi(server), HOME).read({3, 300, 599, 10_000})
        assert set(read) == {599}


async def test_an_entry_of_another_version_is_left_out() -> None:
    """It is no entry that this version can say anything of."""
    async with stored(2) as server:
        (name,) = [
            one["metadata"]["name"]
            for one in server.all("configmaps")
            if one["metadata"]["name"].startswith("audit-group-")
        ]
        group = server.find("configmaps", name, HOME)
        assert group is not None
        lines = group["data"]["entries"].split("\n")
        group["data"]["entries"] = "\n".join(['{"specversion":"2.0"}', lines[1]])
        server.plant(("configmaps", HOME, name), group)
        assert set(await ConfigMapEntries(FakeApi(server), HOME).read({0, 1})) == {1}


def account(name: str, namespace: str, **metadata: object) -> dict[str, object]:
    """A ServiceAccount."""
    return {"metadata": {"name": name, "namespace": namespace, **metadata}}


async def test_surroundings_are_what_only_the_operator_makes() -> None:
    """By name or label; a binding also by whom it binds. Of other namespaces nothing is asked."""
    server = FakeServer(LoopClock())
    for name, namespace, metadata in (
        ("default", "team-a", {}),
        ("pilot-grant-1", "team-a", {}),
        ("helper", "team-b", {"labels": LABELS}),
        ("helper", "team-c", {"labels": LABELS}),
    ):
        body = account(name, namespace, **metadata)
        server.plant(("serviceaccounts", namespace, name), body)
        subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
        role = {"kind": "ClusterRole", "name": "view"}
        plain = account(f"to-{name}", namespace)
        binding = {**plain, "roleRef": role, "subjects": [subject]}
        server.plant(("rolebindings", namespace, f"to-{name}"), binding)
    around = KubernetesSurroundings(FakeApi(server), ["team-a", "team-b"])
    assert [str(one.key) for one in await around.accounts()] == [
        "ServiceAccount team-a/pilot-grant-1",
        "ServiceAccount team-b/helper",
    ]
    assert [str(one.object.key) for one in await around.bindings()] == ["RoleBinding team-a/to-pilot-grant-1"]
    everywhere = KubernetesSurroundings(FakeApi(server))
    assert len(await everywhere.accounts()) == 3
