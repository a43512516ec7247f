"""Strays: groups that are stored and are no part of the chain, removed after the log says so.

One comes from a write that an API server carried out long after its writer gave up, or from a writer that
ended between its write and its look at the log. Nobody was told that it counts, and what it was to record its
writer recorded again. But to readers the log is forked as long as it stands, and only the operator may delete
it. So it is removed: only where bundles have its place, with other entries, under a head that the log's key
signed; only after an entry tells what it held; and only as the object that was looked at. What no bundle
contradicts is left to people.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import logging

from pilot_identity.adapters.audit_groups import StoredGroup
from pilot_identity.adapters.audit_log import ConfigMapLog
from pilot_identity.adapters.blockage import Blockage
from pilot_identity.core.audit.chain import Standing
from pilot_identity.core.audit.checkpoint import CheckpointError
from pilot_identity.core.audit.entries import Entry, EntryError, EntryType, decode_entry, evidence
from pilot_identity.core.audit.groups import BrokenLogError
from pilot_identity.core.decisions.plan import Notice, Owner
from pilot_identity.core.resources.conditions import Reason
from pilot_identity.core.resources.metadata import Key
from pilot_identity.core.resources.timestamps import format_timestamp
from pilot_identity.ports import Clock, PortError, Recorder

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0


class Strays:
    """Removes strays while this replica leads.

    Attributes:
        removed: how many this process removed.
    """

    def __init__(self, audit_log: ConfigMapLog, namespace: str, recorder: Recorder, clock: Clock) -> None:
        self._log = audit_log
        self._follower = audit_log.follower
        self._namespace = namespace
        self._recorder = recorder
        self._clock = clock
        self._blockage = Blockage("a group that was not found in the audit log stays for now")
        self.removed = 0

    def __len__(self) -> int:
        """How many groups stand that this process did not find in the chain."""
        return len(self._follower.doubtful)

    async def run(self) -> None:
        """Remove them as they are found, for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for stored in tuple(self._follower.doubtful.values()):
                try:
                    await self.settle(stored)
                except (PortError, BrokenLogError, CheckpointError) as error:
                    self._blockage.note(error)
                else:
                    self._blockage.clear()

    async def settle(self, stored: StoredGroup) -> None:
        """Find out what a group is that was not found in the chain, and remove it if it is foreign.

        Raises:
            PortError: something could not be read, recorded or deleted; nothing is lost by trying again.
            BrokenLogError, CheckpointError: the bundle that has its place is not what was signed.
        """
        group = stored.group
        if await self._follower.groups.uid(group.extends) != stored.uid:
            self._forget(stored)
            return
        is_foreign = await self._follower.is_foreign(group)
        if is_foreign:
            index = await self._log.commit([removal(stored, self._namespace, self._clock())])
            standing = Standing(group.extends, group.size, stored.uid, since=0.0)
            await self._follower.groups.delete(standing)
            self._tell(stored, index)
            self.removed += 1
            self._forget(stored)
        elif is_foreign is False and group.size <= self._follower.chain.sealed:
            # Another writer compacted it and did not come to delete it: compaction does.
            self._follower.leave_to_compaction(stored)
            self._forget(stored)

    def _forget(self, stored: StoredGroup) -> None:
        self._follower.doubtful.pop(stored.group.extends, None)

    def _tell(self, stored: StoredGroup, index: int) -> None:
        name = stored.group.name
        log.error("%s was no part of the log; it is removed, entry %d tells what it held", name, index)
        who = Owner(Key("ConfigMap", self._namespace, name), stored.uid)
        note = "It is no part of the audit log: bundles have its place, and other entries. It is removed."
        self._recorder.tell(Notice(who, "Warning", Reason.STRAY_REMOVED, "Verify", note), index)


def removal(stored: StoredGroup, namespace: str, now: dt.datetime) -> Entry:
    """The entry that is recorded before a stray goes: its bytes by their digest, and whom it was about."""
    group = stored.group
    data = group.data()
    held = [_held(encoded) for encoded in group.entries]
    return Entry(
        id=f"{stored.uid}/removed",
        type=EntryType.LOG_STRAY_REMOVED,
        subject=f"ConfigMap {namespace}/{group.name}",
        subject_uid=stored.uid,
        time=now,
        data={
            "created": format_timestamp(stored.created),
            "extends": group.extends,
            "entries": len(group.entries),
            "sha256": hashlib.sha256(data["entries"].encode()).hexdigest(),
            "checkpoint": evidence(group.note),
            "held": evidence(held),
        },
    )


def _held(encoded: bytes) -> dict[str, str]:
    try:
        entry = decode_entry(encoded)
    except EntryError:
        return {"sha256": hashlib.sha256(encoded).hexdigest()}
    return {"id": entry.id, "type": entry.type, "subject": entry.subject}
