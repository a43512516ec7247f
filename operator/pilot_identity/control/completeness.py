"""The operator's own look at the completeness of its record: at start, and then on a slow cadence.

A round lists the ServiceAccounts and RoleBindings, takes grants and pilots from the store, and holds them
against the log. Of the log it reads what it does not know yet: entries that a status or the log's own memory
names, of at most `BUNDLES_A_ROUND` bundles, those of living grants first. So a round costs the two lists and
the entries that came since the last one; after a start all is read within some rounds, and until then nothing
is said of what is not read. What is kept is as much as there are objects.

What is found is looked at again before it is told. It is told on the grant or pilot that it concerns, by a
condition that is written only when it changes; a stranger that concerns nobody is told by an Event on itself;
and all of it by metrics. Nothing is decided on it: access is cut and proven as before.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from pilot_identity.control.telling import Teller
from pilot_identity.core.audit.completeness import Disagreement, Discrepancy, reconcile
from pilot_identity.core.audit.live import Listed
from pilot_identity.core.audit.tiles import WIDTH
from pilot_identity.core.audit.told import Record, needed
from pilot_identity.core.decisions.kubernetes_access import account_name
from pilot_identity.core.decisions.mismatch import tell_mismatch
from pilot_identity.core.decisions.plan import Notice, Owner
from pilot_identity.core.resources import Phase, PilotIdentity, TaskGrant
from pilot_identity.core.resources.conditions import ConditionType, Reason, cut, find
from pilot_identity.core.resources.metadata import Key
from pilot_identity.ports import (
    Clock,
    PortError,
    Recorded,
    StoredEntries,
    Surroundings,
)

log = logging.getLogger(__name__)

EVERY_SECONDS = 600.0
JITTER = 0.1
"""Of the time between two rounds, either way."""
FIRST_SECONDS = 10.0
"""After a start; what the last process left is settled first, and nothing of this is in its way."""
CONFIRM_SECONDS = 3.0
"""Between what is found and the look that confirms it."""
AGAIN_SECONDS = 5.0
"""After what did not go through."""
BUNDLES_A_ROUND = 64
"""Each is one request and some milliseconds: 16,384 entries, so 100,000 are read within seven rounds."""

Concerned = TaskGrant | PilotIdentity
View = TypeVar("View", TaskGrant, PilotIdentity)


@dataclass(slots=True)
class Figures:
    """What came of the rounds.

    Attributes:
        rounds: how many came to their end.
        checked_at: when the last did, in seconds since the epoch; 0 before the first.
        unread: grants and pilots of which not every entry is read, so that nothing is said of them.
        found: what stands, of each kind.
    """

    rounds: int = 0
    checked_at: float = 0.0
    unread: int = 0
    found: Mapping[str, float] = field(default_factory=lambda: _counted(()))


def _counted(found: Iterable[Discrepancy]) -> Mapping[str, float]:
    """Each kind is there from the start, so that an alert has something to compare with."""
    counts = Counter(str(one.kind) for one in found)
    return {str(kind): float(counts[kind]) for kind in Disagreement}


@dataclass(slots=True)
class Completeness:
    """Makes rounds while this replica leads.

    Attributes:
        namespaces: those that are watched; none is all.
        every: seconds between two rounds.
    """

    teller: Teller
    surroundings: Surroundings
    log: Recorded
    entries: StoredEntries
    clock: Clock
    namespaces: tuple[str, ...] = ()
    every: float = EVERY_SECONDS
    figures: Figures = field(default_factory=Figures)
    found: tuple[Discrepancy, ...] = ()
    _record: Record = field(default_factory=lambda: Record(of_secrets=False))
    _taken: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _failed: Counter[str] = field(default_factory=Counter)

    async def run(self) -> None:
        """Make rounds for ever."""
        await asyncio.sleep(min(FIRST_SECONDS, self.every))
        while True:
            try:
                is_told = await self.check()
            except PortError as error:
                log.warning("the record could not be held against the cluster: %s", error)
                is_told = False
            except Exception:
                # A defect here must not stop those who withdraw access.
                log.exception("a round failed")
                is_told = True
            spread = 1 + JITTER * (secrets.randbelow(2001) / 1000 - 1)
            await asyncio.sleep(self.every * spread if is_told else min(AGAIN_SECONDS, self.every))

    async def check(self) -> bool:
        """Make one round; returns whether everything could be told.

        Raises:
            PortError: something could not be read; what was found before still stands.
        """
        found = await self._look()
        new = set(found) - set(self.found)
        if new:
            await asyncio.sleep(min(CONFIRM_SECONDS, self.every))
            found = tuple(one for one in await self._look() if one in new or one in self.found)
        is_told = await self._tell(found)
        self.figures.rounds += 1
        self.figures.checked_at = self.clock().timestamp()
        return is_told

    async def _look(self) -> tuple[Discrepancy, ...]:
        """One look; the log after the objects, so that what was announced before they were made is known."""
        accounts = await self.surroundings.accounts()
        bindings = await self.surroundings.bindings()
        grants = {one.metadata.uid: one for one in self._all(TaskGrant)}
        pilots = {one.metadata.uid: one for one in self._all(PilotIdentity)}
        await self._read_on([*grants.values(), *pilots.values()])
        listed = Listed(
            accounts=tuple(accounts),
            bindings=tuple(bindings),
            grants=grants,
            pilots=pilots,
            namespaces=frozenset(self.namespaces),
        )
        # Some hundred milliseconds with ten thousand grants, in which others are to be ended.
        found = await asyncio.to_thread(reconcile, self._record, listed, self.clock())
        # Of whom not everything is read again nothing is known: what stood stands.
        unknown = self._record.pending
        return (*found, *(one for one in self.found if one.owner_uid in unknown))

    def _all(self, view: type[View]) -> Iterable[View]:
        for key in self.teller.store.keys(view.__name__):
            one = self.teller.store.get(key)
            if isinstance(one, view):
                yield one

    async def _read_on(self, subjects: Sequence[Concerned]) -> None:
        """Read what is not known yet of these, as far as one round may, and forget all others."""
        wanted = {one.metadata.uid: self._entries_of(one) for one in subjects}
        self._forget(self._taken.keys() - wanted.keys())
        # What a status named falsely, or what is older than what was taken: from the beginning, in order.
        self._forget([uid for uid, taken in self._taken.items() if _is_older(wanted[uid], taken)])
        missing = {
            uid: new
            for uid, indices in wanted.items()
            if (new := indices.difference(self._taken.get(uid, ())))
        }
        chosen = self._choose([one for one in subjects if one.metadata.uid in missing], missing)
        read = await self.entries.read({index for uid in chosen for index in missing[uid]})
        for uid in chosen:
            if not missing[uid] <= read.keys():
                self._failed[uid] += 1
                continue
            for index in sorted(missing.pop(uid)):
                # A status may name what is another's: then its subject is told nothing by it.
                if read[index].subject_uid == uid:
                    self._record.take(index, read[index])
            self._taken[uid] = tuple(sorted(wanted[uid]))
            del self._failed[uid]
        unknown = [one for one in subjects if one.metadata.uid in missing]
        for one in subjects:
            if one.status.credential is not None:
                self._record.confirm(one.metadata.uid, one.status.credential.id)
        self._record.pending = frozenset(missing)
        self._record.pending_accounts = frozenset(
            account_name(one) for one in unknown if isinstance(one, TaskGrant)
        )
        self.figures.unread = len(unknown)

    def _choose(self, subjects: Sequence[Concerned], missing: Mapping[str, frozenset[int]]) -> Sequence[str]:
        """Whose entries are read in this round: whose could be read before those whose could not."""

        def rank(one: Concerned) -> tuple[int, bool]:
            return self._failed[one.metadata.uid], not _is_alive(one)

        bundles: set[int] = set()
        chosen: list[str] = []
        for one in sorted(subjects, key=rank):
            of_it = {index // WIDTH for index in missing[one.metadata.uid]}
            if chosen and len(bundles | of_it) > BUNDLES_A_ROUND:
                break
            bundles |= of_it
            chosen.append(one.metadata.uid)
        return chosen

    def _entries_of(self, one: Concerned) -> frozenset[int]:
        """The entries that say what is out of a subject, by the log's memory and by its status.

        What the log does not have yet is no entry: a status that names one is contradicted by that.
        """
        status = one.status
        named = {status.credential.audit_index} if status.credential is not None else set[int]()
        if isinstance(one, TaskGrant) and one.status.decision is not None:
            named.add(one.status.decision.audit_index)
        return needed(self.log.steps(one.metadata.uid)) | {
            index for index in named if 0 <= index < self.log.size
        }

    def _forget(self, uids: Iterable[str]) -> None:
        gone = list(uids)
        self._record.forget(gone)
        for uid in gone:
            self._taken.pop(uid, None)
            del self._failed[uid]

    async def _tell(self, found: tuple[Discrepancy, ...]) -> bool:
        """Tell what changed; returns whether every status could be written."""
        known = set(self.found)
        for one in found:
            if one not in known:
                log.error("not as recorded: %s: %s: %s", one.kind, one.key, one.message)
                if one.owner is None:
                    note = f"{one.kind}: {one.key} {one.message}"
                    who = Owner(one.key, one.uid)
                    self.teller.recorder.tell(
                        Notice(who, "Warning", Reason.NOT_AS_RECORDED, "Reconcile", cut(note)), one.index
                    )
        for one in known.difference(found):
            log.info("as recorded again: %s: %s", one.kind, one.key)
        self.found = found
        self.figures.found = _counted(found)
        messages: dict[tuple[Key, str], list[str]] = {}
        for one in found:
            if one.owner is not None:
                messages.setdefault((one.owner, one.owner_uid), []).append(_message(one))
        is_told = True
        subjects: list[Concerned] = [*self._all(TaskGrant), *self._all(PilotIdentity)]
        for subject in subjects:
            said = messages.get((subject.key, subject.metadata.uid), [])
            if said or find(subject.status.conditions, ConditionType.RECORD_MISMATCH) is not None:
                is_told &= await self._write(subject, said)
        return is_told

    async def _write(self, subject: Concerned, messages: Sequence[str]) -> bool:
        telling = tell_mismatch(subject, messages, self.clock())
        return telling is None or await self.teller.tell(subject, telling)


def _is_older(wanted: frozenset[int], taken: tuple[int, ...]) -> bool:
    """Whether something is to be read that comes before what was taken."""
    missing = wanted.difference(taken)
    return bool(missing) and bool(taken) and min(missing) < taken[-1]


def _is_alive(one: Concerned) -> bool:
    return isinstance(one, PilotIdentity) or one.status.phase in {Phase.ACTIVE, Phase.CLOSING}


def _message(one: Discrepancy) -> str:
    """One disagreement in a condition's message."""
    at = f" (entry {one.index})" if one.index >= 0 else ""
    return f"{one.kind}: {one.key} {one.message}{at}"
