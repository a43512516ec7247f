"""The audit log in ConfigMaps: group commit, read back and checked on start.

While one group is being written, entries wait and become the next one; when nothing is in flight an entry
is written at once. So the cost is per group, and the latency of an idle log is one write.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from pilot_identity.adapters.kubernetes import paths
from pilot_identity.adapters.kubernetes.api import Api, NotFound
from pilot_identity.core.audit.checkpoint import CheckpointError, LogSigner
from pilot_identity.core.audit.entries import Entry, RecordedEntry, decode_entry, encode_entry
from pilot_identity.core.audit.groups import (
    MAX_ENTRIES,
    NAME_PREFIX,
    BrokenLogError,
    Group,
    extend,
    follow,
    group_name,
    take,
)
from pilot_identity.core.audit.merkle import Frontier
from pilot_identity.core.resources.metadata import GROUP
from pilot_identity.ports import AlreadyRecorded, Conflict, PortError

log = logging.getLogger(__name__)

GROUP_LABEL = {f"{GROUP}/audit": "group"}


@dataclass(slots=True)
class _Subject:
    """What the log remembers of one object while the object exists."""

    ids: dict[str, int] = field(default_factory=dict)
    announced: tuple[int, bytes] | None = None


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

    def __init__(self, api: Api, namespace: str, signer: LogSigner) -> None:
        self._api = api
        self._namespace = namespace
        self._signer = signer
        self._frontier = Frontier()
        self._subjects: dict[str, _Subject] = {}
        self._waiting: list[_Waiting] = []
        self._wake = asyncio.Event()
        self._in_doubt = False
        self.groups_written = 0

    @property
    def size(self) -> int:
        """How many entries are committed, as far as this process knows."""
        return self._frontier.size

    async def open(self) -> None:
        """Read the whole log, checking every hash and signature.

        Raises:
            BrokenLogError, CheckpointError: what is stored is no log of ours; nothing may be added to it.
        """
        path = paths.core(self._namespace, "configmaps")
        # Lists come in the order of names, which is the log's; so no more than a page is held at a time.
        async for item in self._api.pages(path, label_selector=f"{GROUP}/audit=group"):
            name = item["metadata"]["name"]
            if name.startswith(NAME_PREFIX):  # the admission policy guards names; anyone may set a label
                self._absorb(Group.from_data(name, item.get("data") or {}))
        log.info("the audit log has %d entries", self.size)

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
        if "credential" in last.data and self._announcement_differs(last, index, waiting[-1].encoded):
            raise AlreadyRecorded(f"{last.id} is entry {index} already")
        return index

    def announced(self, subject_uid: str) -> tuple[int, RecordedEntry] | None:
        """The last entry that announces a credential for a subject, until it is settled."""
        subject = self._subjects.get(subject_uid)
        if subject is None or subject.announced is None:
            return None
        index, encoded = subject.announced
        return index, decode_entry(encoded)

    def settle(self, subject_uid: str, index: int) -> None:
        """Forget what was announced up to that entry: the subject's status tells what became of it."""
        subject = self._subjects.get(subject_uid)
        if subject is not None and subject.announced is not None and subject.announced[0] <= index:
            subject.announced = None

    def retain(self, subject_uids: AbstractSet[str]) -> None:
        """Forget all other subjects: they are gone, and their Secrets with them."""
        for uid in self._subjects.keys() - subject_uids:
            del self._subjects[uid]

    async def run(self) -> None:
        """Write groups, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
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
        subject = self._subjects.get(item.subject_uid)
        return subject.ids.get(item.id) if subject is not None else None

    def _announcement_differs(self, entry: Entry, index: int, encoded: bytes) -> bool:
        subject = self._subjects.get(entry.subject_uid)
        return subject is None or subject.announced != (index, encoded)

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
            if self._in_doubt:
                await self._catch_up()
            batch = self._answer_known(batch)
            if not batch:
                return
            group, after = extend(self._frontier, (item.encoded for item in batch), self._signer)
            body = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": group.name, "namespace": self._namespace, "labels": GROUP_LABEL},
                "immutable": True,
                "data": dict(group.data()),
            }
            self._in_doubt = True
            try:
                await self._api.create(paths.core(self._namespace, "configmaps"), body)
            except Conflict:
                log.warning("another writer extended the log at %d; follows it", self.size)
                continue
            self._in_doubt = False
            self.groups_written += 1
            self._remember(group)
            self._frontier = after

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
            name = group_name(self.size)
            try:
                found = await self._api.get(paths.core(self._namespace, "configmaps", name))
            except NotFound:
                self._in_doubt = False
                return
            self._absorb(Group.from_data(name, found.get("data") or {}))

    def _absorb(self, group: Group) -> None:
        self._frontier = follow(self._frontier, group, self._signer.verifier())
        self._remember(group)

    def _remember(self, group: Group) -> None:
        for offset, encoded in enumerate(group.entries):
            index = group.extends + offset
            entry = decode_entry(encoded)
            subject = self._subjects.setdefault(entry.subject_uid, _Subject())
            subject.ids[entry.id] = index
            if "credential" in entry.data:
                subject.announced = (index, encoded)
