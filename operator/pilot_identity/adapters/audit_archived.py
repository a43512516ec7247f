"""Up to where the log is archived, in ConfigMaps: written before bundles leave, read on start."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from pilot_identity.adapters.kubernetes import paths
from pilot_identity.adapters.kubernetes.api import METADATA_LIST, Api, NotFound
from pilot_identity.core.audit.archived import NAME_PREFIX, Archived, ArchivedName, Stored
from pilot_identity.core.audit.checkpoint import LogVerifier
from pilot_identity.core.audit.entries import EntryError, decode_entry
from pilot_identity.core.audit.groups import BrokenLogError
from pilot_identity.core.audit.merkle import Frontier, leaf_hash
from pilot_identity.core.audit.recollection import recollect
from pilot_identity.core.audit.remembered import Kept
from pilot_identity.core.audit.tiles import ENTRIES, WIDTH, Tile, TileError, decode_bundle
from pilot_identity.core.resources.metadata import GROUP
from pilot_identity.ports import Archive, Conflict

log = logging.getLogger(__name__)

ARCHIVED_LABEL = {f"{GROUP}/audit": "archived"}
_SELECTOR = f"{GROUP}/audit=archived"


class ArchivedConfigMaps:
    """What one namespace's log says of its archive."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._api = api
        self._namespace = namespace

    async def size(self) -> int:
        """Up to which size the log is archived; 0 where nothing is."""
        return _newest(await self.names())

    async def names(self) -> Sequence[ArchivedName]:
        """The ConfigMaps that there are."""
        return [
            ArchivedName.parse(item["metadata"]["name"])
            async for item in self._api.pages(self._path(), label_selector=_SELECTOR, accept=METADATA_LIST)
            if item["metadata"]["name"].startswith(NAME_PREFIX)  # anyone may set a label
        ]

    async def newest(self) -> Archived | None:
        """Read up to where the log is archived; `None` where nothing is. Nothing of it is verified.

        Raises:
            BrokenLogError: what is stored is no such record, or not whole.
        """
        stored = await self._stored()
        return Archived.from_config_maps(stored) if stored else None

    async def verified(self, verifier: LogVerifier, archive: Archive | None) -> Archived | None:
        """Read the same, to start from it: its edge by its signed head, and what it keeps by its seal.

        Where the seal is not good, what is kept is read from the archived entries again, which are hashed.

        Raises:
            BrokenLogError, CheckpointError: what is stored is no such record of this log, or what it is to
                remember is neither sealed nor in the archive.
            PortError: the cluster or the archive cannot be read.
        """
        stored = await self._stored()
        if not stored:
            return None
        try:
            archived = Archived.from_config_maps(stored)
        except BrokenLogError:
            archived = Archived.from_data(stored[0][0], stored[0][1])
        archived.require_signed(verifier)
        if archived.is_sealed(verifier):
            return archived
        where = stored[0][0]
        if archive is None:
            raise BrokenLogError(
                f"{where}: what it keeps is not sealed by the log's key; no archive is named"
            )
        log.error("%s: what it keeps is not sealed by the log's key; the archive is read for it", where)
        return replace(archived, kept=await _recollected(archived, archive))

    async def write(self, archived: Archived) -> None:
        """Write a record; the one without a number, which commits it, is written last.

        What a crash left of it may remember other steps; that of this process counts for as much, since
        both know every step of the objects that live.

        Raises:
            BrokenLogError: under the name of that size stands another edge.
        """
        for name, data, binary in await asyncio.to_thread(archived.config_maps):
            body = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": str(name), "namespace": self._namespace, "labels": ARCHIVED_LABEL},
                "immutable": True,
                "data": dict(data),
                "binaryData": dict(binary),
            }
            try:
                await self._api.create(self._path(), body)
            except Conflict:
                if name.part:
                    # Not committed, or it would not be written again: it would not fit to the others.
                    await self._api.delete(self._path(str(name)))
                    await self._api.create(self._path(), body)
                    continue
                found = Archived.from_data(name, (await self._get(name)).get("data") or {})
                if found.edge != archived.edge:
                    raise BrokenLogError(f"{name}: another edge than the log's stands there") from None

    async def delete_before(self, size: int) -> bool:
        """Delete the records of smaller sizes, or what a crash left; returns whether there were any."""
        older = sorted(name for name in await self.names() if name.size < size)
        for name in older:
            with suppress(NotFound):
                await self._api.delete(self._path(str(name)))
        return bool(older)

    async def _stored(self) -> Sequence[Stored]:
        """The newest record's parts, first the one that commits them; none where there is no record."""
        names = await self.names()
        size = _newest(names)
        stored: list[Stored] = []
        for name in sorted(name for name in names if size and name.size == size):
            found = await self._get(name)
            stored.append((name, found.get("data") or {}, found.get("binaryData") or {}))
        return stored

    async def _get(self, name: ArchivedName) -> Mapping[str, Any]:
        found: Mapping[str, Any] = await self._api.get(self._path(str(name)))
        return found

    def _path(self, name: str = "") -> str:
        return paths.core(self._namespace, "configmaps", name)


async def _recollected(archived: Archived, archive: Archive) -> tuple[Kept, ...]:
    """What is to be remembered of all entries that are archived, read from them."""
    frontier, kept = Frontier(), list[Kept]()
    for number in range(archived.size // WIDTH):
        path = Tile(ENTRIES, number).path
        content = await archive.read(path)
        try:
            kept += await asyncio.to_thread(_of_bundle, frontier, decode_bundle(content or b""))
        except (TileError, EntryError) as error:
            raise BrokenLogError(f"the archive's {path}: {error}") from error
    if frontier.size != archived.size or frontier.subtrees != archived.edge:
        raise BrokenLogError(f"the first {archived.size} entries in the archive are not those of this log")
    return tuple(kept)


def _of_bundle(frontier: Frontier, entries: Iterable[bytes]) -> list[Kept]:
    """What is kept of the next entries, over which the tree goes on."""
    kept: list[Kept] = []
    for entry in entries:
        kept.append(Kept(frontier.size, recollect(decode_entry(entry))))
        frontier.append(leaf_hash(entry))
    return kept


def _newest(names: Iterable[ArchivedName]) -> int:
    """The largest size of which the part that commits is there; 0 where there is none."""
    return max((name.size for name in names if not name.part), default=0)
