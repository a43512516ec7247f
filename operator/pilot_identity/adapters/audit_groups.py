"""Groups in ConfigMaps: created under the name of the size that they extend, listed, deleted."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pilot_identity.adapters.kubernetes import paths
from pilot_identity.adapters.kubernetes.api import METADATA_LIST, METADATA_ONLY, Api, NotFound
from pilot_identity.core.audit.chain import Standing
from pilot_identity.core.audit.groups import NAME_PREFIX, Group, extended_by, group_name
from pilot_identity.core.resources.metadata import GROUP
from pilot_identity.ports import Conflict

log = logging.getLogger(__name__)

GROUP_LABEL = {f"{GROUP}/audit": "group"}
_SELECTOR = f"{GROUP}/audit=group"
_PAGE = 50
"""In one answer: each may have 1 MiB, and a start may find thousands."""


@dataclass(frozen=True, slots=True)
class StoredGroup:
    """A group as it is stored.

    Attributes:
        created: by the API server's clock, in whole seconds.
    """

    group: Group
    uid: str
    created: dt.datetime

    def standing(self, since: float) -> Standing:
        """What a chain knows of it, which stood at `since` by the loop's clock."""
        group = self.group
        return Standing(
            group.extends, group.size, self.uid, since, created=self.created, digest=group.digest()
        )


class GroupConfigMaps:
    """The groups of one namespace's log."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._api = api
        self._namespace = namespace

    async def all(self) -> AsyncIterator[StoredGroup]:
        """Yield every group in the order of their names, which is the log's; a page at a time is held.

        Raises:
            BrokenLogError: a ConfigMap of the prefix is no group.
        """
        path = paths.core(self._namespace, "configmaps")
        async for item in self._api.pages(path, label_selector=_SELECTOR, size=_PAGE):
            if item["metadata"]["name"].startswith(NAME_PREFIX):  # anyone may set a label
                yield _stored(item)

    async def find(self, size: int) -> StoredGroup | None:
        """The group that extends a tree of this size, if it is stored."""
        try:
            return _stored(await self._api.get(self._path(group_name(size))))
        except NotFound:
            return None

    async def uids(self) -> Mapping[int, str]:
        """The UID of every group that is stored, by the size that it extends; no contents.

        Raises:
            BrokenLogError: a ConfigMap of the prefix is named as no group is.
        """
        path, uids = paths.core(self._namespace, "configmaps"), dict[int, str]()
        async for item in self._api.pages(path, label_selector=_SELECTOR, accept=METADATA_LIST):
            metadata = item["metadata"]
            if metadata["name"].startswith(NAME_PREFIX):
                uids[extended_by(metadata["name"])] = metadata["uid"]
        return uids

    async def uid(self, size: int) -> str | None:
        """The UID of the group that extends a tree of this size, if it is stored; without its contents."""
        try:
            found = await self._api.call("GET", self._path(group_name(size)), accept=METADATA_ONLY)
        except NotFound:
            return None
        return str(found["metadata"]["uid"])

    async def create(self, group: Group) -> StoredGroup:
        """Store a group.

        Raises:
            Conflict: another of that name stands there.
        """
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": group.name, "namespace": self._namespace, "labels": GROUP_LABEL},
            "immutable": True,
            "data": dict(group.data()),
        }
        created = (await self._api.create(self._path(), body, accept=METADATA_ONLY))["metadata"]
        return StoredGroup(group, created["uid"], dt.datetime.fromisoformat(created["creationTimestamp"]))

    async def delete(self, standing: Standing) -> None:
        """Delete a group; one that is gone is gone, and one that was replaced is left."""
        try:
            await self._api.delete(self._path(standing.name), uid=standing.uid)
        except NotFound:
            log.debug("%s is deleted already", standing.name)
        except Conflict:
            log.error("%s was replaced by another of its name; it is left", standing.name)  # noqa: TRY400

    async def read(self, groups: Sequence[Standing]) -> Sequence[Group]:
        """Read groups, which are the first in a list, in their order.

        Raises:
            NotFound: one of them is gone.
            BrokenLogError: what stands there is no group.
        """
        query = {"labelSelector": _SELECTOR, "limit": str(len(groups))}
        listed = (await self._api.call("GET", self._path(), query=query))["items"]
        found = {item["metadata"]["name"]: item for item in listed}
        read: list[Group] = []
        for standing in groups:
            item = found.pop(standing.name, None) or await self._api.get(self._path(standing.name))
            read.append(Group.from_data(standing.name, item.get("data") or {}))
        return read

    def _path(self, name: str = "") -> str:
        return paths.core(self._namespace, "configmaps", name)


def _stored(item: Mapping[str, Any]) -> StoredGroup:
    metadata = item["metadata"]
    group = Group.from_data(metadata["name"], item.get("data") or {})
    return StoredGroup(group, metadata["uid"], dt.datetime.fromisoformat(metadata["creationTimestamp"]))
