"""`python -m e2e.image`: proves that what the Dockerfile installs starts, without a registry.

The Dockerfile's own COPY and RUN lines are carried out in a scratch directory with this machine's Python in
place of the base image's. Then its entrypoint is started as its user, who may write nowhere, under a
witness that tells of every attempt to write.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path

from e2e.image.dockerfile import DockerfileError, let_through, parse
from e2e.image.scratch import ImageError, ScratchImage
from e2e.installation import ROOT

WITNESS = Path(__file__).parent / "witness"
START_SECONDS = 60
NOWHERE = ("run", "--cluster-wide", "--operator-namespace=pilot-identity-system", "--http-port=0")
NO_SERVER = "found no API server"


def build(root: Path) -> ScratchImage:
    """Carry out the whole Dockerfile."""
    image = ScratchImage(ROOT, root, let_through(ROOT / ".dockerignore"))
    for instruction in parse((ROOT / "Dockerfile").read_text()):
        image.carry_out(instruction)
    return image


def lock(root: Path) -> None:
    """Let everybody read, and nobody write, as in an image with a read-only root file system."""
    root.chmod(0o555)
    for path in root.rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~0o222 | (0o555 if path.is_dir() else 0o444))


def unlock(root: Path) -> None:
    """Let its owner remove it."""
    for path in (root, *root.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)


def facts(root: Path) -> Mapping[Path, int]:
    """Every path and when it was changed."""
    return {path: path.lstat().st_mtime_ns for path in root.rglob("*")}


def start(image: ScratchImage, *arguments: str, exit_code: int, says: str) -> None:
    """Start the entrypoint as the image's user; raise `ImageError` if it ends otherwise or writes."""
    environment = {**image.environment, "PYTHONPATH": str(image.root / "witness"), "HOME": "/nonexistent"}
    command = [*_become(image), *image.entrypoint, *arguments]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=image.root,
        env=environment,
        timeout=START_SECONDS,
        stdin=subprocess.DEVNULL,
    )
    said = f"{done.stdout}{done.stderr}".strip()
    shown = " ".join(("pilot-identity", *arguments))
    if done.returncode != exit_code or says not in said or "Traceback" in said:
        raise ImageError(f"{shown} ended with {done.returncode}, not {exit_code} and {says!r}:\n{said}")
    if "WRITES" in said:
        raise ImageError(f"{shown} tries to write:\n{said}")
    print(f"  {shown} → exit {exit_code}: {said.splitlines()[-1][:300]}", flush=True)


def _become(image: ScratchImage) -> list[str]:
    """How to start something as the image's user; only root can, others stay who they are."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        raise ImageError("setpriv (util-linux) is needed to start something as another user: run this as one")
    user, group = image.user.split(":")
    # This machine's Python may lie in root's home, which the image's user could not even read. This one
    # capability lets it read all; it lets it write nothing.
    reading = ("--inh-caps=-all,+dac_read_search", "--ambient-caps=+dac_read_search")
    return ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", *reading]


def check(root: Path) -> None:
    """Build, lock, start; raise `ImageError` or `DockerfileError` where something is not as it must be."""
    print("carries out the Dockerfile's own lines", flush=True)
    image = build(root)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    witness = root / "witness"
    witness.mkdir()
    (witness / "sitecustomize.py").write_bytes((WITNESS / "sitecustomize.py").read_bytes())
    if image.user.split(":")[0] in {"", "0", "root"}:
        raise ImageError(f"the image runs as {image.user or 'root'}")
    lock(root)
    before = facts(root)
    who = f"as uid {image.user}" if os.geteuid() == 0 else "as you (only root can take the image's uid)"
    print(f"starts its entrypoint {who}; nothing is writable", flush=True)
    try:
        _require_witness(image)
        start(image, "--version", exit_code=0, says=f"pilot-identity {version}")
        start(image, *NOWHERE, exit_code=1, says=NO_SERVER)
    finally:
        changed = {path for path, at in facts(root).items() if before.get(path) != at}
        unlock(root)
    if changed:
        raise ImageError(f"files were changed: {', '.join(map(str, sorted(changed)))}")
    print("  nothing was written, nor tried to be")


def _require_witness(image: ScratchImage) -> None:
    """Make sure that the witness sees what it is there for."""
    attempt = "open('written', 'w')"
    try:
        start(_plain(image), "-c", attempt, exit_code=1, says="WRITES written")
    except ImageError as error:
        if "WRITES written" not in str(error):
            raise ImageError(f"the witness saw nothing of {attempt}: {error}") from error


def _plain(image: ScratchImage) -> ScratchImage:
    """The same image with Python itself as its entrypoint."""
    python = image.entrypoint[:1]
    return ScratchImage(image.context, image.root, image.allowed, image.environment, python, image.user)


def main() -> int:
    """Run the check; returns its exit code."""
    started = time.monotonic()
    # Below /tmp and open to all, so that the image's user gets to it.
    with tempfile.TemporaryDirectory(prefix="pilot-identity-image-") as directory:
        root = Path(directory)
        root.chmod(0o755)
        try:
            check(root)
        except (ImageError, DockerfileError, subprocess.TimeoutExpired) as error:
            print(f"image check failed: {error}", file=sys.stderr)
            return 1
    print(f"the image's contents start; checked in {time.monotonic() - started:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
