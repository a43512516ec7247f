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
from pathlib import Path
from typing import TypeVar

import msgspec

from pilot_identity.cli.failures import CliError
from pilot_identity.core.audit.arrivals import Sighting
from pilot_identity.core.audit.checkpoint import Checkpoint, CheckpointError, LogVerifier

Stored = TypeVar("Stored")

MAX_SIGHTINGS = 512


class SeenHead(msgspec.Struct, frozen=True):
    """The newest head of one log that verified.

    Attributes:
        sightings: when which size was first seen, up to this head's; each with a larger size than the last.
    """

    vkey: str
    note: str
    sightings: tuple[Sighting, ...] = ()


class KnownPlace(msgspec.Struct, frozen=True):
    """Which log was found in a place."""

    place: str
    vkey: str


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
        path = self._path("head", str(verifier))
        stored = self._read(path, SeenHead)
        if stored is None:
            return None
        try:
            return verifier.open(stored.note), stored.note
        except CheckpointError as error:
            raise self._unusable(path) from error

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

    def remember(self, place: str, verifier: LogVerifier, note: str, now: dt.datetime) -> None:
        """Take down a head that verified, unless a newer one is known."""
        head, known = verifier.open(note), self.head(verifier)
        if known is None or known[0].size <= head.size:
            sightings = self.sightings(verifier)
            if not sightings or sightings[-1].size < head.size:
                sightings = thinned((*sightings, Sighting(head.size, now)))
            self._write(self._path("head", str(verifier)), SeenHead(str(verifier), note, sightings))
        self._write(self._path("place", place), KnownPlace(place, str(verifier)))

    def logs(self) -> list[SeenHead]:
        """Every log that was seen."""
        found = [self._read(path, SeenHead) for path in sorted(self.directory.glob("head-*.json"))]
        return [each for each in found if each is not None]

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
