"""Memory: what this user's verifications saw, kept on this user's machine.

A log's keeper who holds its key can sign another history. Someone who remembers the last head notices, and
that costs one small file. It is kept by the log's key, so that the same log read from elsewhere is held to
the same head, and for each place the key that was found there is kept, so that another log in the place of
the first is noticed, too. When which size was first seen is kept as well: entries that were there then cannot
be said to be newer.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from pilot_identity.cli.failures import CliError
from pilot_identity.core.audit.arrivals import Sighting
from pilot_identity.core.audit.checkpoint import Checkpoint, CheckpointError, LogVerifier

Stored = TypeVar("Stored")

MAX_SIGHTINGS = 512


MOST_EARLIER = 64
"""Heads that are kept beside the newest; each has some hundred bytes."""
_APART = dt.timedelta(hours=1)
"""Of heads that only came by, so that following a log does not drive out all others."""


class EarlierHead(msgspec.Struct, frozen=True):
    """A head that verified before the newest did.

    Attributes:
        at: when, in ISO 8601.
        proven: whether the newest head that was seen is known to go on from it.
    """

    note: str
    at: str
    proven: bool


class SeenHead(msgspec.Struct, frozen=True):
    """The newest head of one log that verified, and some of those before it.

    Attributes:
        sightings: when which size was first seen, up to this head's; each with a larger size than the last.
        at: when it did, in ISO 8601; empty where that was not taken down.
    """

    vkey: str
    note: str
    sightings: tuple[Sighting, ...] = ()
    at: str = ""
    earlier: tuple[EarlierHead, ...] = ()


class KnownPlace(msgspec.Struct, frozen=True):
    """Which log was found in a place.

    Attributes:
        size: the most entries that it had there.
    """

    place: str
    vkey: str
    size: int = 0


class Memory:
    """Files in one directory; each is replaced as a whole or not at all."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @classmethod
    def of_user(cls) -> Memory:
        """The user's own, where XDG's base directories put state."""
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        return cls(Path(state) / "pilot-identity" / "audit")

    def head(self, verifier: LogVerifier) -> tuple[Checkpoint, str] | None:
        """The newest head that was seen of a log, and the note that signs it.

        Raises:
            CliError: the file is there but cannot be used.
        """
        stored = self._seen(verifier)
        return (self._open(verifier, stored.note), stored.note) if stored is not None else None

    def seen_at(self, verifier: LogVerifier) -> str:
        """When the newest head of a log was seen, in ISO 8601; empty where that is not known."""
        stored = self._seen(verifier)
        return stored.at if stored is not None else ""

    def earlier(self, verifier: LogVerifier) -> Sequence[tuple[Checkpoint, EarlierHead]]:
        """Heads of a log that were seen before the newest, as far as they are kept.

        Raises:
            CliError: the file is there but cannot be used.
        """
        stored = self._seen(verifier)
        return [(self._open(verifier, each.note), each) for each in stored.earlier] if stored else []

    def sightings(self, verifier: LogVerifier) -> tuple[Sighting, ...]:
        """When heads of a log were first seen.

        Raises:
            CliError: the file is there but cannot be used.
        """
        stored = self._read(self._path("head", str(verifier)), SeenHead)
        return stored.sightings if stored is not None else ()

    def key_at(self, place: str) -> str:
        """The vkey of the log that was found in a place; empty where none was."""
        stored = self._read(self._path("place", place), KnownPlace)
        return stored.vkey if stored is not None else ""

    def size_at(self, place: str, verifier: LogVerifier) -> int:
        """The most entries that a log was seen to have in a place; 0 where it was not seen there."""
        stored = self._read(self._path("place", place), KnownPlace)
        return stored.size if stored is not None and stored.vkey == str(verifier) else 0

    def remember(
        self, place: str, verifier: LogVerifier, note: str, now: dt.datetime, held: Collection[int] = ()
    ) -> None:
        """Take down a head that verified, and what else was proven by it.

        Args:
            place: where the log is.
            verifier: its key.
            note: the head; where a larger one is known it goes to the earlier ones.
            now: when it verified.
            held: the sizes of earlier heads that this log was found to go on from.
        """
        head, known = verifier.open(note), self._seen(verifier)
        size = max(head.size, self.size_at(place, verifier))
        self._write(self._path("place", place), KnownPlace(place, str(verifier), size))
        if known is None:
            self._write_head(
                verifier, SeenHead(str(verifier), note, (Sighting(head.size, now),), now.isoformat())
            )
            return
        before = self._open(verifier, known.note)
        if before.size > head.size:
            self.keep(verifier, note, now, is_proven=False)
            return
        earlier = tuple(
            msgspec.structs.replace(each, proven=each.proven or checkpoint.size in held)
            for checkpoint, each in self.earlier(verifier)
        )
        if before.size < head.size and _is_apart(earlier, known.at):
            earlier = _added(earlier, EarlierHead(known.note, known.at, proven=True))
        sightings = known.sightings
        if not sightings or sightings[-1].size < head.size:
            sightings = thinned((*sightings, Sighting(head.size, now)))
        self._write_head(verifier, SeenHead(str(verifier), note, sightings, now.isoformat(), earlier))

    def keep(self, verifier: LogVerifier, note: str, now: dt.datetime, *, is_proven: bool) -> None:
        """Keep a head of a log that was seen beside the newest: a copy was made there, or found."""
        known, head = self._seen(verifier), verifier.open(note)
        if known is None or any(one.size == head.size for one, _ in self.earlier(verifier)):
            return
        kept = EarlierHead(verifier.alone(note), now.isoformat(), proven=is_proven)
        self._write_head(verifier, msgspec.structs.replace(known, earlier=_added(known.earlier, kept)))

    def logs(self) -> list[SeenHead]:
        """Every log that was seen."""
        found = [self._read(path, SeenHead) for path in sorted(self.directory.glob("head-*.json"))]
        return [each for each in found if each is not None]

    def _seen(self, verifier: LogVerifier) -> SeenHead | None:
        return self._read(self._path("head", str(verifier)), SeenHead)

    def _write_head(self, verifier: LogVerifier, seen: SeenHead) -> None:
        self._write(self._path("head", str(verifier)), seen)

    def _open(self, verifier: LogVerifier, note: str) -> Checkpoint:
        try:
            return verifier.open(note)
        except CheckpointError as error:
            raise self._unusable(self._path("head", str(verifier))) from error

    def _path(self, kind: str, name: str) -> Path:
        return self.directory / f"{kind}-{hashlib.sha256(name.encode()).hexdigest()[:32]}.json"

    def _read(self, path: Path, kind: type[Stored]) -> Stored | None:
        try:
            return msgspec.json.decode(path.read_bytes(), type=kind)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self._unusable(path) from error

    def _write(self, path: Path, value: msgspec.Struct) -> None:
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.directory, prefix=".", delete=False) as file:
                file.write(msgspec.json.encode(value) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            Path(file.name).replace(path)
        except OSError as error:
            raise CliError(
                f"what was seen cannot be remembered in {self.directory}: {error.strerror}",
                "make it writable, or set XDG_STATE_HOME to a directory that is",
            ) from error

    @staticmethod
    def _unusable(path: Path) -> CliError:
        return CliError(
            f"{path}, which remembers the last head that was seen, cannot be used",
            "without it a rewritten log is not noticed; restore it, or delete it to begin anew",
        )


def thinned(sightings: tuple[Sighting, ...]) -> tuple[Sighting, ...]:
    """As many as are kept: of the older half every second goes where there are too many.

    Then what came between two sightings counts as new for as long as lies between them; never as older than
    it is.
    """
    if len(sightings) <= MAX_SIGHTINGS:
        return sightings
    half = MAX_SIGHTINGS // 2
    return (*sightings[:half:2], *sightings[half:])


def _is_apart(earlier: Sequence[EarlierHead], at: str) -> bool:
    """Whether a head that came by is long enough after the last that is kept."""
    if not at or not earlier:
        return True
    return dt.datetime.fromisoformat(at) - dt.datetime.fromisoformat(earlier[-1].at or at) >= _APART


def _added(earlier: Sequence[EarlierHead], one: EarlierHead) -> tuple[EarlierHead, ...]:
    return (*earlier, one)[-MOST_EARLIER:]
