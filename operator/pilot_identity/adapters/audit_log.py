"""The audit log in ConfigMaps: group commit, taken up again on start.

While one group is being written, entries wait and become the next one; when nothing is in flight an entry
is written at once. So the cost is per group, and the latency of an idle log is one write. Under load groups
are paced: they grow instead of becoming more. Behind the head full bundles become tiles
(`audit_compaction`), and old tiles leave for the archive (`audit_archiving`).

Nobody is told an index unless its group stands in the one chain (`core.audit.chain`). Where the log has a
hole no entry is taken, so nothing is issued, until it is whole again; what ends is withdrawn all the same.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal

from pilot_identity.adapters.audit_compaction import Compactor
from pilot_identity.adapters.audit_following import Follower
from pilot_identity.adapters.audit_groups import StoredGroup
from pilot_identity.adapters.blockage import Blockage
from pilot_identity.adapters.kubernetes.api import Api
from pilot_identity.adapters.revocations import Budget
from pilot_identity.clocks import Instant
from pilot_identity.core.audit.chain import FRESH_SECONDS, Standing
from pilot_identity.core.audit.checkpoint import CheckpointError, LogSigner
from pilot_identity.core.audit.entries import Entry, EntryType, RecordedEntry, decode_entry, encode_entry
from pilot_identity.core.audit.groups import MAX_ENTRIES, BrokenLogError, extend, group_name, take
from pilot_identity.core.audit.growth import Growth
from pilot_identity.core.audit.remembered import Announced
from pilot_identity.core.audit.shelf import proof_files, proven
from pilot_identity.core.audit.tiles import WIDTH
from pilot_identity.core.decisions.plan import Notice, Owner
from pilot_identity.core.resources.conditions import Reason, cut
from pilot_identity.core.resources.metadata import Key
from pilot_identity.ports import AlreadyRecorded, Archive, Conflict, PortError, Recorder, Unavailable

log = logging.getLogger(__name__)

OWED_RETRY_SECONDS = 5.0
LOOK_SECONDS = 5.0
"""How often it looks whether the newest group is still stored, at work or idle: one GET without contents."""
INSPECT_SECONDS = 60.0
"""How often it looks after all groups that stand: one list without contents."""
GROUPS_AT_ONCE = 32
GROUPS_PER_SECOND = 35
"""In the long run: 64 writers that wait for each other's groups get 2,240 entries a second into these.

With the bundles that those make, nine a second, that is 44 ConfigMaps a second.
"""


class Halted(Unavailable, BrokenLogError):  # noqa: N818 - as in `ports`
    """The stored log is not what was committed: nothing is added to it until it is whole again."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """An entry on its way, and whom to tell its index; `was_known` where the log had its id before."""

    id: str
    subject_uid: str
    encoded: bytes
    done: asyncio.Future[int]
    was_known: bool = False


class ConfigMapLog:
    """`ports.AuditLog` in the operator's namespace.

    A group's ConfigMap is named by the size that it extends, so that of two writers one fails; the one that
    fails reads what the other wrote, and goes on from there with what is still unsaid.

    Attributes:
        compaction: works behind the head.
        follower: knows what is stored.
        blockage: why the log takes no entries, where it is not what was committed.
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
        recorder: Recorder | None = None,
        now: Callable[[], Instant] = Instant.now,
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
            recorder: tells people where the log takes no entries.
            now: tells how much time passed.
        """
        self._archive = archive
        self._signer = signer
        self.follower = Follower(api, namespace, signer.verifier(), on_read, growth, archive, now=now)
        self._chain, self.remembered = self.follower.chain, self.follower.remembered
        self._groups, self._tiles = self.follower.groups, self.follower.tiles
        self.compaction = Compactor(
            self._chain, self._groups, self._tiles, signer, deletes_per_second=2 * GROUPS_PER_SECOND
        )
        self.blockage = Blockage("the audit log takes no entries")
        self._namespace = namespace
        self._recorder = recorder
        self._now = now
        self._known: Instant | None = None
        self._look_at = self._inspect_at = float("-inf")
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
        self._known = self._now()
        await self.follower.open()
        self._look_at, self._inspect_at = _tick() + LOOK_SECONDS, _tick() + INSPECT_SECONDS
        log.info("the audit log has %d entries, %d of them compacted", self.size, self.sealed)

    async def commit(self, entries: Sequence[Entry]) -> int:
        """Commit entries in order, each id once; returns the index of the last.

        Raises:
            AlreadyRecorded: the last entry's id is in the log already with other content, and it announces a
                credential or tells a grant's end: the status must say what that entry says.
            Unavailable: the write's outcome is not known, or it did not happen.
            Halted: it did not happen, because the log has a hole.
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
        if await self._differs(last, index, waiting[-1]):
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
            except AlreadyRecorded as error:
                log.info("what was owed is in the log: %s", error)
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

    async def recorded(self, subject_uid: str, step: str) -> tuple[int, RecordedEntry] | None:
        """The entry of a step of a subject that exists, if the log has it: its id is `<uid>/<step>`."""
        index = self.remembered.index_of(subject_uid, f"{subject_uid}/{step}")
        return None if index is None else (index, decode_entry(await self._stored(index)))

    def has_room(self, entry: Entry) -> bool:
        """Whether the log can know this entry when it comes again."""
        return self.remembered.has_room(entry.subject_uid, entry.id)

    def steps(self, subject_uid: str) -> dict[str, int]:
        """Where each step of a subject stands, of those that this process may be asked to repeat."""
        return self.remembered.steps_of(subject_uid)

    def settle(self, subject_uid: str, index: int) -> None:
        """Forget what was announced up to that entry: the subject's status tells what became of it."""
        self.remembered.settle(subject_uid, index)

    def retain(self, subject_uids: AbstractSet[str]) -> None:
        """Forget all other subjects: they are gone, and their Secrets with them."""
        doubtful = {stored.uid for stored in self.follower.doubtful.values()}
        self.remembered.retain(subject_uids | doubtful)

    async def run(self) -> None:
        """Write groups, and look whether what was written is still stored, for ever."""
        while True:
            try:
                async with asyncio.timeout_at(self._look_at):
                    await self._wake.wait()
            except TimeoutError:
                await self._look()
            self._wake.clear()
            while self._waiting:
                if _tick() >= self._look_at:
                    await self._look()
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
            item.was_known = True
            item.done.set_result(known)
        else:
            self._waiting.append(item)
        return item

    def _index_of(self, item: _Waiting) -> int | None:
        return self.remembered.index_of(item.subject_uid, item.id)

    async def _differs(self, entry: Entry, index: int, item: _Waiting) -> bool:
        """Whether a status would say what the entry in the log does not."""
        if "credential" in entry.data:
            return await self._announcement_differs(entry, index, item.encoded)
        # An answer was lost, and what was decided then need not be what is decided now.
        is_end_again = entry.type == EntryType.GRANT_CLOSED and item.was_known
        return is_end_again and await self._stored(index) != item.encoded

    async def _announcement_differs(self, entry: Entry, index: int, encoded: bytes) -> bool:
        told = self.remembered.announced(entry.subject_uid)
        return told is None or told.index != index or await self._entry(told) != encoded

    async def _entry(self, told: Announced) -> bytes:
        """Read an announcement out of its bundle, where it is not at hand."""
        if told.encoded is None:
            told.encoded = await self._bundled(told.index)
        return told.encoded

    async def _stored(self, index: int) -> bytes:
        """Read an entry out of its group, or its bundle where it is compacted."""
        try:
            async for stored in self._groups.all():
                group = stored.group
                if group.extends <= index < group.size:
                    return group.entries[index - group.extends]
        except BrokenLogError as error:
            raise Unavailable(f"entry {index} cannot be read: {error}") from error
        return await self._bundled(index)

    async def _bundled(self, index: int) -> bytes:
        first = index // WIDTH * WIDTH
        try:
            bundle = await self._tiles.read(first)
            entries = bundle.entries if bundle is not None else await self._from_archive(first)
        except (BrokenLogError, CheckpointError) as error:
            raise Unavailable(f"entry {index} cannot be read: {error}") from error
        return entries[index - first]

    async def _from_archive(self, first: int) -> Sequence[bytes]:
        """Read a bundle that left, and believe of it what hashes to the edge that the log's key signed.

        Raises:
            BrokenLogError: the archive has something else.
        """
        record = await self.follower.archived()
        if self._archive is None or record is None or record.size <= first:
            raise Unavailable(f"the bundle from {first} on is neither in the cluster nor in the archive")
        read = {path: await self._archive.read(path) for path in proof_files(first, record.size)}
        return await asyncio.to_thread(proven, first, record.size, record.edge, read.get)

    async def _write_or_fail(self, batch: list[_Waiting]) -> None:
        try:
            if self.blockage.is_there:
                raise Halted(self.blockage.cause)
            await self._write(batch)
        except PortError as error:
            _fail(batch, error)
        except (BrokenLogError, CheckpointError) as error:
            self._halt(error)
            _fail(batch, Halted(str(error)))

    async def _look(self) -> None:
        """Look whether the log is still stored as it was committed; halt where it is not, else go on."""
        try:
            if self._in_doubt or self.blockage.is_there:
                await self._catch_up()
            else:
                await self.follower.require_head()
            if self.blockage.is_there or _tick() >= self._inspect_at:
                await self.follower.inspect()
                self._inspect_at = _tick() + INSPECT_SECONDS
            self._go_on()
        except PortError as error:
            log.debug("cannot look after the audit log: %s", error)
        except (BrokenLogError, CheckpointError) as error:
            self._halt(error)
        self._look_at = _tick() + LOOK_SECONDS

    def _halt(self, error: Exception) -> None:
        is_new = str(error) != self.blockage.cause
        self.blockage.note(error)
        if is_new:
            note = "Nothing is issued; what ends is withdrawn all the same. See docs/how-to/log-hole.md."
            self._tell("Warning", Reason.LOG_HALTED, f"{note} {error}")

    def _go_on(self) -> None:
        if self.blockage.is_there:
            self._tell(
                "Normal", Reason.LOG_GOES_ON, "The log is stored as it was committed; entries are taken."
            )
        self.blockage.clear()

    def _tell(self, kind: Literal["Normal", "Warning"], reason: Reason, note: str) -> None:
        """Tell people by an Event on the newest group, stored or not."""
        if self._recorder is not None:
            head = self._chain.head
            name, uid = (head.name, head.uid) if head is not None else (group_name(self.size), "")
            who = Owner(Key("ConfigMap", self._namespace, name), uid)
            self._recorder.tell(Notice(who, kind, reason, "Verify", cut(note)), -1)

    async def _write(self, batch: list[_Waiting]) -> None:
        while True:
            if self._in_doubt:
                await self._catch_up()
            elif self._age() >= FRESH_SECONDS:
                await self.follower.require_head()  # while it stands, the log was not compacted past it
            batch = self._answer_known(batch)
            if not batch:
                return
            group, _ = extend(self._chain.frontier, (item.encoded for item in batch), self._signer)
            self._in_doubt, sent_at = True, self._now()
            try:
                created = await self._groups.create(group)
            except Conflict:
                log.warning("another writer extended the log at %d; follows it", self.size)
                continue
            standing = created.standing(_tick())
            if not await self._is_next(standing):
                log.warning("this writer slept; the log went on at %d without it; follows it", self.size)
                await self._follow_instead(created)
                continue
            self._in_doubt, self._known = False, sent_at
            self.groups_written += 1
            self._chain.add(group, standing)
            self.follower.remember(group.extends, group.entries)
            for index, item in enumerate(batch, start=group.extends):
                if not item.done.done():
                    item.done.set_result(index)
            return

    async def _catch_up(self) -> None:
        self._known = await self.follower.catch_up()
        self._in_doubt = False

    def _age(self) -> float:
        """How old what this process knows of the head is, in seconds, by whichever clock went furthest."""
        return self._known.until(self._now()) if self._known is not None else math.inf

    async def _is_next(self, standing: Standing) -> bool:
        """Whether a group that was just created is the log's next: if in doubt, by what is stored.

        In doubt is what the API server made long after the head, by its own clock, which goes on while this
        machine is paused; and what took long, by this machine's clocks, which need no other's to be right.

        Raises:
            BrokenLogError: the head is gone; the group, which nobody was told of, is taken back.
        """
        created = standing.created
        if created is not None and self._chain.is_close_behind(created) and self._age() < FRESH_SECONDS:
            return True
        try:
            return await self.follower.is_next(standing)
        except BrokenLogError:
            await self._take_back(standing)
            raise

    async def _follow_instead(self, created: StoredGroup) -> None:
        """Follow the log, and delete a group that came too late; not one that others compacted meanwhile."""
        standing = created.standing(_tick())
        self.follower.doubtful[standing.extends] = created  # until it is clear which it is
        await self._catch_up()
        if self._chain.has(standing):
            # It lies over a bundle's edge: others went on from it while this process waited for the answer.
            del self.follower.doubtful[standing.extends]
        elif await self.follower.is_foreign(created.group):
            await self._take_back(standing)
            del self.follower.doubtful[standing.extends]

    async def _take_back(self, standing: Standing) -> None:
        self._chain.stray(standing)
        await self._groups.delete(standing)
        self._chain.gone(standing)

    def _answer_known(self, batch: list[_Waiting]) -> list[_Waiting]:
        """Answer those whose id is in the log by now; returns the others, each id once."""
        unsaid: dict[str, _Waiting] = {}
        for item in batch:
            known = self._index_of(item)
            if item.done.done():
                continue  # whoever waited gave up
            if known is not None:
                item.was_known = True
                item.done.set_result(known)
            elif item.id in unsaid:
                self._waiting.append(item)
            else:
                unsaid[item.id] = item
        return list(unsaid.values())


def _fail(batch: Sequence[_Waiting], error: PortError) -> None:
    """Tell those who wait: they look again; nobody holds up withdrawals by waiting here."""
    for item in batch:
        if not item.done.done():
            item.done.set_exception(error)


def _tick() -> float:
    """Seconds by the loop's clock, which nobody sets."""
    return asyncio.get_running_loop().time()
