"""Compacted bundles in ConfigMaps: written once, read back, listed without their contents."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pilot_identity.adapters.kubernetes import paths
from pilot_identity.adapters.kubernetes.api import METADATA_LIST, METADATA_ONLY, Api, NotFound
from pilot_identity.core.audit.checkpoint import LogSigner, LogVerifier
from pilot_identity.core.audit.compacted import NAME_PREFIX, Compacted, TileName
from pilot_identity.core.audit.groups import BrokenLogError
from pilot_identity.core.audit.recollection import ANNOTATION, annotated, sealed
from pilot_identity.core.audit.tiles import WIDTH
from pilot_identity.core.resources.metadata import GROUP
from pilot_identity.ports import Conflict

log = logging.getLogger(__name__)

TILE_LABEL = {f"{GROUP}/audit": "tile"}
_MAX_PARTS = 32
_PAGE = 100
"""In one list: each may have 192 KiB of recollection, and usually has 9."""

_SELECTOR = f"{GROUP}/audit=tile"

Stored = tuple[TileName, Mapping[str, str], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class StoredTile:
    """A ConfigMap of a bundle, without its contents.

    Attributes:
        created: by the API server's clock.
    """

    name: TileName
    uid: str
    created: dt.datetime


class TileConfigMaps:
    """The bundles of one namespace's log."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._api = api
        self._namespace = namespace

    async def recollections(self, verifier: LogVerifier) -> AsyncIterator[tuple[int, str]]:
        """Yield of each bundle its first entry and its recollection as packed, in order; no contents.

        It is empty where there is none, or the log's key did not seal it: anyone who may write past the
        admission policies can change an annotation.

        Raises:
            BrokenLogError: a ConfigMap of the prefix is named as no bundle is.
        """
        async for item in self._api.pages(
            self._path(), label_selector=_SELECTOR, accept=METADATA_LIST, size=_PAGE
        ):
            metadata = item["metadata"]
            if not metadata["name"].startswith(NAME_PREFIX):
                continue  # the admission policy guards names; anyone may set a label
            name = TileName.parse(metadata["name"])
            if not name.part:
                found = metadata.get("annotations") or {}
                packed = sealed(name.first, found, verifier)
                if not packed and ANNOTATION in found:
                    log.error("%s: what it keeps of its entries is not sealed by the log's key", name)
                yield name.first, packed

    async def oldest(self, count: int) -> Sequence[StoredTile]:
        """The first ConfigMaps of bundles by name, which is the log's order, without their contents."""
        path, query = self._path(), {"labelSelector": _SELECTOR, "limit": str(count)}
        page = await self._api.call("GET", path, query=query, accept=METADATA_LIST)
        return [
            StoredTile(
                TileName.parse(item["metadata"]["name"]),
                item["metadata"]["uid"],
                dt.datetime.fromisoformat(item["metadata"]["creationTimestamp"]),
            )
            for item in page["items"] or ()
            if item["metadata"]["name"].startswith(NAME_PREFIX)
        ]

    async def delete(self, tile: StoredTile) -> None:
        """Delete a ConfigMap of a bundle; one that is gone is gone.

        Raises:
            Conflict: another of its name stands there.
        """
        with suppress(NotFound):
            await self._api.delete(self._path(str(tile.name)), uid=tile.uid)

    async def covers(self, index: int) -> bool:
        """Whether the bundle of an entry is stored."""
        name = TileName(index // WIDTH * WIDTH)
        try:
            await self._api.call("GET", self._path(str(name)), accept=METADATA_ONLY)
        except NotFound:
            return False
        return True

    async def read(self, first: int) -> Compacted | None:
        """Read a bundle; `None` where it is not committed.

        Raises:
            BrokenLogError: what is stored is no whole bundle.
        """
        try:
            last = await self._get(TileName(first))
        except NotFound:
            return None
        parts = [last]
        try:
            count = int(last[1].get("parts", ""))
            others = (TileName(first, number) for number in range(1, min(count, _MAX_PARTS)))
            parts += [await self._get(name) for name in others]
        except (ValueError, NotFound) as error:
            raise BrokenLogError(f"{TileName(first)}: it is not whole: {error}") from error
        return Compacted.from_config_maps(parts)

    async def write(self, bundle: Compacted, signer: LogSigner) -> None:
        """Write a bundle, or find that it is there: its name is taken only by itself.

        `signer` seals what is kept of it for a start.

        Raises:
            BrokenLogError: something else stands there under its name.
        """
        config_maps = await asyncio.to_thread(bundle.config_maps)
        kept = await asyncio.to_thread(annotated, bundle.first, bundle.entries, signer)
        for name, data, binary in config_maps:
            body = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {
                    "name": str(name),
                    "namespace": self._namespace,
                    "labels": TILE_LABEL,
                    "annotations": kept if not name.part else {},
                },
                "immutable": True,
                "data": dict(data),
                "binaryData": dict(binary),
            }
            try:
                await self._api.create(self._path(), body, accept=METADATA_ONLY)
            except Conflict:
                if not name.part:
                    await self._require_same(bundle)
                elif (await self._get(name))[2] != binary:
                    # Of another version of zlib: the pieces would not fit together.
                    raise BrokenLogError(f"{name}: another piece than this version's stands there") from None

    async def _require_same(self, bundle: Compacted) -> None:
        """Compare what is inside; gzip's bytes differ between versions of zlib."""
        found = await self.read(bundle.first)
        if found is None or (found.entries, found.leaves, found.edge) != (
            bundle.entries,
            bundle.leaves,
            bundle.edge,
        ):
            raise BrokenLogError(f"{TileName(bundle.first)}: another bundle than the log's stands there")

    async def _get(self, name: TileName) -> Stored:
        found: Mapping[str, Any] = await self._api.get(self._path(str(name)))
        return name, found.get("data") or {}, found.get("binaryData") or {}

    def _path(self, name: str = "") -> str:
        return paths.core(self._namespace, "configmaps", name)
