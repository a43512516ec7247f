"""Up to where the log is archived, in ConfigMaps: written before bundles leave, read on start."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from pilot_identity.adapters.kubernetes import paths
from pilot_identity.adapters.kubernetes.api import METADATA_LIST, Api, NotFound
from pilot_identity.core.audit.archived import NAME_PREFIX, Archived, ArchivedName, Stored
from pilot_identity.core.audit.groups import BrokenLogError
from pilot_identity.core.resources.metadata import GROUP
from pilot_identity.ports import Conflict

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
        """Read up to where the log is archived; `None` where nothing is.

        Raises:
            BrokenLogError: what is stored is no such record, or not whole.
        """
        names = await self.names()
        size = _newest(names)
        if not size:
            return None
        stored: list[Stored] = []
        for name in names:
            if name.size == size:
                found = await self._get(name)
                stored.append((name, found.get("data") or {}, found.get("binaryData") or {}))
        return Archived.from_config_maps(stored)

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

    async def _get(self, name: ArchivedName) -> Mapping[str, Any]:
        found: Mapping[str, Any] = await self._api.get(self._path(str(name)))
        return found

    def _path(self, name: str = "") -> str:
        return paths.core(self._namespace, "configmaps", name)


def _newest(names: Iterable[ArchivedName]) -> int:
    """The largest size of which the part that commits is there; 0 where there is none."""
    return max((name.size for name in names if not name.part), default=0)
