"""The load: a plain HTTP client as the cluster's admin, fast enough not to be what is measured."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from e2e.controlplane.cluster import Cluster

GRANTS = "/apis/pilotidentity.dev/v1alpha1/namespaces/{namespace}/taskgrants"
WATCH_BYTES = 2**24


class BenchError(Exception):
    """The API server refused what the benchmark asked for."""


class Client:
    """Writes and watches as the admin."""

    def __init__(self, session: aiohttp.ClientSession, bare: aiohttp.ClientSession, server: str) -> None:
        self._session = session
        self._bare = bare
        self._server = server

    async def create(self, path: str, body: Mapping[str, Any]) -> None:
        """Create one object."""
        async with self._session.post(f"{self._server}{path}", json=body) as answer:
            content = await answer.read()
            if answer.status >= 300:
                raise BenchError(f"POST {path}: {answer.status}: {content[:300]!r}")

    async def patch(self, path: str, body: Mapping[str, Any]) -> None:
        """Merge into one object."""
        headers = {"Content-Type": "application/merge-patch+json"}
        async with self._session.patch(f"{self._server}{path}", json=body, headers=headers) as answer:
            content = await answer.read()
            if answer.status >= 300:
                raise BenchError(f"PATCH {path}: {answer.status}: {content[:300]!r}")

    async def status_as(self, token: str, path: str) -> int:
        """Ask with a grant's token, never with the admin's certificate; returns the answer's status."""
        headers = {"Authorization": f"Bearer {token}"}
        async with self._bare.get(f"{self._server}{path}", headers=headers) as answer:
            await answer.read()
            return answer.status

    async def get(self, path: str) -> Any:
        """Read one object or collection."""
        async with self._session.get(f"{self._server}{path}") as answer:
            return await answer.json()

    async def raw(self, path: str, accept: str) -> bytes:
        """Read one object or collection in another encoding, as it comes."""
        async with self._session.get(f"{self._server}{path}", headers={"Accept": accept}) as answer:
            return await answer.read()

    async def watch(self, path: str) -> AsyncIterator[dict[str, Any]]:
        """Yield the events of a collection from now on."""
        listed = await self.get(f"{path}?limit=1")
        version = listed["metadata"]["resourceVersion"]
        url = f"{self._server}{path}?watch=true&resourceVersion={version}"
        async with self._session.get(url, timeout=aiohttp.ClientTimeout(total=None)) as answer:
            async for line in answer.content:
                yield json.loads(line)


@asynccontextmanager
async def admin(cluster: Cluster) -> AsyncIterator[Client]:
    """Open a client with the admin's certificate."""
    flat = cluster.kubectl("config", "view", "--minify", "--raw", "--flatten", "-o", "json")
    async with _client(flat) as client:
        yield client


@asynccontextmanager
async def person(cluster: Cluster, name: str) -> AsyncIterator[Client]:
    """Open a client with the certificate of a user, who may do what RBAC lets them."""
    arguments = ("config", "view", "--minify", "--raw", "--flatten", "-o", "json")
    async with _client(cluster.run("kubectl", *arguments, kubeconfig=cluster.user(name)).stdout) as client:
        yield client


@asynccontextmanager
async def _client(flat: str) -> AsyncIterator[Client]:
    """Open a client by a kubeconfig in JSON that holds its certificates."""
    config = json.loads(flat)
    section, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    authority = _decoded(section, "certificate-authority-data").decode()
    context, bare = ssl.create_default_context(cadata=authority), ssl.create_default_context(cadata=authority)
    with tempfile.TemporaryDirectory() as directory:
        for name in ("client-certificate", "client-key"):
            (Path(directory) / name).write_bytes(_decoded(user, f"{name}-data"))
        context.load_cert_chain(f"{directory}/client-certificate", f"{directory}/client-key")
    connector = aiohttp.TCPConnector(limit=0, ssl=context)
    async with (
        aiohttp.ClientSession(connector=connector, read_bufsize=WATCH_BYTES) as session,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, ssl=bare)) as with_tokens,
    ):
        yield Client(session, with_tokens, section["server"])


def _decoded(section: Mapping[str, str], field: str) -> bytes:
    return base64.b64decode(section[field])


class Arrivals:
    """When each Secret of a namespace was first seen, last replaced, and when it went."""

    def __init__(self) -> None:
        self.seen: dict[str, float] = {}
        self.gone: dict[str, float] = {}
        self.renewed: dict[str, float] = {}
        self._changed = asyncio.Condition()

    async def follow(self, client: Client, namespace: str) -> None:
        """Take notes of what a watch tells, until cancelled."""
        async for event in client.watch(f"/api/v1/namespaces/{namespace}/secrets"):
            name = event["object"]["metadata"]["name"]
            async with self._changed:
                if event["type"] == "ADDED":
                    self.seen[name] = time.perf_counter()
                elif event["type"] == "DELETED":
                    self.gone[name] = time.perf_counter()
                elif event["type"] == "MODIFIED":
                    self.renewed[name] = time.time()
                self._changed.notify_all()

    async def until_renewed(self, due: Mapping[str, float]) -> None:
        """Wait until every one was renewed since it was due; a renewal is never before its time."""
        waiting = set(due)

        def all_renewed() -> bool:
            while waiting:
                name = next(iter(waiting))
                if self.renewed.get(name, 0.0) < due[name]:
                    return False
                waiting.discard(name)
            return True

        async with self._changed:
            await self._changed.wait_for(all_renewed)

    async def until(self, names: set[str], *, gone: bool = False, seconds: float = 600) -> None:
        """Wait until every name was seen, or is gone."""
        notes = self.gone if gone else self.seen
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(lambda: names <= notes.keys())
