"""A process that the harness owns: started, paused, killed, restarted, and gone when we are."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path

from e2e.controlplane.errors import ComponentError

__all__ = ["Component", "ComponentError", "Guard"]

START_SECONDS = 60.0  # three on an idle machine of two cores, but CI machines are shared
STOP_SECONDS = 10.0  # between SIGTERM and SIGKILL
POLL_SECONDS = 0.05  # between two questions of readiness
TOLD_LINES = 25  # of the log, in an error


class Guard:
    """Kills a process group as soon as this Python is gone, even by SIGKILL.

    It is a shell that leads the group and reads from a pipe whose only writer we are: when we end, in
    whatever way, the kernel closes the pipe and the shell kills its group. SIGKILL reaches a paused
    (SIGSTOP) process too, which could not look at a pipe itself; and any program can be guarded.
    """

    def __init__(self) -> None:
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", "read -r _; kill -KILL 0"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,  # a terminal's Ctrl-C then reaches us alone, and we end things in order
        )
        self.group = self._shell.pid

    def release(self) -> None:
        """End the group now, and wait until its leader is gone."""
        assert self._shell.stdin is not None
        self._shell.stdin.close()
        self._shell.wait()


@dataclass(eq=False)
class Component:
    """One process, as often as a test wants, and its log.

    Attributes:
        name: What errors call it.
        command: The program and its arguments.
        log: The file that its output is appended to, over restarts.
        environment: Added to ours.
        lifeline: It ends when we do, however we end. Without, it outlives us in a session of its own.
        is_ready: `start` asks until it says yes; None does not wait.
    """

    name: str
    command: Sequence[str]
    log: Path
    _: KW_ONLY
    environment: Mapping[str, str] = field(default_factory=dict)
    lifeline: bool = True
    is_ready: Callable[[], bool] | None = None
    _guard: Guard | None = field(default=None, init=False)
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def pid(self) -> int:
        """The process id, of the present process or of the one that ended last."""
        return self._started().pid

    @property
    def is_running(self) -> bool:
        """Whether the process is there, paused or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How the process ended, negative for a signal; None while it runs and before it ever did."""
        return self._process.poll() if self._process is not None else None

    def start(self) -> None:
        """Start it, and wait until it is ready.

        Raises:
            ComponentError: It runs already; or it ended or was not ready in time, and is not left running.
        """
        self.launch()
        try:
            self.wait_ready()
        except BaseException:
            self.kill()
            raise

    def launch(self) -> None:
        """Start the process, and do not wait.

        Raises:
            ComponentError: It runs already.
        """
        if self.is_running:
            raise ComponentError(f"{self.name} runs already")
        self._guard = Guard() if self.lifeline else None
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                list(self.command),
                env={**os.environ, **self.environment},
                # A pipe that nobody writes to: its end is ours, for programs that watch for it.
                stdin=subprocess.PIPE if self.lifeline else subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=self._guard.group if self._guard else None,
                start_new_session=self._guard is None,
            )

    def wait_ready(self, seconds: float = START_SECONDS) -> None:
        """Wait until it is ready.

        Raises:
            ComponentError: It ended, or was not ready in time; the message ends with its log.
        """
        if self.is_ready is None:
            return
        deadline = time.monotonic() + seconds
        while not self.is_ready():
            try:  # waiting for its end is the pause between two questions, so an end is seen at once
                self.wait(POLL_SECONDS)
            except subprocess.TimeoutExpired:
                if time.monotonic() > deadline:
                    raise ComponentError(
                        f"{self.name} was not ready within {seconds:.0f} s:\n{self.log_tail()}"
                    ) from None
            self.require_running()

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """SIGTERM, and SIGKILL where it has not ended in time; wakes a paused one first. May be repeated."""
        if self.is_running:
            process = self._started()
            process.terminate()
            self.resume()
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.kill()
        self._reap()

    def kill(self) -> None:
        """SIGKILL: what a power cut is to a process. Works on a paused one. May be repeated."""
        if self.is_running:
            self._started().kill()
        self._reap()

    def restart(self) -> None:
        """Stop it in good order, start it again, and wait until it is ready."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: it holds its connections and answers nothing, as a machine that hangs."""
        self._started().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT: as if nothing had been."""
        self._started().send_signal(signal.SIGCONT)

    def wait(self, seconds: float) -> int:
        """Wait until it ends by itself; its exit code.

        Raises:
            subprocess.TimeoutExpired: It still runs.
        """
        return self._started().wait(seconds)

    def require_running(self) -> None:
        """Make sure that it has not ended.

        Raises:
            ComponentError: It has; the message ends with its log.
        """
        if not self.is_running:
            raise ComponentError(f"{self.name} ended with {self.exit_code}:\n{self.log_tail()}")

    def log_tail(self, lines: int = TOLD_LINES) -> str:
        """The last lines of the log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def _reap(self) -> None:
        if self._process is not None:
            self._process.wait()
            if self._process.stdin is not None:
                self._process.stdin.close()
        if self._guard is not None:
            self._guard.release()
            self._guard = None

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ComponentError(f"{self.name} was not started")
        return self._process
