"""The archive in a directory, such as a mounted volume. A file appears whole and durable, or not at all."""

from __future__ import annotations

import asyncio
import os
import secrets
from pathlib import Path

from pilot_identity.core.audit.entries import MAX_ENTRY_BYTES
from pilot_identity.core.audit.tiles import WIDTH
from pilot_identity.ports import NameTaken, Unavailable

MAX_FILE_BYTES = WIDTH * (MAX_ENTRY_BYTES + 2)
"""A full bundle of the largest entries; no other file is larger."""
PART_PREFIX = ".part-"
_MODE = 0o644
"""Whoever serves or copies the archive need not be the operator."""


class DirectoryArchive:
    """`ports.Archive` in a directory of a filesystem that has `fsync` and an atomic `rename`.

    Work on the disk is done in a thread, one file at a time.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    async def read(self, path: str) -> bytes | None:
        """Read a file; `None` where there is none."""
        return await asyncio.to_thread(self._read, path)

    async def write_once(self, path: str, content: bytes) -> None:
        """Write a file, or find that it is there as it should be.

        Raises:
            NameTaken: it has another content.
        """
        await asyncio.to_thread(self._write_once, path, content)

    async def replace(self, path: str, content: bytes) -> None:
        """Write a file in place of what is there."""
        await asyncio.to_thread(self._write, path, content)

    def _read(self, path: str) -> bytes | None:
        file = self._root / path
        try:
            with file.open("rb") as opened:
                content = opened.read(MAX_FILE_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise Unavailable(f"{file} cannot be read: {error.strerror}") from error
        if len(content) > MAX_FILE_BYTES:
            raise NameTaken(f"{file} has more than {MAX_FILE_BYTES} bytes; no file of a log is that large")
        return content

    def _write_once(self, path: str, content: bytes) -> None:
        found = self._read(path)
        if found is None:
            self._write(path, content)
        elif found != content:
            raise NameTaken(f"{self._root / path} has another content than the log; it is left as it is")
        else:
            # Whoever renamed it may have ended before that was durable.
            self._make_durable(self._root / path)

    def _write(self, path: str, content: bytes) -> None:
        file = self._root / path
        part = file.with_name(f"{PART_PREFIX}{secrets.token_hex(8)}")
        try:
            self._make_directories(file.parent)
            try:
                with part.open("xb") as opened:
                    os.fchmod(opened.fileno(), _MODE)
                    opened.write(content)
                    opened.flush()
                    os.fsync(opened.fileno())
                    if hasattr(os, "posix_fadvise"):
                        # So that reading it back asks the medium and not this machine's memory.
                        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                part.replace(file)
            finally:
                part.unlink(missing_ok=True)
            _sync(file.parent)
        except OSError as error:
            raise Unavailable(f"{file} cannot be written: {error.strerror}") from error

    def _make_directories(self, directory: Path) -> None:
        """Make the directories up to the root, which itself must be there: it is what is mounted."""
        missing: list[Path] = []
        while directory != self._root and not directory.is_dir():
            missing.append(directory)
            directory = directory.parent
        for each in reversed(missing):
            each.mkdir(exist_ok=True)
            _sync(each.parent)

    @staticmethod
    def _make_durable(file: Path) -> None:
        try:
            _sync(file)
            _sync(file.parent)
        except OSError as error:
            raise Unavailable(f"{file} cannot be made durable: {error.strerror}") from error


def _sync(path: Path) -> None:
    """Make a file durable, or what was made or renamed in a directory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
