"""The audit log in ConfigMaps: group commit, compaction behind it, taken up again on start.

While one group is being written, entries wait and become the next one; when nothing is in flight an entry
is written at once. So the cost is per group, and the latency of an idle log is one write. Under load groups
are paced: they grow instead of becoming more. Behind the head full bundles become tiles, one at a time, and
their groups go; `core.audit.chain` says when, and why no writer that slept can fork the log by it.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from pilot_identity.adapters.audit_tiles import TileConfigMaps
from pilot_identity.adapters.kubernetes import paths
from pilot_identity.adapters.kubernetes.api import Api, NotFound
from pilot_identity.adapters.revocations import Budget
from pilot_identity.core.audit.chain import GRACE_SECONDS, Chain, Standing
from pilot_identity.core.audit.checkpoint import CheckpointError, LogSigner
from pilot_identity.core.audit.compacted import Compacted, compact
from pilot_identity.core.audit.entries import Entry, EntryError, RecordedEntry, decode_entry, encode_entry
from pilot_identity.core.audit.groups import (
    MAX_ENTRIES,
    NAME_PREFIX,
    BrokenLogError,
    Group,
    extend,
    group_name,
    take,
)
from pilot_identity.core.audit.recollection import Recollection, recollect, unpack
from pilot_identity.core.audit.tiles import WIDTH
from pilot_identity.core.resources.metadata import GROUP
from pilot_identity.ports import AlreadyRecorded, Conflict, PortError, Unavailable

log = logging.getLogger(__name__)

OWED_RETRY_SECONDS = 5.0
GROUP_LABEL = {f"{GROUP}/audit": "group"}
FRESH_SECONDS = GRACE_SECONDS / 2
"""Whoever knew the head so lately may write without looking; a request takes at most 10 s."""
GROUPS_AT_ONCE = 32
GROUPS_PER_SECOND = 35
"""In the long run: 64 writers that wait for each other's groups get 2,240 entries a second into these.

With the bundles that those make, nine a second, that is 44 ConfigMaps a second.
"""
COMPACTION_RETRY_SECONDS = 10.0
LOOK_SECONDS = 1.0
"""How often compaction looks whether a bundle has become old enough."""
OPEN_ATTEMPTS = 5
"""Another operator may be compacting what is being read."""


@dataclass(slots=True)
class _Announced:
    """An announcement; without its entry where that is compacted and was not asked for."""

    index: int
    issuance: int
    encoded: bytes | None


@dataclass(slots=True)
class _Subject:
    """What the log remembers of one object while the object exists."""

    ids: dict[str, int] = field(default_factory=dict)
    announced: _Announced | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """An entry on its way, and whom to tell its index."""

    id: str
    subject_uid: str
    encoded: bytes
    done: asyncio.Future[int]


class ConfigMapLog:
    """`ports.AuditLog` in the operator's namespace.

    A group's ConfigMap is named by the size that it extends, so that of two writers one fails; the one that
    fails reads what the other wrote, and goes on from there with what is still unsaid.
    """

    def __init__(
        self, api: Api, namespace: str, signer: LogSigner, *, on_read: Callable[[RecordedEntry], None]
    ) -> None:
        """Make the log of a namespace.

        Args:
            api: the client.
            namespace: the operator's.
            signer: signs checkpoints.
            on_read: is given each entry that is read back, which others or this process before recorded; of
                one that is compacted only what it says was revoked.
        """
        self._api = api
        self._on_read = on_read
        self._namespace = namespace
        self._signer = signer
        self._verifier = signer.verifier()
        self._tiles = TileConfigMaps(api, namespace)
        self._chain = Chain()
        self._known_at = float("-inf")
        self._pace = Budget(GROUPS_AT_ONCE, GROUPS_PER_SECOND)
        self._subjects: dict[str, _Subject] = {}
        self._unrecalled: list[tuple[int, Sequence[Recollection] | str]] = []
        self._waiting: list[_Waiting] = []
        self._wake = asyncio.Event()
        self._in_doubt = False
        self._owed: list[Entry] = []
        self._owes = asyncio.Event()
        self.groups_written = 0
        self.bundles_written = 0

    @property
    def size(self) -> int:
        """How many entries are committed, as far as this process knows."""
        return self._chain.size

    @property
    def sealed(self) -> int:
        """How many of them are compacted."""
        return self._chain.sealed

    @property
    def groups_standing(self) -> int:
        """How many groups are stored and not deleted."""
        return self._chain.groups

    async def open(self) -> None:
        """Take the log up: the last bundle and what goes on from there, every hash and signature checked.

        Of the bundles before it only their recollections are read.

        Raises:
            BrokenLogError, CheckpointError: what is stored is no log of ours; nothing may be added to it.
        """
        for attempt in itertools.count(1):
            try:
                await self._open()
                break
            except BrokenLogError:
                # Bundles are listed before groups, and what was compacted in between is in neither list.
                if attempt == OPEN_ATTEMPTS or not await self._was_compacted_since():
                    raise
        log.info("the audit log has %d entries, %d of them compacted", self.size, self.sealed)

    async def _open(self) -> None:
        self._chain, self._known_at = Chain(), _tick()
        self._subjects.clear()
        self._unrecalled.clear()
        bundles = [found async for found in self._tiles.recollections()]
        if bundles:
            await self._open_bundles(bundles)
        path, groups = paths.core(self._namespace, "configmaps"), list[_Read]()
        # Lists come in the order of names, which is the log's; so no more than a page is held at a time.
        async for item in self._api.pages(path, label_selector=f"{GROUP}/audit=group"):
            if item["metadata"]["name"].startswith(NAME_PREFIX):  # anyone may set a label
                groups.append(await self._absorb_or_pass(item))
        if not groups and bundles:
            raise BrokenLogError("there are bundles and no group; the newest group is never deleted")
        self._date(groups)

    async def _open_bundles(self, bundles: Sequence[tuple[int, str]]) -> None:
        last = await self._tiles.read(bundles[-1][0])
        if last is None:
            raise BrokenLogError(f"the bundle from {bundles[-1][0]} on went while it was read")
        self._chain.begin_at(last, self._verifier)
        for first, packed in bundles:
            rows = unpack(packed)
            if rows is None:
                bundle = await self._tiles.read(first)
                if bundle is None:
                    raise BrokenLogError(f"the bundle from {first} on went while it was read")
                rows = [recollect(decode_entry(entry)) for entry in bundle.entries]
                self._unrecalled.append((first, rows))
            else:
                self._unrecalled.append((first, packed))
            for row in rows:
                if row.revoked is not None:
                    self._on_read(_revocation(row))

    async def _absorb_or_pass(self, item: Mapping[str, Any]) -> _Read:
        """Go on over a group that is listed; pass over one whose place a bundle has, and that differs."""
        metadata = item["metadata"]
        group = Group.from_data(metadata["name"], item.get("data") or {})
        standing = Standing(group.extends, group.size, metadata["uid"], _tick())
        if await self._is_bundled(group):
            self._absorb(group, standing)
        else:
            # Nobody was told that it counts (`core.audit.chain`), or someone wrote past the API server.
            log.error("%s differs from the bundle that has its place; people must look at it", group.name)
        return _Read(standing, dt.datetime.fromisoformat(metadata["creationTimestamp"]))

    async def _is_bundled(self, group: Group) -> bool:
        """Whether what a group and bundles both have is the same."""
        end = min(group.size, self._chain.sealed)
        for first in range(group.extends // WIDTH * WIDTH, end, WIDTH):
            bundle = await self._tiles.read(first)
            start = max(first, group.extends)
            shared = group.entries[start - group.extends : min(end, first + WIDTH) - group.extends]
            if bundle is None or bundle.entries[start - first :][: len(shared)] != shared:
                return False
        return True

    def _date(self, groups: Sequence[_Read]) -> None:
        """Tell how long each group stands, by the API server's clock alone: at least since the last came."""
        newest = max((read.created for read in groups), default=None)
        for read in groups:
            if newest is not None:
                age = (newest - read.created).total_seconds() - 1.0  # these times are in whole seconds
                self._chain.date(read.standing, since=_tick() - max(age, 0.0))

    async def _was_compacted_since(self) -> bool:
        return await self._tiles.covers(self.size)

    async def commit(self, entries: Sequence[Entry]) -> int:
        """Commit entries in order, each id once; returns the index of the last.

        Raises:
            AlreadyRecorded: the last entry's id is in the log already and announces a credential.
            Unavailable: the write's outcome is not known, or it did not happen.
        """
        waiting = [self._enqueue(entry) for entry in entries]
        self._wake.set()
        # Together, so that none is left unobserved when one fails.
        results = await asyncio.gather(*(item.done for item in waiting), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        last = entries[-1]
        index: int = await waiting[-1].done
        if "credential" in last.data and await self._announcement_differs(last, index, waiting[-1].encoded):
            raise AlreadyRecorded(f"{last.id} is entry {index} already")
        return index

    def owe(self, entries: Sequence[Entry]) -> None:
        """Record entries as soon as the log takes them again; they are lost only with the process."""
        self._owed.extend(entries)
        self._owes.set()

    async def pay(self) -> None:
        """Record what is owed, for ever."""
        while True:
            await self._owes.wait()
            self._owes.clear()
            owed, self._owed = self._owed, []
            try:
                await self.commit(owed)
            except PortError as error:
                log.warning("%d entries are owed to the audit log: %s", len(owed), error)
                self.owe(owed)
                await asyncio.sleep(OWED_RETRY_SECONDS)

    async def announced(self, subject_uid: str, beyond: int) -> tuple[int, RecordedEntry] | None:
        """The last entry that announces a credential for a subject, until it is settled.

        Args:
            subject_uid: the subject.
            beyond: the number of the last credential that its status knows; up to it all is settled.
        """
        self._recall()
        subject = self._subjects.get(subject_uid)
        if subject is None or subject.announced is None:
            return None
        told = subject.announced
        if told.issuance <= beyond:
            subject.announced = None
            return None
        return told.index, decode_entry(await self._entry(told))

    def settle(self, subject_uid: str, index: int) -> None:
        """Forget what was announced up to that entry: the subject's status tells what became of it."""
        subject = self._subjects.get(subject_uid)
        if subject is not None and subject.announced is not None and subject.announced.index <= index:
            subject.announced = None

    def retain(self, subject_uids: AbstractSet[str]) -> None:
        """Forget all other subjects: they are gone, and their Secrets with them."""
        self._recall(subject_uids)
        for uid in self._subjects.keys() - subject_uids:
            del self._subjects[uid]

    async def run(self) -> None:
        """Write groups, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await asyncio.sleep(self._pace.take(1))
                count = take([item.encoded for item in self._waiting[:MAX_ENTRIES]])
                batch = [item for item in self._waiting[:count] if not item.done.done()]
                del self._waiting[:count]
                await self._write_or_fail(batch)

    async def compact(self) -> None:
        """Compact what is old enough, for ever: one request at a time, at rest as long as at work."""
        while True:
            began = _tick()
            try:
                worked = await self.compact_next()
            except (PortError, BrokenLogError, CheckpointError, EntryError) as error:
                log.error("the audit log cannot be compacted: %s", error)  # noqa: TRY400
                await asyncio.sleep(COMPACTION_RETRY_SECONDS)
                continue
            await asyncio.sleep(_tick() - began if worked else LOOK_SECONDS)

    async def compact_next(self) -> bool:
        """Compact the next bundle and delete what is compacted; returns whether there was anything to do.

        A crash at any point leaves what a later call finishes: the bundle is committed by one write, and made
        again it is the same; groups are deleted after it, the oldest first, the newest never.

        Raises:
            BrokenLogError: what is stored is not what was committed.
        """
        groups = self._chain.next_bundle(_tick())
        if groups:
            await self._seal(groups)
        spent = self._chain.spent(_tick())
        for standing in spent:
            await self._delete(standing)
        return bool(groups or spent)

    async def _seal(self, groups: Sequence[Standing]) -> None:
        first, edge = self._chain.sealed, self._chain.edge
        bundle = await self._tiles.read(first)
        if bundle is None:
            entries = await self._entries_of(groups, first)
            bundle = await asyncio.to_thread(compact, first, edge, entries, self._signer)
            self._chain.require(bundle)
            await self._tiles.write(bundle)
            self.bundles_written += 1
        if self._chain.sealed == first:  # else this process's writer passed over it meanwhile
            self._chain.seal(bundle)

    async def _entries_of(self, groups: Sequence[Standing], first: int) -> Sequence[bytes]:
        """Read the entries of the bundle from `first` on out of its groups, which are the first in a list."""
        query = {"labelSelector": f"{GROUP}/audit=group", "limit": str(len(groups))}
        path = paths.core(self._namespace, "configmaps")
        listed = (await self._api.call("GET", path, query=query))["items"]
        found = {item["metadata"]["name"]: item for item in listed}
        entries: list[bytes] = []
        for standing in groups:
            item = found.get(standing.name) or await self._api.get(
                paths.core(self._namespace, "configmaps", standing.name)
            )
            group = Group.from_data(standing.name, item.get("data") or {})
            entries += group.entries[max(0, first - group.extends) : first + WIDTH - group.extends]
        if len(entries) != WIDTH:
            raise BrokenLogError(f"the groups from {first} on have {len(entries)} entries of {WIDTH}")
        return entries

    async def _delete(self, standing: Standing) -> None:
        path = paths.core(self._namespace, "configmaps", standing.name)
        try:
            await self._api.delete(path, uid=standing.uid)
        except NotFound:
            log.debug("%s is deleted already", standing.name)
        except Conflict:
            log.error("%s was replaced by another of its name; it is left", standing.name)  # noqa: TRY400
        self._chain.gone(standing)

    def _enqueue(self, entry: Entry) -> _Waiting:
        encoded = encode_entry(entry, self._signer.name)
        item = _Waiting(entry.id, entry.subject_uid, encoded, asyncio.get_running_loop().create_future())
        known = self._index_of(item)
        if known is not None:
            item.done.set_result(known)
        else:
            self._waiting.append(item)
        return item

    def _index_of(self, item: _Waiting) -> int | None:
        self._recall()
        subject = self._subjects.get(item.subject_uid)
        return subject.ids.get(item.id) if subject is not None else None

    async def _announcement_differs(self, entry: Entry, index: int, encoded: bytes) -> bool:
        subject = self._subjects.get(entry.subject_uid)
        told = subject.announced if subject is not None else None
        return told is None or told.index != index or await self._entry(told) != encoded

    async def _entry(self, told: _Announced) -> bytes:
        """Read an announcement out of its bundle, where it is not at hand."""
        if told.encoded is None:
            first = told.index // WIDTH * WIDTH
            try:
                bundle = await self._tiles.read(first)
            except BrokenLogError as error:
                raise Unavailable(str(error)) from error
            if bundle is None:
                raise Unavailable(f"the bundle from {first} on is not there")
            told.encoded = bundle.entries[told.index - first]
        return told.encoded

    async def _write_or_fail(self, batch: list[_Waiting]) -> None:
        try:
            await self._write(batch)
        except (PortError, BrokenLogError, CheckpointError) as error:
            # Whoever waits looks again; nobody holds up withdrawals by waiting here.
            for item in batch:
                if not item.done.done():
                    item.done.set_exception(error)

    async def _write(self, batch: list[_Waiting]) -> None:
        while True:
            if self._in_doubt or _tick() - self._known_at > FRESH_SECONDS:
                await self._catch_up()
            batch = self._answer_known(batch)
            if not batch:
                return
            group, _ = extend(self._chain.frontier, (item.encoded for item in batch), self._signer)
            body = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": group.name, "namespace": self._namespace, "labels": GROUP_LABEL},
                "immutable": True,
                "data": dict(group.data()),
            }
            self._in_doubt, sent_at = True, _tick()
            try:
                created = await self._api.create(paths.core(self._namespace, "configmaps"), body)
            except Conflict:
                log.warning("another writer extended the log at %d; follows it", self.size)
                continue
            standing = Standing(group.extends, group.size, created["metadata"]["uid"], _tick())
            if _tick() - self._known_at >= GRACE_SECONDS and await self._tiles.covers(group.extends):
                log.warning("this writer slept; the log went on at %d without it; follows it", self.size)
                self._chain.stray(standing)
                await self._delete(standing)
                continue
            self._in_doubt, self._known_at = False, sent_at
            self.groups_written += 1
            self._chain.add(group, standing)
            self._remember(group.extends, group.entries)

    def _answer_known(self, batch: list[_Waiting]) -> list[_Waiting]:
        """Answer those whose id is in the log by now; returns the others, each id once."""
        unsaid: dict[str, _Waiting] = {}
        for item in batch:
            known = self._index_of(item)
            if item.done.done():
                continue  # whoever waited gave up
            if known is not None:
                item.done.set_result(known)
            elif item.id in unsaid:
                self._waiting.append(item)
            else:
                unsaid[item.id] = item
        return list(unsaid.values())

    async def _catch_up(self) -> None:
        """Read what was added since: by our own write whose answer was lost, or by another writer."""
        while True:
            asked_at, name = _tick(), group_name(self.size)
            try:
                found = await self._api.get(paths.core(self._namespace, "configmaps", name))
            except NotFound:
                found = None
            # Asked after the group: where there is no bundle yet, no group of that name was deleted before.
            bundle = await self._tiles.read(self.size // WIDTH * WIDTH)
            if bundle is not None:
                await self._pass_over(bundle)
            elif found is not None:
                group = Group.from_data(name, found.get("data") or {})
                self._absorb(group, Standing(group.extends, group.size, found["metadata"]["uid"], _tick()))
            else:
                self._in_doubt, self._known_at = False, asked_at
                return

    async def _pass_over(self, bundle: Compacted) -> None:
        """Go on over a bundle, and the group that has entries of it and of the next."""
        first = self.size
        new = self._chain.pass_over(bundle, self._verifier)
        for entry in self._remember(first, new):
            self._on_read(entry)
        path = paths.core(self._namespace, "configmaps")
        async for item in self._api.pages(path, label_selector=f"{GROUP}/audit=group"):
            if not item["metadata"]["name"].startswith(NAME_PREFIX):
                continue
            group = Group.from_data(item["metadata"]["name"], item.get("data") or {})
            if group.extends > bundle.size:
                return
            if group.size > bundle.size:
                await self._absorb_or_pass(item)
                return

    def _absorb(self, group: Group, standing: Standing) -> None:
        new = self._chain.add(group, standing, self._verifier)
        for entry in self._remember(group.size - len(new), new):
            self._on_read(entry)

    def _remember(self, first: int, entries: Iterable[bytes]) -> list[RecordedEntry]:
        """Take in what later passes ask for; returns the entries."""
        decoded: list[RecordedEntry] = []
        for index, encoded in enumerate(entries, start=first):
            entry = decode_entry(encoded)
            decoded.append(entry)
            self._take_in(index, recollect(entry), encoded)
        return decoded

    def _take_in(self, index: int, row: Recollection, encoded: bytes | None) -> None:
        subject = self._subjects.setdefault(row.subject_uid, _Subject())
        subject.ids[row.id] = index
        if row.issuance is not None and (subject.announced is None or subject.announced.index < index):
            subject.announced = _Announced(index, row.issuance, encoded)

    def _recall(self, subject_uids: AbstractSet[str] | None = None) -> None:
        """Take in what is compacted, once: of these subjects, as soon as they are known, else of all."""
        for first, kept in self._unrecalled:
            rows = unpack(kept) if isinstance(kept, str) else kept
            for index, row in enumerate(rows or (), start=first):
                if subject_uids is None or row.subject_uid in subject_uids:
                    self._take_in(index, row, None)
        self._unrecalled.clear()


@dataclass(frozen=True, slots=True)
class _Read:
    """A group that was listed, and when it was created by the API server's clock."""

    standing: Standing
    created: dt.datetime


def _revocation(row: Recollection) -> RecordedEntry:
    """An entry that is compacted, as far as it says what was revoked."""
    never = dt.datetime.min.replace(tzinfo=dt.UTC)
    return RecordedEntry(row.id, "", "", row.subject_uid, never, {"revoked": row.revoked})


def _tick() -> float:
    """Seconds by the loop's clock, which nobody sets."""
    return asyncio.get_running_loop().time()
