from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.controlplane import process
from e2e.controlplane.component import Component
from e2e.controlplane.errors import ComponentError

ROOT = Path(__file__).parents[2]
FOREVER = [sys.executable, "-c", "import signal; print('hello', flush=True); signal.pause()"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal\nsignal.signal(15, 1)\nprint('hello', flush=True)\nwhile True: signal.pause()",
]


@pytest.fixture
def component(tmp_path: Path) -> Iterator[Component]:
    """A process that does nothing, and says when it has begun to."""
    log = tmp_path / "log"
    made = Component("idler", FOREVER, log, is_ready=lambda: "hello" in log.read_text())
    yield made
    made.kill()


def state(pid: int) -> str:
    """The kernel's letter for what a process does: S sleeps, T is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_it_starts_and_stops(component: Component) -> None:
    """SIGTERM ends it, the exit code tells."""
    component.start()
    assert component.is_running
    component.stop()
    assert component.exit_code == -signal.SIGTERM


def test_a_restart_is_another_process_with_the_same_log(component: Component) -> None:
    """The log goes on where it was."""
    component.start()
    before = component.pid
    component.restart()
    assert component.pid != before
    assert component.log.read_text().count("hello") >= 1


def test_pausing_holds_nobody_up(component: Component) -> None:
    """SIGSTOP holds nobody up."""
    component.start()
    component.pause()
    os.waitid(os.P_PID, component.pid, os.WSTOPPED | os.WNOWAIT)
    assert state(component.pid) == "T"
    component.resume()
    component.pause()
    component.stop()
    assert component.exit_code == -signal.SIGTERM
    component.start()
    component.pause()
    component.kill()
    assert component.exit_code == -signal.SIGKILL


def test_one_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    """A stop is bounded."""
    log = tmp_path / "log"
    stubborn = Component("stubborn", STUBBORN, log, is_ready=lambda: "hello" in log.read_text())
    stubborn.start()
    stubborn.stop(seconds=0.2)
    assert stubborn.exit_code == -signal.SIGKILL


def test_one_that_ends_before_it_is_ready_shows_its_log(tmp_path: Path) -> None:
    """The error has the exit code and the last words."""
    command = ["/bin/sh", "-c", "echo the port is taken >&2; exit 7"]
    broken = Component("broken", command, tmp_path / "log", is_ready=lambda: False)
    with pytest.raises(ComponentError, match=r"broken ended with 7:\nthe port is taken"):
        broken.start()
    assert not broken.is_running


def test_one_that_is_never_ready_is_not_waited_for_without_end(tmp_path: Path) -> None:
    """The wait is bounded, and the error says by what."""
    slow = Component("slow", FOREVER, tmp_path / "log", is_ready=lambda: False)
    slow.launch()
    with pytest.raises(ComponentError, match="slow was not ready within 0 s"):
        slow.wait_ready(seconds=0.1)
    slow.kill()


def test_starting_twice_is_an_error(component: Component) -> None:
    """Nobody loses sight of a process."""
    component.start()
    with pytest.raises(ComponentError, match="runs already"):
        component.start()


@pytest.mark.parametrize("pause", [False, True], ids=["running", "paused"])
def test_nothing_is_left_when_the_parent_is_killed(tmp_path: Path, *, pause: bool) -> None:
    """SIGKILL of the Python that started it ends it, even where it is paused."""
    script = textwrap.dedent(f"""
        import sys, time
        from pathlib import Path
        from e2e.controlplane.component import Component
        log = Path({str(tmp_path / "log")!r})
        made = Component("idler", {FOREVER!r}, log, is_ready=lambda: "hello" in log.read_text())
        made.start()
        if {pause}:
            made.pause()
        print(made.pid, made._guard.group, flush=True)
        time.sleep(600)
    """)
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:  # noqa: S603 - our own words
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        births = [process.born(pid) for pid in pids]
        assert all(births)
        parent.kill()
    for pid, birth in zip(pids, births, strict=True):
        wait_gone(pid, birth)


def wait_gone(pid: int, birth: str | None) -> None:
    """Wait for the end of a process that is not our child."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ended, _, _ = select.select([handle], [], [], 10)
    finally:
        os.close(handle)
    assert ended or process.born(pid) != birth, f"process {pid} is left running"
