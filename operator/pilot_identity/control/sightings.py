"""Sightings: what grants were used for, gathered in memory and told in bounded batches.

The API server tells of every request; the log and the statuses are for people, and an API write needs a
reason. So use is summed for each grant: told at once when it is first used, then once a minute while it goes
on, and once when the grant ends. However many grants are busy, no more than `BATCH` are told in `PACE`
seconds; the others are summed for longer, and nothing is lost by it.

A process that is killed takes up to a minute of sums with it, never a first use that was told. Each entry
names the process (`receiver`) and since when it listens, so that an auditor sees where one follows another.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import heapq
import itertools
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec

from pilot_identity.control.pilot_use import PilotUse
from pilot_identity.control.store import Store
from pilot_identity.core.audit.access import Account, Sighting
from pilot_identity.core.audit.access_window import MAX_ROWS, AccessWindow
from pilot_identity.core.audit.entries import Entry, EntryType
from pilot_identity.core.audit.groups import MAX_ENTRIES
from pilot_identity.core.decisions.delegation import told_chain
from pilot_identity.core.decisions.kubernetes_access import account_name
from pilot_identity.core.decisions.plan import Owner
from pilot_identity.core.decisions.used import tell_use
from pilot_identity.core.resources import Resource, TaskGrant
from pilot_identity.core.resources.metadata import Key
from pilot_identity.core.resources.parsing import encode
from pilot_identity.core.resources.task_grant import Phase, Usage, Use
from pilot_identity.core.resources.timestamps import format_timestamp
from pilot_identity.ports import AuditLog, Clock, Cluster, Conflict, PortError, Recorder

log = logging.getLogger(__name__)

EVERY = dt.timedelta(minutes=1)
"""At least this long between two entries of one grant, but for its end."""
AGAIN = dt.timedelta(seconds=5)
"""After what did not go through."""
BATCH = 32
"""Grants told together: one group of the log, and as many writes of a status."""
PACE = 2.0
"""Seconds between two batches, so that use costs at most 16 writes of a grant's status a second."""
WRITERS = 4
"""Writes of a status side by side."""
MAX_BOOKS = 20_000
"""Subjects with something to tell; beyond it the API server is asked to come back."""
CROWD = 2_000
"""Subjects beyond which each is told with fewer rows: 5 KB at most for each, not 40 KB."""
CROWDED_ROWS = 4
MAX_MARKS = 50_000
"""Requests remembered, to know one that is told again."""
MAX_GONE = 5_000
"""Grants remembered after their objects are gone, because the API server tells up to a minute late."""
MAX_TOKENS = 8
"""Tokens of a grant that are known to be its own; each renewal before half of its life makes another."""
LONGEST_WAIT = 30.0
"""Seconds; the clock can be set while the loop's clock runs on."""


class TooMuchError(Exception):
    """There is no room to remember more; it is to be told again later."""


@dataclass(slots=True)
class _Sum:
    """Use that a status does not tell yet."""

    first: dt.datetime | None = None
    last: dt.datetime | None = None
    requests: int = 0
    refused: int = 0
    activities: int = 0

    @property
    def is_empty(self) -> bool:
        return not (self.requests or self.activities)

    def add(self, other: _Sum) -> None:
        moments = [moment for moment in (self.first, other.first) if moment is not None]
        self.first = min(moments, default=None)
        moments = [moment for moment in (self.last, other.last) if moment is not None]
        self.last = max(moments, default=None)
        self.requests += other.requests
        self.refused += other.refused
        self.activities += other.activities

    def use(self, before: Use) -> dict[str, Any]:
        """The fields of a `Use` with this added."""
        moments = [moment for moment in (before.last_used, self.last) if moment is not None]
        return {
            "last_used": max(moments, default=None),
            "requests": before.requests + self.requests,
            "refused": before.refused + self.refused,
            "activities": before.activities + self.activities,
        }


@dataclass(slots=True)
class _Book:
    """What is to be told of one subject: a grant, or an account of no grant that is known.

    Attributes:
        window: requests that no entry tells yet.
        sealed: the entry that is on its way, the same at every try, and the use that it tells.
        own, chained: what the status does not tell yet.
    """

    subject: str
    uid: str
    grant: TaskGrant | None
    window: AccessWindow = field(default_factory=AccessWindow)
    sealed: tuple[Entry, _Sum] | None = None
    own: _Sum = field(default_factory=_Sum)
    chained: _Sum = field(default_factory=_Sum)
    due_at: dt.datetime | None = None
    is_closed: bool = False

    @property
    def is_recorded(self) -> bool:
        """Whether the log has all of it."""
        return self.sealed is None and self.window.is_empty

    @property
    def is_shown(self) -> bool:
        """Whether the status tells what the log has."""
        return self.own.is_empty and self.chained.is_empty

    @property
    def is_empty(self) -> bool:
        return self.is_recorded and self.is_shown


@dataclass(slots=True)
class _Known:
    """A grant by its account, with the ids of the tokens that were seen in its status."""

    grant: TaskGrant
    credential_ids: OrderedDict[str, None] = field(default_factory=OrderedDict)


@dataclass(slots=True)
class Figures:
    """What was taken so far."""

    requests: int = 0
    repeated: int = 0
    unmatched: int = 0
    activities: int = 0
    unknown_tokens: int = 0
    allowed_late: int = 0
    impersonated: int = 0


class Sightings:
    """Sums up use and tells it.

    Args:
        receiver: names this process in entries.
        mark: told which objects must be looked at, because a status was written.
        recorder: tells people what must not be.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - each is a part that it speaks to
        self,
        store: Store,
        cluster: Cluster,
        audit_log: AuditLog,
        clock: Clock,
        receiver: str,
        mark: Callable[[Iterable[Key]], None],
        recorder: Recorder,
    ) -> None:
        self._store = store
        self._cluster = cluster
        self._pilots = PilotUse(store, cluster)
        self._log = audit_log
        self._clock = clock
        self._receiver = receiver
        self._since = clock()
        self._mark = mark
        self._recorder = recorder
        self._numbers = itertools.count(1)
        self._by_account: dict[Account, _Known] = {}
        self._accounts: dict[Key, Account] = {}
        self._gone: OrderedDict[Account, _Known] = OrderedDict()
        self._strangers: OrderedDict[Account, None] = OrderedDict()
        self._books: dict[str, _Book] = {}
        self._heap: list[tuple[dt.datetime, str]] = []
        self._marks: OrderedDict[bytes, None] = OrderedDict()
        self._wake = asyncio.Event()
        self._recording = asyncio.Lock()
        self._writing = asyncio.Lock()
        self.figures = Figures()

    def __len__(self) -> int:
        """How many subjects have something to be told, or had within the last minute."""
        return len(self._books)

    def note(self, resource: Resource) -> None:
        """Take a version of an object: grants are found by their accounts, and tell at their end."""
        if not isinstance(resource, TaskGrant):
            return
        known = self._know(resource)
        issued = resource.status.credential
        if issued is not None and issued.kubernetes is not None:
            known.credential_ids[issued.kubernetes.credential_id.removeprefix("JTI=")] = None
            if len(known.credential_ids) > MAX_TOKENS:
                known.credential_ids.popitem(last=False)
        book = self._books.get(resource.metadata.uid)
        if book is None:
            return
        book.grant = resource
        if _has_ended(resource) and not book.is_closed:
            book.is_closed = True
            self._set_due(book, self._clock())

    def forget(self, key: Key) -> None:
        """An object is gone; what its account did in its last moments may still be told."""
        account = self._accounts.pop(key, None)
        if account is not None:
            self._gone[account] = self._by_account.pop(account)
        while len(self._gone) > MAX_GONE:
            self._gone.popitem(last=False)

    def take(self, sightings: Iterable[Sighting]) -> None:
        """Count requests that the API server told of, each once, however often it is told.

        Raises:
            TooMuchError: there is no room; what was counted already is known when it is told again.
        """
        for sighting in sightings:
            if sighting.mark in self._marks:
                self.figures.repeated += 1
                continue
            book = self._book_of(sighting)
            ended_at = _withdrawn_at(book.grant) if book.grant is not None else None
            room = MAX_ROWS if len(self._books) <= CROWD else CROWDED_ROWS
            book.window.add(sighting, ended_at, max_rows=room)
            self._marks[sighting.mark] = None
            if len(self._marks) > MAX_MARKS:
                self._marks.popitem(last=False)
            self.figures.requests += 1
            self.figures.unmatched += book.grant is None and not sighting.borrower
            self.figures.impersonated += bool(sighting.borrower)

    def reported(self, grant: TaskGrant, count: int, at: dt.datetime) -> None:
        """Count activities that the log has; one that finds no room is not counted in the status."""
        self.figures.activities += count
        try:
            book = self._open(str(grant.key), grant.metadata.uid, grant)
        except TooMuchError:
            return
        told = _Sum(first=at, last=at, activities=count)
        book.own.add(told)
        self._add_to_ancestors(grant, told)

    async def run(self) -> None:
        """Tell what is due, for ever."""
        while True:
            self._wake.clear()
            due = self._pop_due()
            if due:
                await self._tell_or_retry(due)
                await asyncio.sleep(PACE)
                continue
            # Not wait_for: before Python 3.12 it loses a cancellation that comes with what it waits for.
            with suppress(TimeoutError):
                async with asyncio.timeout(self._next_wait()):
                    await self._wake.wait()
            if self._pilots:  # what did not go through with the grants' statuses
                await self._tell_or_retry([])

    async def record(self) -> None:
        """Tell the log everything now, because this process ends; the statuses do not tell it yet."""
        books = [book for book in self._books.values() if not book.is_recorded]
        for start in range(0, len(books), MAX_ENTRIES):
            await self._record(books[start : start + MAX_ENTRIES])

    async def drain(self) -> None:
        """Tell everything now: the log first, which alone can tell it later, and then the statuses."""
        await self.record()
        async with self._writing:  # what is on its way is in no book
            books = [book for book in self._books.values() if not book.is_shown]
        for start in range(0, len(books), BATCH):
            await self._write_statuses(books[start : start + BATCH])

    def _know(self, grant: TaskGrant) -> _Known:
        account = Account(grant.metadata.namespace, account_name(grant))
        if self._accounts.get(grant.key) != account:
            self.forget(grant.key)  # of that name there is another one now
            self._accounts[grant.key] = account
        known = self._by_account.setdefault(account, _Known(grant))
        known.grant = grant
        return known

    def _find(self, account: Account) -> _Known | None:
        known = self._by_account.get(account) or self._gone.get(account)
        if known is not None or account in self._strangers:
            return known
        # The store is told of a sweep's findings first, and of our own writes.
        for key in self._store.keys("TaskGrant"):
            grant = self._store.grant(key)
            if grant is not None and Account(key.namespace, account_name(grant)) == account:
                self.note(grant)
                return self._by_account[account]
        # Who makes such an account makes it after its grant is in the store: no need to look again.
        self._strangers[account] = None
        if len(self._strangers) > MAX_GONE:
            self._strangers.popitem(last=False)
        return None

    def _book_of(self, sighting: Sighting) -> _Book:
        known = self._find(sighting.account)
        if known is not None:
            grant = known.grant
            return self._open(str(grant.key), grant.metadata.uid, grant)
        subject = f"ServiceAccount {sighting.account.namespace}/{sighting.account.name}"
        return self._open(subject, sighting.account_uid or subject, None)

    def _open(self, subject: str, uid: str, grant: TaskGrant | None) -> _Book:
        book = self._books.get(uid)
        if book is None:
            if len(self._books) >= MAX_BOOKS:
                raise TooMuchError(f"{MAX_BOOKS} subjects wait to be told of")
            book = self._books[uid] = _Book(subject, uid, grant)
            self._set_due(book, self._clock())
        return book

    def _set_due(self, book: _Book, at: dt.datetime) -> None:
        book.due_at = at
        heapq.heappush(self._heap, (at, book.uid))
        self._wake.set()

    def _pop_due(self) -> list[_Book]:
        """Take the books that are due, the longest due first; one with nothing to tell is closed."""
        now = self._clock()
        due: list[_Book] = []
        while self._heap and len(due) < BATCH and self._heap[0][0] <= now:
            at, uid = heapq.heappop(self._heap)
            book = self._books.get(uid)
            if book is None or book.due_at != at:
                continue
            if book.is_empty:
                del self._books[uid]
            else:
                due.append(book)
        return due

    def _next_wait(self) -> float:
        if not self._heap:
            return LONGEST_WAIT
        return min(LONGEST_WAIT, max(0.0, (self._heap[0][0] - self._clock()).total_seconds()))

    async def _tell_or_retry(self, books: list[_Book]) -> None:
        try:
            await self._tell(books)
        except Exception:
            # A defect here must not stop the workers that withdraw access.
            log.exception("use of %d grants could not be told", len(books))
            self._retry(books)

    async def _tell(self, books: list[_Book]) -> None:
        """Commit an entry for each, then write the statuses; what fails is tried again."""
        if await self._record(books):
            await self._write_statuses(books)

    async def _record(self, books: list[_Book]) -> bool:
        """Commit an entry for each; returns whether the log has them."""
        async with self._recording:
            return await self._record_now(books)

    async def _record_now(self, books: list[_Book]) -> bool:
        now = self._clock()
        for book in books:
            self._seal(book, now)
            self._set_due(book, now + EVERY)
        entries = [book.sealed[0] for book in books if book.sealed is not None]
        if entries:
            try:
                await self._log.commit(entries)
            except PortError as error:
                log.warning("use of %d grants is not recorded yet: %s", len(entries), error)
                self._retry(books)
                return False
        for book in books:
            if book.sealed is not None:
                told, book.sealed = book.sealed[1], None
                book.own.add(told)
                if book.grant is not None and not told.is_empty:
                    self._add_to_ancestors(book.grant, told)
        return True

    def _retry(self, books: Iterable[_Book]) -> None:
        again = self._clock() + AGAIN
        for book in books:
            self._set_due(book, again)

    def _seal(self, book: _Book, now: dt.datetime) -> None:
        """Close the window of a book, unless an entry is still on its way: then that one is tried again."""
        window = book.window
        if book.sealed is not None or window.is_empty:
            return
        known = self._issued(book)
        data = {
            **self._about(book),
            **window.data(known),
            "source": "audit-webhook",
            "receiver": self._receiver,
            "receiverSince": format_timestamp(self._since),
        }
        entry = Entry(
            id=f"{book.uid}/access/{self._receiver}.{next(self._numbers)}",
            type=EntryType.ACCESS_SEEN,
            subject=book.subject,
            subject_uid=book.uid,
            time=now,
            data=data,
        )
        first, last = window.span or (None, None)
        told = _Sum(first, last, window.requests, window.refused)
        book.sealed, book.window = (entry, told), AccessWindow()
        self._warn(book, window, known)

    def _warn(self, book: _Book, window: AccessWindow, known: Iterable[str]) -> None:
        """Tell people, and the metrics, what must not be: use after the end, or by an account of no grant."""
        self.figures.allowed_late += window.allowed_late
        if book.grant is not None:
            self.figures.unknown_tokens += window.by_unknown(known)
        who = Owner(Key.parse(book.subject), book.uid)
        notice = tell_use(who, window, is_a_grant=book.grant is not None)
        if notice is not None:
            log.error("%s: %s", book.subject, notice.note)
            self._recorder.tell(notice, -1)

    def _issued(self, book: _Book) -> tuple[str, ...]:
        if book.grant is None:
            return ()
        account = Account(book.grant.metadata.namespace, account_name(book.grant))
        known = self._by_account.get(account) or self._gone.get(account)
        return tuple(known.credential_ids) if known is not None else ()

    def _about(self, book: _Book) -> dict[str, Any]:
        return about(book.grant, self._store) if book.grant is not None else {}

    def _add_to_ancestors(self, grant: TaskGrant, told: _Sum) -> None:
        for ancestor in self._store.ancestors(grant):
            try:
                book = self._open(str(ancestor.key), ancestor.metadata.uid, ancestor)
            except TooMuchError:
                return
            book.chained.add(told)

    async def _write_statuses(self, books: Iterable[_Book]) -> None:
        slots = asyncio.Semaphore(WRITERS)

        async def write(book: _Book) -> None:
            async with slots:
                await self._write_status(book)

        async with self._writing:
            async with asyncio.TaskGroup() as tasks:
                for book in books:
                    if book.grant is not None and book.own.last is not None:
                        self._pilots.note(book.grant.pilot_key, book.own.last)
                    tasks.create_task(write(book))
            await self._pilots.tell()

    async def _write_status(self, book: _Book) -> None:
        """Add a book's sums to its grant's status. Where the object is gone, the log alone tells them."""
        own, chained = book.own, book.chained
        if own.is_empty and chained.is_empty:
            return
        grant = self._store.grant(book.grant.key) if book.grant is not None else None
        book.own, book.chained = _Sum(), _Sum()
        if grant is None or grant.metadata.uid != book.uid:
            return
        before = grant.status
        after = msgspec.structs.replace(before, usage=_added(before.usage or Usage(), own, chained))
        try:
            written = await self._cluster.write_status(grant, encode(before), encode(after))
        except PortError as error:
            if not isinstance(error, Conflict):
                log.warning("%s: its use is not in its status yet: %s", grant.key, error)
            book.own.add(own)
            book.chained.add(chained)
            self._retry([book])
            return
        self._mark(self._store.put(written) - {grant.key})


def about(grant: TaskGrant, store: Store) -> dict[str, Any]:
    """What every entry on a grant's use says of the grant."""
    told: dict[str, Any] = {
        "pilot": grant.spec.pilot,
        "stage": grant.status.stage,
        "task": {"id": grant.spec.task.id},
        "requestedBy": grant.spec.requested_by,
    }
    if grant.spec.parent:
        told["parent"] = {"name": grant.spec.parent, "uid": grant.status.parent_uid}
        told["delegation"] = told_chain(store.ancestors(grant))
    return told


def _added(before: Usage, own: _Sum, chained: _Sum) -> Usage:
    first = [moment for moment in (before.first_used, own.first) if moment is not None]
    tree = before.chained
    if not chained.is_empty:
        tree = Use(**chained.use(tree or Use()))
    return Usage(**own.use(before), first_used=min(first, default=None), chained=tree)


def _has_ended(grant: TaskGrant) -> bool:
    return grant.status.phase.is_terminal or grant.status.phase is Phase.CLOSING


def _withdrawn_at(grant: TaskGrant) -> dt.datetime | None:
    closure = grant.status.closure
    return closure.withdrawn_at if closure is not None else None
