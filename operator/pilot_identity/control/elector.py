"""The elector: of all replicas, the one that holds the Lease works; the others watch and wait.

The rules are client-go's: the holder renews well before its lease runs out; another takes over when it has
seen the same renewal for a whole lease duration *by its own clock* (clocks of different machines are never
compared); a holder that cannot renew in time stops working before anyone else may start. Every write goes
to the version that was read, so two takers cannot both win.

Whoever waits counts by a clock that may have stood still, and at worst waits longer. The holder counts by the
clock that went furthest (`clocks`): a machine that was suspended does not believe its old lease. One that was
paused with all its clocks learns at its next renewal, `retry` after it goes on, that another has taken it.

Leadership is not what keeps the log from forking or a credential from being issued twice: names, versions
and the log's ids do that. It only keeps two replicas from doing the same work.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pilot_identity.clocks import Instant
from pilot_identity.ports import Clock, Conflict, LeaseStore, PortError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. `renew_deadline` < `duration`, and a request's timeout below `retry`."""

    duration: float = 15.0
    renew_deadline: float = 10.0
    retry: float = 2.0


class LostLeadershipError(Exception):
    """The lease could not be renewed in time: this process must stop working at once."""


class Elector:
    """Takes, keeps and gives back one Lease.

    `identity` is the pod's name: a container that is restarted within its pod holds the same lease as the
    one that died, and goes on at once instead of waiting for its own lease to run out.
    """

    def __init__(  # noqa: PLR0913 - whose lease, and a clock for each rule
        self,
        store: LeaseStore,
        identity: str,
        clock: Clock,
        timing: Timing | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], Instant] = Instant.now,
    ) -> None:
        self._store = store
        self._identity = identity
        self._clock = clock
        self._timing = timing or Timing()
        self._monotonic = monotonic
        self._now = now
        self._lease: Mapping[str, Any] | None = None
        self._seen: tuple[str, str] = ("", "")
        self._seen_at = monotonic()

    async def acquire(self, on_wait: Callable[[], None] = lambda: None) -> None:
        """Wait until this process holds the lease; `on_wait` is called each time that it has to."""
        while True:
            try:
                if await self._try():
                    log.info("leads as %s", self._identity)
                    return
            except Conflict:
                log.debug("another replica was faster")
            except PortError as error:
                log.warning("cannot read or take the lease: %s", error)
            on_wait()
            await asyncio.sleep(self._timing.retry)

    async def keep(self) -> None:
        """Renew for ever.

        Raises:
            LostLeadershipError: another holds the lease, or it could not be renewed in time.
        """
        renewed = self._now()
        while True:
            await asyncio.sleep(self._timing.retry)
            remaining = self._timing.renew_deadline - renewed.until(self._now())
            if remaining <= 0:
                raise LostLeadershipError(f"not renewed within {self._timing.renew_deadline:.0f} s")
            started = self._now()
            try:
                async with asyncio.timeout(remaining):
                    kept = await self._renew()
            except (PortError, TimeoutError) as error:
                log.warning("cannot renew the lease: %s", error or type(error).__name__)
                self._lease = None
                continue
            if not kept:
                raise LostLeadershipError("another replica took the lease")
            renewed = started

    async def release(self) -> None:
        """Give the lease back, so that another replica need not wait for it to run out."""
        if self._lease is None:
            return
        lease, self._lease = self._lease, None
        spec = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
        try:
            await self._store.update(lease, spec)
        except PortError as error:
            log.warning("could not give the lease back: %s", error)

    async def _renew(self) -> bool:
        """Renew; where the Lease is not as this process wrote it, renew what is there, at once.

        Another process of this identity renews it too, or our own last answer was lost. Waiting for the next
        turn would leave half as many turns until the deadline.
        """
        try:
            return await self._try()
        except Conflict:
            return await self._try()

    async def _try(self) -> bool:
        """Renew or take the lease where that is allowed; returns whether this process holds it now."""
        lease = self._lease or await self._store.read()
        if lease is None:
            self._lease = await self._store.create(self._spec(transitions=0, acquired=None))
            return True
        spec = lease.get("spec", {})
        holder = spec.get("holderIdentity") or ""
        if holder not in {"", self._identity} and not self._ran_out(holder, spec):
            self._lease = None
            return False
        is_own = holder == self._identity
        transitions = int(spec.get("leaseTransitions") or 0) + (0 if is_own else 1)
        wanted = self._spec(transitions=transitions, acquired=spec.get("acquireTime") if is_own else None)
        self._lease = None
        self._lease = await self._store.update(lease, wanted)
        return True

    def _ran_out(self, holder: str, spec: Mapping[str, Any]) -> bool:
        """Whether the same renewal was seen for a whole lease duration, by this process's own clock."""
        seen = (holder, str(spec.get("renewTime")))
        if seen != self._seen:
            self._seen, self._seen_at = seen, self._monotonic()
            return False
        duration = float(spec.get("leaseDurationSeconds") or self._timing.duration)
        return self._monotonic() - self._seen_at > duration

    def _spec(self, *, transitions: int, acquired: str | None) -> dict[str, Any]:
        now = _micro_time(self._clock())
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(self._timing.duration),
            "acquireTime": acquired or now,
            "renewTime": now,
            "leaseTransitions": transitions,
        }


def _micro_time(moment: dt.datetime) -> str:
    """As Kubernetes' MicroTime."""
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
