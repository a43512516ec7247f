from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from pilot_identity.adapters.archive import MAX_FILE_BYTES, DirectoryArchive
from pilot_identity.ports import NameTaken, Unavailable

PATH = "tile/entries/x001/002"


async def test_a_file_is_written_once(tmp_path: Path) -> None:
    """Again with the same content it is done; with another it is refused and left."""
    archive = DirectoryArchive(tmp_path)
    assert await archive.read(PATH) is None
    await archive.write_once(PATH, b"one")
    await archive.write_once(PATH, b"one")
    with pytest.raises(NameTaken, match="has another content than the log"):
        await archive.write_once(PATH, b"two")
    assert await archive.read(PATH) == b"one"
    assert stat.S_IMODE((tmp_path / PATH).stat().st_mode) == 0o644


async def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """And nothing else is left beside it."""
    archive = DirectoryArchive(tmp_path)
    await archive.replace("checkpoint", b"one, longer")
    await archive.replace("checkpoint", b"two")
    assert await archive.read("checkpoint") == b"two"
    assert os.listdir(tmp_path) == ["checkpoint"]  # noqa: PTH208 - as short as the others


async def test_a_volume_that_is_not_mounted_is_no_archive(tmp_path: Path) -> None:
    """Its directory is not made: what went there would be lost with the pod."""
    archive = DirectoryArchive(tmp_path / "absent")
    with pytest.raises(Unavailable, match="cannot be written: No such file or directory"):
        await archive.write_once(PATH, b"one")
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("call", ["fsync", "fchmod"])
async def test_what_the_disk_does_not_do_is_told_and_nothing_half_is_left(
    call: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full, read-only or broken, while the file is written."""

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    archive = DirectoryArchive(tmp_path)
    (tmp_path / "tile").mkdir()
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(Unavailable, match=os.strerror(code)):
        await archive.write_once("tile/file", b"one")
    monkeypatch.undo()
    assert list((tmp_path / "tile").iterdir()) == []
    await archive.write_once("tile/file", b"one")


async def test_a_file_that_no_log_has_is_not_read_into_memory(tmp_path: Path) -> None:
    """Whoever can write the volume cannot fill the operator's memory."""
    with (tmp_path / "checkpoint").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(NameTaken, match="no file of a log is that large"):
        await DirectoryArchive(tmp_path).read("checkpoint")


async def test_a_directory_in_the_place_of_a_file_is_told(tmp_path: Path) -> None:
    """It cannot be read, and that is said."""
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(Unavailable, match="cannot be read"):
        await DirectoryArchive(tmp_path).read("checkpoint")
