"""A log that is compacted and old, on a server in memory, and a volume to archive it to."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilot_identity.adapters.archive import DirectoryArchive
from pilot_identity.adapters.audit_archiving import NEWEST, Archiver, Archiving
from pilot_identity.adapters.audit_log import ConfigMapLog
from pilot_identity.core.audit.chain import GRACE_SECONDS
from pilot_identity.core.audit.checkpoint import LogSigner
from pilot_identity.core.audit.entries import Entry, EntryType, RecordedEntry
from pilot_identity.core.audit.findings import Report
from pilot_identity.core.audit.reader import ConfigMapLog as StoredLog
from pilot_identity.core.audit.reader import TiledLog
from pilot_identity.core.audit.tiles import WIDTH
from pilot_identity.core.audit.verify import verify
from pilot_identity.ports import Archive
from tests.fakes.clock import START, LoopClock
from tests.fakes.server import HOME, FakeApi, FakeServer, Process

SIGNER = LogSigner("pilotidentity.dev/log/test", Ed25519PrivateKey.from_private_bytes(bytes(32)))
OLD = dt.timedelta(hours=1)
BUNDLES = 5
LEFT = (BUNDLES - NEWEST) * WIDTH


def entry(number: int, *, subject: str = "", **data: Any) -> Entry:
    """The log's `number`-th entry; its own subject where none is named."""
    uid = subject or f"uid-{number}"
    return Entry(f"{uid}/{number}", EntryType.GRANT_ISSUED, "TaskGrant team-a/task", uid, START, data)


class World:
    """A server with a log that is compacted and old, and a volume."""

    def __init__(self, volume: Path) -> None:
        self.clock = LoopClock()
        self.server = FakeServer(self.clock)
        self.volume = volume
        self.told: list[RecordedEntry] = []

    def log(self, archive: Archive | None = None) -> ConfigMapLog:
        """A process's log."""
        archive = archive or DirectoryArchive(self.volume)
        return ConfigMapLog(FakeApi(self.server), HOME, SIGNER, on_read=self.told.append, archive=archive)

    def archiver(
        self, log: ConfigMapLog, archive: Archive | None = None, process: Process | None = None
    ) -> Archiver:
        """What archives it."""
        return Archiver(
            FakeApi(self.server, process),
            HOME,
            Archiving(archive or DirectoryArchive(self.volume), OLD),
            signer=SIGNER,
            remembered=log.remembered,
            clock=self.clock,
        )

    async def fill(self, *first: Entry, size: int = BUNDLES * WIDTH + 40) -> None:
        """Commit a log of that size, compact it, and let it become old."""
        self.clock.begin()
        log = self.log()
        async with running(log):
            await log.commit(first or [entry(0)])
            for at in range(len(first) or 1, size, 60):
                await log.commit([entry(number) for number in range(at, min(at + 60, size))])
            await asyncio.sleep(GRACE_SECONDS + 1)
            while await log.compaction.compact_next():
                pass
        await asyncio.sleep(OLD.total_seconds())

    def names(self, kind: str) -> list[int]:
        """The sizes in the names of the log's ConfigMaps of a kind."""
        prefix = f"audit-{kind}-"
        found = (str(body["metadata"]["name"]) for body in self.server.all("configmaps"))
        return [int(name.removeprefix(prefix)) for name in found if name.startswith(prefix)]

    def read(self, *, with_archive: bool) -> tuple[Report, list[bytes]]:
        """Verify the stored log as an outsider does; returns the verdict and the entries."""
        entries: list[bytes] = []
        source = StoredLog(
            lambda: self.server.all("configmaps"), tiled(self.volume) if with_archive else None
        )
        report, _ = verify(source, SIGNER.verifier(), observe=lambda _, encoded: entries.append(encoded))
        assert report.is_sound, report.findings
        return report, entries


def tiled(volume: Path) -> TiledLog:
    """The files of a volume."""

    def fetch(path: str) -> bytes | None:
        file = volume / path
        return file.read_bytes() if file.is_file() else None

    def fetch_all(paths: Iterable[str]) -> Iterator[bytes | None]:
        return map(fetch, paths)

    return TiledLog(fetch, fetch_all)


@asynccontextmanager
async def running(log: ConfigMapLog) -> AsyncIterator[None]:
    """Open a log, and let it write while the context is open."""
    await log.open()
    task = asyncio.create_task(log.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def archive_all(archiver: Archiver) -> None:
    """Archive what can be."""
    while await archiver.archive_next():
        pass
