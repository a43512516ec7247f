"""Where an export goes, and what of the user's it leaves alone."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from pilot_identity.cli.audit.exporting import Export
from pilot_identity.cli.failures import UsageError
from tests.cli.audit.conftest import Run
from tests.cli.audit.logs import write
from tests.cli.audit.test_commands import entry


@pytest.fixture
def log(tmp_path: Path) -> str:
    """A log of ten entries."""
    return str(write(tmp_path / "log", [entry(number) for number in range(10)]))


def files(directory: Path) -> dict[str, bytes]:
    """All that is in it."""
    found = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in found}


@pytest.mark.parametrize("target", [".", "../here", "new/and/newer"])
def test_an_empty_directory_may_be_where_the_user_stands(
    run: Run, log: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    """It stays the same directory, and nothing else is left in it or beside it."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    before = here.stat().st_ino
    done = run("export", target, "--from", log)
    assert done.exit_code == 0, done.stderr
    assert files((here / target).resolve()) == files(Path(log))
    assert here.stat().st_ino == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "log", "state"]


def test_what_the_user_has_beside_it_is_left(run: Run, log: str, tmp_path: Path) -> None:
    """Whatever it is called."""
    mine = tmp_path / ".copy.part" / "mine"
    mine.parent.mkdir()
    mine.write_text("precious")
    assert run("export", str(tmp_path / "copy"), "--from", log).exit_code == 0
    assert mine.read_text() == "precious"


def test_an_export_is_as_open_as_any_directory(run: Run, log: str, tmp_path: Path) -> None:
    """It is for others to read."""
    plain = tmp_path / "plain"
    plain.mkdir()
    assert run("export", str(tmp_path / "copy"), "--from", log).exit_code == 0
    assert stat.S_IMODE((tmp_path / "copy").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


@pytest.mark.parametrize("target", ["/", "full", "file"])
def test_what_is_there_is_not_written_over(tmp_path: Path, target: str) -> None:
    """Neither a directory with something in it nor a file."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is there already"):
        Export(tmp_path / target)


def test_an_export_that_is_given_up_leaves_an_empty_directory_empty(tmp_path: Path) -> None:
    """As it was."""
    target = tmp_path / "target"
    target.mkdir()
    export = Export(target)
    export.add(entry(0))
    export.abandon()
    assert list(target.iterdir()) == []
