"""The audit log in ConfigMaps: group commit, taken up again on start.

While one group is being written, entries wait and become the next one; when nothing is in flight an entry
is written at once. So the cost is per group, and the latency of an idle log is one write. Under load groups
are paced: they grow instead of becoming more. Behind the head full bundles become tiles
(`audit_compaction`), and old tiles leave for the archive (`audit_archiving`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from pilot_identity.adapters.audit_compaction import Compactor
from pilot_identity.adapters.audit_following import Follower
from pilot_identity.adapters.kubernetes.api import Api
from pilot_identity.adapters.revocations import Budget
from pilot_identity.core.audit.chain import GRACE_SECONDS, Standing
from pilot_identity.core.audit.checkpoint import CheckpointError, LogSigner
from pilot_identity.core.audit.entries import Entry, RecordedEntry, decode_entry, encode_entry
from pilot_identity.core.audit.groups import MAX_ENTRIES, BrokenLogError, extend, take
from pilot_identity.core.audit.growth import Growth
from pilot_identity.core.audit.remembered import Announced
from pilot_identity.core.audit.tiles import ENTRIES, WIDTH, Tile, TileError, decode_bundle
from pilot_identity.ports import AlreadyRecorded, Archive, Conflict, PortError, Unavailable

log = logging.getLogger(__name__)

OWED_RETRY_SECONDS = 5.0
FRESH_SECONDS = GRACE_SECONDS / 2
"""Whoever knew the head so lately may write without looking; a request takes at most 10 s."""
GROUPS_AT_ONCE = 32
GROUPS_PER_SECOND = 35
"""In the long run: 64 writers that wait for each other's groups get 2,240 entries a second into these.

With the bundles that those make, nine a second, that is 44 ConfigMaps a second.
"""


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

    Attributes:
        compaction: works behind the head.
        remembered: which steps are recorded, of objects that exist.
        groups_written: how many this process wrote.
    """

    def __init__(  # noqa: PLR0913 - what a log needs, and whom it tells
        self,
        api: Api,
        namespace: str,
        signer: LogSigner,
        *,
        on_read: Callable[[RecordedEntry], None],
        growth: Growth | None = None,
        archive: Archive | None = None,
    ) -> None:
        """Make the log of a namespace.

        Args:
            api: the client.
            namespace: the operator's.
            signer: signs checkpoints.
            on_read: is given each entry that is read back, which others or this process before recorded; of
                one that is compacted only what it says was revoked.
            growth: is told every leaf that is added, for proofs to witnesses.
            archive: has the oldest entries, where they have left the cluster.
        """
        self._archive = archive
        self._signer = signer
        self._follower = Follower(api, namespace, signer.verifier(), on_read, growth, archive)
        self._chain, self.remembered = self._follower.chain, self._follower.remembered
        self._groups, self._tiles = self._follower.groups, self._follower.tiles
        self.compaction = Compactor(self._chain, self._groups, self._tiles, signer)
        self._known_at = float("-inf")
        self._pace = Budget(GROUPS_AT_ONCE, GROUPS_PER_SECOND)
        self._waiting: list[_Waiting] = []
        self._wake = asyncio.Event()
        self._in_doubt = False
        self._owed: list[Entry] = []
        self._owes = asyncio.Event()
        self.groups_written = 0

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
        self._known_at = _tick()
        await self._follower.open()
        log.info("the audit log has %d entries, %d of them compacted", self.size, self.sealed)

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
        told = self.remembered.announced(subject_uid)
        if told is None:
            return None
        if told.issuance <= beyond:
            self.remembered.settle(subject_uid, told.index)
            return None
        return told.index, decode_entry(await self._entry(told))

    def steps(self, subject_uid: str) -> dict[str, int]:
        """Where each step of a subject stands, of those that this process may be asked to repeat."""
        return self.remembered.steps_of(subject_uid)

    def settle(self, subject_uid: str, index: int) -> None:
        """Forget what was announced up to that entry: the subject's status tells what became of it."""
        self.remembered.settle(subject_uid, index)

    def retain(self, subject_uids: AbstractSet[str]) -> None:
        """Forget all other subjects: they are gone, and their Secrets with them."""
        self.remembered.retain(subject_uids)

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
        return self.remembered.index_of(item.subject_uid, item.id)

    async def _announcement_differs(self, entry: Entry, index: int, encoded: bytes) -> bool:
        told = self.remembered.announced(entry.subject_uid)
        return told is None or told.index != index or await self._entry(told) != encoded

    async def _entry(self, told: Announced) -> bytes:
        """Read an announcement out of its bundle, where it is not at hand."""
        if told.encoded is None:
            first = told.index // WIDTH * WIDTH
            try:
                bundle = await self._tiles.read(first)
                entries = bundle.entries if bundle is not None else await self._from_archive(first)
            except (BrokenLogError, TileError) as error:
                raise Unavailable(str(error)) from error
            told.encoded = entries[told.index - first]
        return told.encoded

    async def _from_archive(self, first: int) -> Sequence[bytes]:
        path = Tile(ENTRIES, first // WIDTH).path
        content = await self._archive.read(path) if self._archive is not None else None
        entries = decode_bundle(content or b"")
        if len(entries) != WIDTH:
            raise Unavailable(f"the bundle from {first} on is neither in the cluster nor in the archive")
        return entries

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
                self._known_at = await self._follower.catch_up()
                self._in_doubt = False
            batch = self._answer_known(batch)
            if not batch:
                return
            group, _ = extend(self._chain.frontier, (item.encoded for item in batch), self._signer)
            self._in_doubt, sent_at = True, _tick()
            try:
                uid = await self._groups.create(group)
            except Conflict:
                log.warning("another writer extended the log at %d; follows it", self.size)
                continue
            standing = Standing(group.extends, group.size, uid, _tick())
            if _tick() - self._known_at >= GRACE_SECONDS and await self._follower.went_on(group.extends):
                log.warning("this writer slept; the log went on at %d without it; follows it", self.size)
                self._chain.stray(standing)
                await self._groups.delete(standing)
                self._chain.gone(standing)
                continue
            self._in_doubt, self._known_at = False, sent_at
            self.groups_written += 1
            self._chain.add(group, standing)
            self._follower.remember(group.extends, group.entries)
            for index, item in enumerate(batch, start=group.extends):
                if not item.done.done():
                    item.done.set_result(index)
            return

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


def _tick() -> float:
    """Seconds by the loop's clock, which nobody sets."""
    return asyncio.get_running_loop().time()
