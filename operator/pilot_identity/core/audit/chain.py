"""The chain: what a writer knows of the log that it extends, and when a part of it may be compacted.

The invariant: no index is told to anyone unless the group that has it stands in the one chain.

A group's name orders the writers only as long as the group stands: once it is compacted and deleted, a
writer that slept could take its name again. Two rules keep the invariant. A group is deleted only when it has
stood for `GRACE_SECONDS`, and after the bundle that has its entries was written. A writer whose group
certainly stood within that time of its last certain knowledge of the head met every rival's group that there
was; wherever that is in doubt it asks, after its write, for the bundle that would have its place. That second
question needs no clock: whoever deleted a rival of this name had written that bundle before.

Neither rule speaks of the order in which spent groups go, so any of them may be gone and any other left:

- Bundles are written in the log's order, so their last tells how far the log is compacted, and no group that
  lies before its end is needed to go on. Those that do not lie before it all stand, as does the newest.
- Who finds a size's name free asks for the bundle that has the entry there, and only about that one group.

`docs/decisions/0010-audit-tiles.md` says which clock each of the rules believes, and why.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pilot_identity.core.audit.checkpoint import LogVerifier
from pilot_identity.core.audit.compacted import Compacted
from pilot_identity.core.audit.groups import BrokenLogError, Group, group_name
from pilot_identity.core.audit.merkle import Frontier, leaf_hash
from pilot_identity.core.audit.proofs import join
from pilot_identity.core.audit.tiles import WIDTH

GRACE_SECONDS = 30.0
"""Three times what a request of a writer may take."""
FRESH_SECONDS = GRACE_SECONDS / 3
"""So old a writer's knowledge may be. A second third is for its request, the last for clocks that differ."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A group that is stored and not deleted.

    Attributes:
        since: by the writer's own monotonic clock; it stood no later.
        is_stray: no part of the log, but of a writer that came too late; nobody was told that it counts.
        created: by the API server's clock, in whole seconds.
        digest: of its contents.
    """

    extends: int
    size: int
    uid: str
    since: float
    is_stray: bool = False
    created: dt.datetime | None = None
    digest: bytes = b""

    @property
    def name(self) -> str:
        """The ConfigMap's."""
        return group_name(self.extends)


class Chain:
    """The tree's right edge, the groups that stand, and how far the log is compacted.

    Attributes:
        frontier: the tree up to the newest group.
        sealed: how many entries are in bundles.
        edge: the tree's right edge there.
    """

    def __init__(self) -> None:
        self.frontier = Frontier()
        self.sealed = 0
        self.edge: tuple[bytes, ...] = ()
        self._standing: dict[int, Standing] = {}
        self._newest = -1
        self._roots: dict[int, bytes] = {}

    def clear(self) -> None:
        """Forget all: the log is taken up anew."""
        self.frontier, self.sealed, self.edge = Frontier(), 0, ()
        self._standing.clear()
        self._newest = -1
        self._roots.clear()

    @property
    def size(self) -> int:
        """How many entries the log has, as far as this writer knows."""
        return self.frontier.size

    @property
    def head(self) -> Standing | None:
        """The newest group; `None` in an empty log, and where a bundle is all that is known of the end."""
        newest = self._standing.get(self._newest)
        return newest if newest is not None and newest.size == self.size else None

    def is_close_behind(self, created: dt.datetime) -> bool:
        """Whether the API server made a group so soon after the head that no rival of it can be gone.

        Both times are the API server's, set before the object stands: the head stood no earlier than its
        own, and a group stands at most as long after its own as the API server may work on a request.
        """
        head = self.head
        if head is None or head.created is None:
            return False
        return abs((created - head.created).total_seconds()) < FRESH_SECONDS

    def begin_at(self, bundle: Compacted, verifier: LogVerifier) -> None:
        """Take the log up at the end of its last bundle.

        Raises:
            BrokenLogError: the edge is not that of the signed head.
            CheckpointError: the head is not signed by the log's key.
        """
        head = verifier.open(bundle.note)
        if (head.size, head.root) != (bundle.size, join(bundle.edge)):
            raise BrokenLogError(f"the bundle from {bundle.first} on does not end as its signed head says")
        self.frontier = bundle.frontier()
        self.sealed, self.edge = bundle.size, bundle.edge

    def add(self, group: Group, standing: Standing, verifier: LogVerifier | None = None) -> Sequence[bytes]:
        """Go on over a group; returns those of its entries that are new.

        Args:
            group: as it is stored; it may begin before the end of the last bundle, and end there too.
            standing: where it stands.
            verifier: checks its head; `None` where this writer signed it.

        Raises:
            BrokenLogError: it does not follow, or its signed root is not that of the entries.
            CheckpointError: its head is not signed by the log's key.
        """
        if group.size <= self.size:
            self._stand(standing)
            return ()
        if group.extends > self.size or (group.extends < self.size and self.size != self.sealed):
            raise BrokenLogError(f"{group.name}: the log goes on at size {self.size}; a group is missing")
        new = group.entries[self.size - group.extends :]
        after, roots = self.frontier.copy(), dict[int, bytes]()
        for entry in new:
            after.append(leaf_hash(entry))
            if after.size % WIDTH == 0:
                roots[after.size] = after.root()
        if verifier is not None:
            head = verifier.open(group.note)
            if (head.size, head.root) != (after.size, after.root()):
                raise BrokenLogError(
                    f"{group.name}: its checkpoint says size {head.size} with root {head.root.hex()}; "
                    f"its entries make size {after.size} with root {after.root().hex()}"
                )
        self.frontier = after
        self._roots |= roots
        self._stand(standing)
        return new

    def pass_over(self, bundle: Compacted, verifier: LogVerifier) -> Sequence[bytes]:
        """Go on over a bundle that another writer made of groups that this one never saw.

        Returns:
            Those of its entries that are new.

        Raises:
            BrokenLogError: it does not go on from what this writer knows.
            CheckpointError: its head is not signed by the log's key.
        """
        if not bundle.first <= self.size < bundle.size:
            raise BrokenLogError(f"the log goes on at {self.size}, not in the bundle from {bundle.first} on")
        new = bundle.entries[self.size - bundle.first :]
        after = self.frontier.copy()
        for entry in new:
            after.append(leaf_hash(entry))
        head = verifier.open(bundle.note)
        if not head.root == after.root() == join(bundle.edge) or head.size != after.size:
            raise BrokenLogError(f"the bundle from {bundle.first} on contradicts what this writer knows")
        self.frontier = after
        self.sealed, self.edge = bundle.size, bundle.edge
        return new

    def stray(self, standing: Standing) -> None:
        """Note a group that is to be deleted, because it is no part of the log."""
        self._standing[standing.extends] = replace(standing, is_stray=True)

    def due(self, now: float, *, most: int) -> Sequence[Sequence[Standing]]:
        """The groups of each bundle that may be made, in order: its entries are all there and stood for long.

        A group over the edge of two bundles is one of both.

        Args:
            now: by the clock of `Standing.since`.
            most: what takes more groups than these is left for later, but never the first bundle.
        """
        groups = sorted(
            (one for one in self._standing.values() if not one.is_stray and one.size > self.sealed),
            key=lambda one: one.extends,
        )
        count = max(most, sum(one.extends < self.sealed + WIDTH for one in groups))
        left = (one.extends for at, one in enumerate(groups) if at == count or not _stood(one, now))
        reach = next(left, self.size)
        return [
            [one for one in groups[:count] if one.size > first and one.extends < first + WIDTH]
            for first in range(self.sealed, reach - WIDTH + 1, WIDTH)
        ]

    def is_behind(self, now: float) -> bool:
        """Whether the bundle after the next one may be made too."""
        end = self.sealed + 2 * WIDTH
        return self.size >= end and all(
            _stood(one, now)
            for one in self._standing.values()
            if not one.is_stray and self.sealed < one.size and one.extends < end
        )

    def seal(self, bundle: Compacted) -> None:
        """Note that a bundle is stored.

        Raises:
            BrokenLogError: it is not the log's next, as this writer knew it when it was there.
        """
        self.require(bundle)
        self._roots.pop(bundle.size, None)
        self.sealed, self.edge = bundle.size, bundle.edge

    def require(self, bundle: Compacted) -> None:
        """Make sure that a bundle's root is the one that the tree had at that size.

        Raises:
            BrokenLogError: it is another.
        """
        if bundle.first != self.sealed or self._roots.get(bundle.size) != join(bundle.edge):
            raise BrokenLogError(
                f"the groups from {bundle.first} to {bundle.size} are not what was committed: they make root "
                f"{join(bundle.edge).hex()}"
            )

    def spent(self, now: float) -> Sequence[Standing]:
        """The groups that may be deleted, the oldest first: they are in bundles, and none is the newest."""
        return sorted(
            (
                one
                for one in self._standing.values()
                if one.is_stray or (one.size <= self.sealed and one.size < self.size and _stood(one, now))
            ),
            key=lambda one: one.extends,
        )

    def put_back(self, standing: Standing, uid: str) -> None:
        """Note that a group that was lost stands again, as another object."""
        if self.has(standing):
            self._standing[standing.extends] = replace(standing, uid=uid)

    def has(self, standing: Standing) -> bool:
        """Whether this group is known to stand, of whatever age."""
        known = self._standing.get(standing.extends)
        return known is not None and known.uid == standing.uid

    def date(self, standing: Standing, *, since: float) -> None:
        """Note that a group stands for longer than it was known."""
        if self.has(standing):
            self._standing[standing.extends] = replace(standing, since=since)

    def gone(self, standing: Standing) -> None:
        """Note that a group does not stand any more."""
        self._standing.pop(standing.extends, None)

    @property
    def groups(self) -> int:
        """How many groups stand."""
        return len(self._standing)

    @property
    def standing(self) -> Sequence[Standing]:
        """The groups that stand, strays too, in no order."""
        return tuple(self._standing.values())

    def _stand(self, standing: Standing) -> None:
        self._standing[standing.extends] = standing
        if standing.size == self.size:
            self._newest = standing.extends


def _stood(standing: Standing, now: float) -> bool:
    """Whether a group has stood for long enough that no writer can have missed it."""
    return standing.since + GRACE_SECONDS <= now
