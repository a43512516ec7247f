"""Export: a log that verified, as plain files that anybody's tools can check.

The layout is C2SP tlog-tiles.md's, as Tessera's fsck reads it. Beside it stand `vkey` and `entries.ndjson`,
the entries one a line for whoever wants to search them; and, where witnesses cosigned the log, `cosigned`
with the newest head of each, an empty line between them, and `witnesses` with their keys.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pilot_identity.cli.audit.witnesses import COSIGNED_FILE, VKEYS_FILE
from pilot_identity.cli.failures import CliError, UsageError
from pilot_identity.core.audit.cosignature import join_notes
from pilot_identity.core.audit.proofs import Tree
from pilot_identity.core.audit.reader import CHECKPOINT, NDJSON
from pilot_identity.core.audit.shelf import VKEY
from pilot_identity.core.audit.tiles import ENTRIES, HEIGHT, WIDTH, Tile, encode_bundle, encode_tile, tiles_of
from pilot_identity.core.audit.witnessed import Word


class Export:
    """Writes beside the target while the log is read; only a log that verified takes the target's name."""

    def __init__(self, target: Path) -> None:
        """Begin an export to `target`.

        Raises:
            UsageError: something is there.
        """
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise UsageError(f"{target} is there already", "name a directory that is empty or does not exist")
        self._target = target.resolve()
        try:
            # A directory that is there may be a volume, or where the user stands: it stays the same one.
            self._is_there = self._target.exists()
            within = self._target if self._is_there else self._target.parent
            within.mkdir(parents=True, exist_ok=True)
            self._aside = Path(tempfile.mkdtemp(prefix=".export-", dir=within))
            self._part = self._aside / "log"
            self._part.mkdir()
            self._lines = (self._part / NDJSON).open("wb")
        except OSError as error:
            raise CliError(f"{target} cannot be written: {error.strerror}") from error
        self._waiting: list[bytes] = []
        self._bundles = 0

    def add(self, entry: bytes) -> None:
        """Take the next entry."""
        self._lines.write(entry + b"\n")
        self._waiting.append(entry)
        if len(self._waiting) == WIDTH:
            self._write_bundle()

    def witnessed(self, words: Sequence[Word]) -> None:
        """Write the heads that witnesses cosigned, and the witnesses' keys."""
        heads = [word.note for word in words if word.note]
        if heads:
            self._write(COSIGNED_FILE, join_notes(heads).encode())
            vkeys = "".join(f"{word.witness}\n" for word in words if word.note)
            self._write(VKEYS_FILE, vkeys.encode())

    def finish(self, tree: Tree, note: str, vkey: str) -> None:
        """Write the tiles and the head, and give the export its name."""
        if self._waiting:
            self._write_bundle()
        for tile in tiles_of(tree.size):
            first = tile.index * WIDTH
            nodes = [tree.perfect(HEIGHT * tile.level, first + at) for at in range(tile.width)]
            self._write(tile.path, encode_tile(nodes))
        self._write(VKEY, f"{vkey}\n".encode())
        self._write(CHECKPOINT, note.encode())
        self._lines.close()
        try:
            if self._is_there:
                # The head comes last: without it there is no log to anybody.
                for path in sorted(self._part.iterdir(), key=lambda one: (one.name == CHECKPOINT, one.name)):
                    path.rename(self._target / path.name)
            else:
                self._part.rename(self._target)
            shutil.rmtree(self._aside, ignore_errors=True)
        except OSError as error:
            raise CliError(f"{self._target} cannot be written: {error.strerror}") from error

    def abandon(self) -> None:
        """Leave nothing behind."""
        self._lines.close()
        shutil.rmtree(self._aside, ignore_errors=True)

    def _write_bundle(self) -> None:
        bundle = Tile(ENTRIES, self._bundles, len(self._waiting))
        self._write(bundle.path, encode_bundle(self._waiting))
        self._bundles += 1
        self._waiting.clear()

    def _write(self, path: str, content: bytes) -> None:
        file = self._part / path
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        except OSError as error:
            raise CliError(f"{file} cannot be written: {error.strerror}") from error
