"""The foreign judges: built from pinned Go modules, cached, and asked for their verdict on a directory."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from e2e.controlplane.errors import BuildError
from e2e.controlplane.recipe import cache_directory, digest, environment

SOURCE = Path(__file__).parent / "foreign"
FSCK = "github.com/transparency-dev/tessera/cmd/fsck"
BUILD_SECONDS = 540
RUN_SECONDS = 300
_OBJECTION = re.compile(r"fsck failed: |\):Invalid")


@dataclass(frozen=True, slots=True)
class Judges:
    """The two programs."""

    fsck: Path
    tlog: Path

    def fsck_objection(self, log: Path) -> str:
        """What Tessera's fsck has against an exported log; empty where it accepts it.

        fsck exits with 0 whatever it finds, so its log tells: a failure, or every range of bundles and tiles
        with what became of it.
        """
        command = [str(self.fsck), f"--storage_url={log.as_uri()}/", f"--public_key={log / 'vkey'}"]
        told: list[str] = []
        with subprocess.Popen(
            [*command, "--ui=false", "--logtostderr", "--v=1", "--N=2"], stderr=subprocess.PIPE, text=True
        ) as fsck:
            assert fsck.stderr is not None
            watchdog = threading.Timer(RUN_SECONDS, fsck.kill)
            watchdog.start()
            try:
                for line in fsck.stderr:
                    told.append(line)
                    if _OBJECTION.search(line):
                        # Now and then it hangs after this: its workers wait for each other.
                        fsck.kill()
                        return line.strip()
            finally:
                watchdog.cancel()
        text = "".join(told)
        ranges = re.findall(r"\[\d+, \d+\):(\S+)", text.rpartition("Completed ranges:")[2])
        accepted = fsck.returncode == 0 and bool(ranges) and set(ranges) == {"OK"}
        return "" if accepted else text or f"it ended with {fsck.returncode} and no word"

    def go_objection(self, log: Path) -> str:
        """What Go's note and tlog packages have against it, its receipts and its consistency proofs."""
        done = subprocess.run(
            [self.tlog, "-test.v"],
            env={**os.environ, "AUDIT_LOG": str(log)},
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )
        told = done.stdout + done.stderr
        return "" if done.returncode == 0 and told.count("--- PASS:") == _tests() else told


def judges() -> Judges:
    """The programs; builds them where they are missing, and waits where another process does.

    Raises:
        BuildError: Go is missing, a module cannot be fetched, or the code does not compile.
    """
    go = shutil.which("go")
    if go is None:
        raise BuildError("no `go` on PATH: Tessera's fsck and Go's tlog package are built from their modules")
    version = _run([go, "version"]).encode()
    contents = [(SOURCE / name).read_bytes() for name in ("go.mod", "go.sum", "foreign_test.go")]
    key = digest([version, *contents])
    directory = cache_directory()
    directory.mkdir(parents=True, exist_ok=True)
    made = Judges(directory / f"audit-fsck-{key}", directory / f"audit-tlog-{key}")
    with (directory / "audit-judges.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _build(made.fsck, [go, "build", "-trimpath", "-ldflags=-s -w", "-o", "{}", FSCK])
        _build(made.tlog, [go, "test", "-c", "-trimpath", "-ldflags=-s -w", "-o", "{}", "."])
    return made


def _build(target: Path, command: Sequence[str]) -> None:
    """Build beside the target and move in place, so that no reader ever sees half a binary."""
    if os.access(target, os.X_OK):
        return
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        _run([argument.replace("{}", str(part)) for argument in command])
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(
        command,
        cwd=SOURCE,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    if done.returncode:
        raise BuildError(f"`{' '.join(command[:2])}` failed:\n{done.stderr[-3000:]}")
    return done.stdout


def _tests() -> int:
    """How many verdicts the Go test has to give; one that was skipped would be one too few."""
    return len(
        re.findall(r"^func Test", (SOURCE / "foreign_test.go").read_text(encoding="utf-8"), re.MULTILINE)
    )
