"""Builds the control plane's binary from Go modules, once, and caches it.

The first build on a machine fetches about 600 modules and compiles about 3,000 packages: minutes. The
next call finds the file and returns at once.
"""

from __future__ import annotations

import fcntl
import os
import queue
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from e2e.controlplane.errors import BuildError
from e2e.controlplane.progress import Progress
from e2e.controlplane.recipe import SOURCE, Recipe, cache_directory, environment, recipe

__all__ = ["BuildError", "build", "cached"]

KEPT_LINES = 30  # of Go's own words, for the error


def cached(wanted: Recipe | None = None) -> Path | None:
    """The binary of this recipe, if an earlier run has built it."""
    path = cache_directory() / (wanted or recipe()).file_name
    return path if os.access(path, os.X_OK) else None


def build(wanted: Recipe | None = None, *, progress: Progress | None = None) -> Path:
    """The binary of this recipe; builds it where it is missing, and waits where another process does.

    Raises:
        BuildError: Go is missing or too old, a module cannot be fetched, or the code does not compile.
    """
    wanted = wanted or recipe()
    target = cache_directory() / wanted.file_name
    if found := cached(wanted):
        return found
    progress = progress or Progress(now=time.monotonic)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _lock(target.with_name(f"{target.name}.lock"), progress):
        if found := cached(wanted):  # the process that was waited for has built it
            return found
        _compile(wanted, target, progress)
    return target


def _compile(wanted: Recipe, target: Path, progress: Progress) -> None:
    """Build beside the target and move in place, so that no reader ever sees half a binary."""
    flags = ["-trimpath", "-ldflags", wanted.link_flags]
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    progress.say(
        f"building Kubernetes {wanted.kubernetes_version} with {wanted.go_version}: minutes, but only once"
    )
    try:
        # What a package's cache entry hangs on is known only once its source is here, so this step fetches
        # every module too, and its answer is the exact number of packages that the next step compiles.
        stale = _go(
            [wanted.go, "list", *flags, "-deps", "-f", "{{if .Stale}}{{.ImportPath}}{{end}}", "."],
            on_line=lambda line: progress.fetched() if line.startswith("go: downloading") else None,
            tick=progress.tick,
        )
        progress.to_compile(sum(1 for line in stale if line))
        _go(
            [wanted.go, "build", "-v", *flags, "-o", str(part), "."],
            on_line=lambda _: progress.compiled(),
            tick=progress.tick,
        )
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
        progress.end()
    size = target.stat().st_size / 1e6
    progress.say(f"built {target} ({size:.0f} MB) in {progress.elapsed:.0f} s")


def _go(command: Sequence[str], *, on_line: Callable[[str], None], tick: Callable[[], None]) -> list[str]:
    """Run Go to its end; each line of its stderr goes to `on_line`, `tick` is called about once a second.

    Returns:
        What it wrote on stdout, line by line.
    """
    lines: queue.Queue[str | None] = queue.Queue()
    last_words: deque[str] = deque(maxlen=KEPT_LINES)
    output: list[str] = []
    with subprocess.Popen(
        command, cwd=SOURCE, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        errors, answers = process.stderr, process.stdout

        def read_errors() -> None:
            for line in errors:
                lines.put(line.rstrip())
            lines.put(None)

        readers = [
            threading.Thread(target=read_errors, daemon=True),
            threading.Thread(target=lambda: output.extend(line.rstrip() for line in answers), daemon=True),
        ]
        for reader in readers:
            reader.start()
        try:
            for line in _with_ticks(lines, tick):
                last_words.append(line)
                on_line(line)
        except BaseException:
            process.kill()
            raise
        finally:
            for reader in readers:
                reader.join()
    if process.returncode != 0:
        raise BuildError("`{}` failed:\n{}".format(" ".join(command[:2]), "\n".join(last_words)))
    return output


def _with_ticks(lines: queue.Queue[str | None], tick: Callable[[], None]) -> Iterator[str]:
    """Each line until None; while none comes (the linker is silent for a minute) only ticks."""
    while True:
        try:
            line = lines.get(timeout=1)
        except queue.Empty:
            tick()
            continue
        if line is None:
            return
        yield line
        tick()


@contextmanager
def _lock(path: Path, progress: Progress) -> Iterator[None]:
    """Hold the lock file; the kernel lets go of it when its holder dies, so it is never stale."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.say("another process is building the control plane: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
