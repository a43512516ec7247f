"""Entries of the audit log by their indices: out of the bundles that have them, else out of the groups."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from pilot_identity.adapters.audit_groups import GroupConfigMaps
from pilot_identity.adapters.audit_tiles import TileConfigMaps
from pilot_identity.adapters.kubernetes.api import Api
from pilot_identity.core.audit.entries import EntryError, RecordedEntry, decode_entry
from pilot_identity.core.audit.groups import BrokenLogError
from pilot_identity.core.audit.tiles import WIDTH

log = logging.getLogger(__name__)


class ConfigMapEntries:
    """`ports.StoredEntries` in the operator's namespace.

    A bundle costs one request for all its 256 entries; the groups that stand behind the last bundle cost one
    listing. What is read is not verified here: the log's writer checked it, and `kubectl pilot audit` does.
    """

    def __init__(self, api: Api, namespace: str) -> None:
        self._tiles = TileConfigMaps(api, namespace)
        self._groups = GroupConfigMaps(api, namespace)

    async def read(self, indices: AbstractSet[int]) -> Mapping[int, RecordedEntry]:
        """Read entries; what is archived, or cannot be read as an entry, is left out."""
        found: dict[int, RecordedEntry] = {}
        by_bundle: dict[int, list[int]] = defaultdict(list)
        for index in sorted(indices):
            by_bundle[index // WIDTH * WIDTH].append(index)
        left: set[int] = set()
        for first, wanted in by_bundle.items():
            entries = await self._bundle(first)
            if entries is None:
                left.update(wanted)
            else:
                _take(found, wanted, first, entries)
        if left:
            await self._read_groups(found, left)
        return found

    async def _bundle(self, first: int) -> Sequence[bytes] | None:
        try:
            bundle = await self._tiles.read(first)
        except BrokenLogError as error:
            log.error("%s", error)  # noqa: TRY400 - what is wrong with the log is said once, in a line
            return ()
        return bundle.entries if bundle is not None else None

    async def _read_groups(self, found: dict[int, RecordedEntry], left: AbstractSet[int]) -> None:
        try:
            async for stored in self._groups.all():
                group = stored.group
                wanted = [index for index in left if group.extends <= index < group.size]
                _take(found, wanted, group.extends, group.entries)
        except BrokenLogError as error:
            log.error("%s", error)  # noqa: TRY400


def _take(
    found: dict[int, RecordedEntry], wanted: Sequence[int], first: int, entries: Sequence[bytes]
) -> None:
    for index in wanted:
        if index - first < len(entries):
            try:
                found[index] = decode_entry(entries[index - first])
            except EntryError as error:
                log.warning("entry %d: %s", index, error)
