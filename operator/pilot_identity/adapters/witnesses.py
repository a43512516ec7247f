"""The log's witnesses: each new head is posted to them, and what they cosigned is published beside the log.

It never stands in the way of a commit: heads are posted behind it, one request at a time to each witness, at
a bounded pace. A witness that is away, or refuses, is told of in the log, and asked again later. Where it
stands it says itself; what lies between is proven from memory, or else from the bundles, in steps.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import aiohttp

from pilot_identity import __version__
from pilot_identity.adapters.audit_archived import ArchivedConfigMaps
from pilot_identity.adapters.audit_tiles import TileConfigMaps
from pilot_identity.adapters.kubernetes import paths
from pilot_identity.adapters.kubernetes.api import Api, NotFound
from pilot_identity.core.audit.checkpoint import Checkpoint, CheckpointError, LogSigner
from pilot_identity.core.audit.cosignature import CosignatureVerifier
from pilot_identity.core.audit.groups import BrokenLogError
from pilot_identity.core.audit.growth import Growth
from pilot_identity.core.audit.merkle import Frontier
from pilot_identity.core.audit.proofs import ProofError
from pilot_identity.core.audit.tiles import WIDTH
from pilot_identity.core.decisions.witnessed import Trouble, WitnessStanding
from pilot_identity.core.resources.conditions import Reason
from pilot_identity.core.resources.metadata import GROUP
from pilot_identity.core.witness.request import AddCheckpoint
from pilot_identity.ports import Clock, PortError

log = logging.getLogger(__name__)

COSIGNED_CONFIG_MAP = "audit-cosigned"
VKEYS = "witnesses"
"""Under this name the ConfigMap has the witnesses' vkeys; each note stands under its key's id."""
LOOK_SECONDS = 1.0
"""How often it is looked whether the log grew."""
PACE_SECONDS = 2.0
"""Between two heads for one witness."""
ANEW = dt.timedelta(minutes=10)
"""A head that did not change is cosigned anew, so that the time on it says that the log did not either."""
LONGEST_RETRY = 60.0
ANSWER_SECONDS = 10.0
MAX_ANSWER_BYTES = 65_536
BUNDLES_AT_ONCE = 16
STEPS_AT_ONCE = 64
WINDOW = 64 * WIDTH
"""How many entries are kept for a witness that is behind; what was before is proven from bundles."""
CONFLICTS_AT_ONCE = 2
"""How often a witness may say that it stands elsewhere, before it is asked again later."""
REFUSALS = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND})
"""What a witness answers that will not cosign; asking again helps only once somebody has looked."""
_NEVER = dt.datetime.min.replace(tzinfo=dt.UTC)
_SIZE = re.compile(rb"(0|[1-9][0-9]{0,17})\n")


class WitnessError(Exception):
    """A witness did not cosign; the message says what it did instead."""

    reason = Reason.WITNESS_UNREACHABLE


class WitnessFarBehindError(WitnessError):
    """A witness cosigns, and is not at the head yet."""

    reason = Reason.WITNESS_BEHIND


class WitnessRefusalError(WitnessError):
    """A witness will not cosign this log: somebody must look at it."""

    reason = Reason.WITNESS_REFUSED


class WitnessedOtherwiseError(WitnessRefusalError):
    """A witness saw another history of this log."""

    reason = Reason.WITNESS_INCONSISTENT


@dataclass(frozen=True, slots=True)
class Address:
    """A witness: by which key its word is known, and its submission prefix."""

    verifier: CosignatureVerifier
    url: str

    def __post_init__(self) -> None:
        if re.fullmatch(r"https?://[^\s?#]+", self.url) is None:
            raise ValueError(f"a witness's URL begins with http:// or https://, got {self.url!r}")


@dataclass(slots=True)
class _Peer:
    """A witness as far as it is known.

    Attributes:
        stands_at: the size of what it cosigned last, as far as it told.
        note: the newest head with its cosignature; empty where there is none.
        size: of that head.
        at: when it came, by our own clock.
        cosigned_at: when the witness made it, by its own; `None` where there is none.
        trouble: what keeps it from the newest head since then; `None` once it has that.
    """

    address: Address
    stands_at: int = 0
    note: str = ""
    size: int = 0
    at: dt.datetime = _NEVER
    cosigned_at: dt.datetime | None = None
    trouble: Trouble | None = None


class Witnesses:
    """Posts heads and publishes what comes back.

    Attributes:
        failures: how often a witness was away or refused.
        refusals: how often one refused: it saw another history of this log, or does not know it.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - the parts that it joins
        self,
        api: Api,
        namespace: str,
        signer: LogSigner,
        growth: Growth,
        addresses: Sequence[Address],
        clock: Clock,
    ) -> None:
        """Know the witnesses.

        Args:
            api: the API server.
            namespace: the operator's.
            signer: the log's.
            growth: the log's newest entries, as they are committed.
            addresses: which witnesses; each key once.
            clock: tells when a head is to be cosigned anew.
        """
        self._api = api
        self._namespace = namespace
        self._signer = signer
        self._growth = growth
        self._clock = clock
        self._tiles = TileConfigMaps(api, namespace)
        self._archived = ArchivedConfigMaps(api, namespace)
        self._peers = [_Peer(address) for address in addresses]
        self._publishing = asyncio.Lock()
        self.failures = 0
        self.refusals = 0

    @property
    def cosigned(self) -> int:
        """How many entries are under a head that every witness cosigned."""
        return min((peer.size for peer in self._peers), default=0)

    @property
    def behind(self) -> int:
        """How many entries are not."""
        return max(0, self._growth.size - self.cosigned) if self._peers else 0

    def standings(self) -> Sequence[WitnessStanding]:
        """How it stands with each witness."""
        return [
            WitnessStanding(peer.address.verifier.name, peer.size, peer.cosigned_at, peer.trouble)
            for peer in self._peers
        ]

    async def run(self) -> None:
        """Keep every witness at the log's head, for ever. The log is open."""
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        headers = {"User-Agent": f"pilot-identity/{__version__}"}
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=headers, trust_env=True) as session,
            asyncio.TaskGroup() as tasks,
        ):
            for peer in self._peers:
                tasks.create_task(self._keep(peer, session), name=f"witness {peer.address.verifier.name}")

    async def _keep(self, peer: _Peer, session: aiohttp.ClientSession) -> None:
        is_known, pause = False, LOOK_SECONDS
        while True:
            try:
                if not is_known:
                    await self._recall(peer)
                    is_known = True
                if self._is_due(peer):
                    await self.bring(peer, session)
                    peer.trouble = None
                    pause = PACE_SECONDS
                else:
                    pause = LOOK_SECONDS
            except (WitnessError, PortError, BrokenLogError, CheckpointError, ProofError) as error:
                self._note_failure(peer, error)
                pause = min(2 * max(pause, LOOK_SECONDS), LONGEST_RETRY)
            self._forget()
            await asyncio.sleep(pause)

    def _note_failure(self, peer: _Peer, error: Exception) -> None:
        self.failures += 1
        reason = _reason(error)
        if peer.trouble is None or peer.trouble.reason != reason:
            since = peer.trouble.since if peer.trouble is not None else self._clock()
            peer.trouble = Trouble(reason, since, str(error))
        told = log.warning
        if isinstance(error, WitnessRefusalError):
            self.refusals += 1
            told = log.error
        entries = self._growth.size - peer.size
        told("witness %s: %s; %d entries are not cosigned by it", peer.address.verifier.name, error, entries)

    def _is_due(self, peer: _Peer) -> bool:
        is_old = self._clock() - peer.at >= ANEW
        return self._growth.size > 0 and (self._growth.size != peer.size or is_old)

    def _forget(self) -> None:
        """Keep what a witness lacks, and for one that is away no more than the last window."""
        size = self._growth.size
        if size - self._growth.start > 2 * WINDOW:
            needed = min((peer.stands_at for peer in self._peers), default=size)
            self._growth.forget(max(min(needed, size), size - WINDOW) // WIDTH * WIDTH)

    async def bring(self, peer: _Peer, session: aiohttp.ClientSession) -> None:
        """Bring a witness to the log's head, and publish what it cosigned.

        Raises:
            WitnessError: it is away, or refuses.
            PortError, BrokenLogError, ProofError: what lies between cannot be read or proven now.
        """
        wanted, conflicts = self._growth.size, 0
        for _ in range(STEPS_AT_ONCE):
            asked = await self._request(peer)
            status, answer = await self._post(peer, session, asked)
            if status == HTTPStatus.CONFLICT and conflicts < CONFLICTS_AT_ONCE:
                self._take_size(peer, asked, answer)
                conflicts += 1
                continue
            if status != HTTPStatus.OK:
                word = answer.decode(errors="replace").strip()[:256]
                raise _error_of(status)(f"it answers {status}: {word}")
            await self._take(peer, asked, answer)
            if peer.size >= wanted:
                return
        raise WitnessFarBehindError(f"it came to {peer.stands_at} in {STEPS_AT_ONCE} steps")

    async def _request(self, peer: _Peer) -> AddCheckpoint:
        """The log's head and the proof from where the witness stands; or the first step on a long way."""
        old, growth = peer.stands_at, self._growth
        if old > growth.size:
            # No 409 is signed: it is asked again next time, from where its own signature was.
            peer.stands_at = peer.size
            raise WitnessedOtherwiseError(
                f"it cosigned {old} entries, this log has {growth.size}: "
                "the log was cut, or is not the one that it was"
            )
        if 0 < old < growth.start:
            return await self._step(old)
        size = growth.size
        note = self._signer.sign(Checkpoint(self._signer.name, size, growth.root(size)))
        return AddCheckpoint(old, growth.consistency(old, size), note)

    async def _step(self, old: int) -> AddCheckpoint:
        """Prove some bundles on from `old`, which lies before what is in memory."""
        first = old // WIDTH * WIDTH
        between, note = Growth(await self._edge(first)), ""
        for at in range(first, first + BUNDLES_AT_ONCE * WIDTH, WIDTH):
            bundle = await self._tiles.read(at)
            if bundle is None:
                break
            for leaf in bundle.leaves:
                between.append(leaf)
            note = bundle.note
        if not note:
            raise BrokenLogError(f"the bundle from entry {first} on is not there to prove from")
        return AddCheckpoint(old, between.consistency(old, between.size), note)

    async def _edge(self, size: int) -> Frontier:
        """The tree's right edge at a multiple of a bundle's width: told by the bundle before, or the archive.

        Raises:
            BrokenLogError: by neither.
        """
        if size == 0:
            return Frontier()
        bundle = await self._tiles.read(size - WIDTH)
        if bundle is not None:
            return bundle.frontier()
        archived = await self._archived.newest()
        if archived is None or archived.size != size:
            raise BrokenLogError(f"what lies before entry {size} is not there to prove from")
        return Frontier(size, archived.edge)

    @staticmethod
    async def _post(peer: _Peer, session: aiohttp.ClientSession, asked: AddCheckpoint) -> tuple[int, bytes]:
        url = f"{peer.address.url.rstrip('/')}/add-checkpoint"
        try:
            async with session.post(url, data=str(asked).encode(), allow_redirects=False) as answer:
                content = bytearray()
                async for chunk in answer.content.iter_any():
                    content += chunk
                    if len(content) > MAX_ANSWER_BYTES:
                        raise WitnessError(f"its answer has more than {MAX_ANSWER_BYTES} bytes")
                return answer.status, bytes(content)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise WitnessError(f"no answer: {error or type(error).__name__}") from error

    @staticmethod
    def _take_size(peer: _Peer, asked: AddCheckpoint, answer: bytes) -> None:
        """Take its word on where it stands; only the proof from there will count."""
        found = _SIZE.fullmatch(answer)
        if found is None or int(found[1]) == asked.old:
            raise WitnessError("it answers 409 without the size that it stands at")
        peer.stands_at = int(found[1])

    async def _take(self, peer: _Peer, asked: AddCheckpoint, answer: bytes) -> None:
        """Believe a cosignature that verifies, and publish it."""
        verifier = peer.address.verifier
        note = asked.note + verifier.lines_of(answer.decode(errors="replace"))
        cosigned_at = verifier.cosigned_at(note)
        size = self._signer.verifier().open(note).size
        peer.note, peer.size, peer.stands_at, peer.at = note, size, size, self._clock()
        peer.cosigned_at = cosigned_at
        try:
            await self._publish()
        except PortError:
            peer.at = _NEVER  # so that it is due again
            raise

    async def _publish(self) -> None:
        """Write what every witness cosigned last into one ConfigMap."""
        async with self._publishing:
            found = await self._find()
            metadata: dict[str, Any] = {
                "name": COSIGNED_CONFIG_MAP,
                "namespace": self._namespace,
                "labels": {f"{GROUP}/audit": "cosigned"},
            }
            data = {peer.address.verifier.identifier.hex(): peer.note for peer in self._peers if peer.note}
            data[VKEYS] = "".join(f"{peer.address.verifier}\n" for peer in self._peers)
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
            if found is None:
                await self._api.create(paths.core(self._namespace, "configmaps"), body)
            elif dict(found.get("data") or {}) != data:
                metadata["resourceVersion"] = found["metadata"]["resourceVersion"]
                await self._api.replace(self._path, body)

    async def _recall(self, peer: _Peer) -> None:
        """Take up what was cosigned before this process; what does not verify counts for nothing."""
        found = await self._find() or {}
        verifier = peer.address.verifier
        note = (found.get("data") or {}).get(verifier.identifier.hex(), "")
        if not note:
            return
        try:
            size, at = self._signer.verifier().open(note).size, verifier.cosigned_at(note)
        except CheckpointError as error:
            log.warning("what is published of witness %s does not verify: %s", verifier.name, error)
            return
        peer.note, peer.size, peer.stands_at, peer.at = note, size, size, at
        peer.cosigned_at = at

    async def _find(self) -> Mapping[str, Any] | None:
        try:
            found: Mapping[str, Any] = await self._api.get(self._path)
        except NotFound:
            return None
        return found

    @property
    def _path(self) -> str:
        return paths.core(self._namespace, "configmaps", COSIGNED_CONFIG_MAP)


def _error_of(status: int) -> type[WitnessError]:
    """What an answer means that is no cosignature; 422: the head does not go on from what it cosigned."""
    if status == HTTPStatus.UNPROCESSABLE_ENTITY:
        return WitnessedOtherwiseError
    return WitnessRefusalError if status in REFUSALS else WitnessError


def _reason(error: Exception) -> Reason:
    """What an error says of the witness; where it is not the witness's, the witness stays behind."""
    if isinstance(error, CheckpointError):
        return Reason.WITNESS_UNREACHABLE  # something answers, but not this witness
    return error.reason if isinstance(error, WitnessError) else Reason.WITNESS_BEHIND
