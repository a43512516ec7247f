"""A control plane that stays when we go: `make cluster`."""

from __future__ import annotations

import fcntl
import json
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from e2e.controlplane import process
from e2e.controlplane.cluster import ControlPlane
from e2e.controlplane.component import Component
from e2e.controlplane.programs import Programs


@dataclass(frozen=True)
class State:
    """What is remembered of a lasting control plane.

    Attributes:
        directory: Where it lies.
        server: The API server's URL.
        started: RFC 3339.
        processes: By name, the process id and when it was born.
        logs: By name.
    """

    directory: str
    server: str
    started: str
    processes: dict[str, tuple[int, str | None]] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """What was written; None where nothing was, or something else."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def write(self, path: Path) -> None:
        """Replace what was written, whole."""
        part = path.with_suffix(".part")
        part.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")
        part.replace(path)

    @property
    def kubeconfig(self) -> Path:
        """The admin's."""
        return Path(self.directory) / "admin.kubeconfig"

    @property
    def programs(self) -> Path:
        """The directory of kubectl, helm and the components, for a PATH."""
        return Path(self.directory) / "bin"

    @property
    def living(self) -> set[str]:
        """The names of those that still run."""
        return {name for name, (pid, birth) in self.processes.items() if birth and process.born(pid) == birth}

    @property
    def is_whole(self) -> bool:
        """Whether all that was started still runs."""
        return bool(self.processes) and self.living == self.processes.keys()


class Lasting:
    """The one control plane of this user that outlives the command which started it.

    Args:
        cache: Where its state file, lock and data are.
    """

    def __init__(self, cache: Path) -> None:
        self._state = cache / "cluster.json"
        self._lock = cache / "cluster.lock"
        self._directory = cache / "cluster"

    def status(self) -> State | None:
        """What is known of it; its `living` tells what is left."""
        return State.read(self._state)

    def up(
        self, programs: Callable[[], Programs], furnish: Callable[[ControlPlane], Mapping[str, Component]]
    ) -> tuple[State, bool]:
        """The running one, and whether this call started it. One that lost a process is replaced.

        Args:
            programs: What to run; asked only where something is to be run.
            furnish: Installs what belongs on it, and answers with the processes that it started.

        Raises:
            ClusterError: It does not start; nothing of it is left.
        """
        with self._locked():
            known = self.status()
            if known is not None and known.is_whole:
                return known, False
            self._end(known)
            plane = ControlPlane(programs(), directory=self._directory, detached=True)
            try:
                plane.start()
                state = self._remember(plane, furnish(plane))
            except BaseException:
                plane.stop()
                self._end(self.status())
                raise
            return state, True

    def down(self) -> set[str]:
        """End it and remove its data; the names of the processes that were still running."""
        with self._locked():
            known = self.status()
            living = known.living if known is not None else set[str]()
            self._end(known)
            return living

    def _remember(self, plane: ControlPlane, others: Mapping[str, Component]) -> State:
        components = {**plane.components, **others}
        state = State(
            directory=str(self._directory),
            server=plane.server,
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            processes={name: (each.pid, process.born(each.pid)) for name, each in components.items()},
            logs={name: str(each.log) for name, each in components.items()},
        )
        state.write(self._state)
        return state

    def _end(self, known: State | None) -> None:
        if known is not None:
            for pid, birth in reversed(known.processes.values()):
                process.end(pid, birth)
        self._state.unlink(missing_ok=True)
        shutil.rmtree(self._directory, ignore_errors=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        with self._lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def export_line(kubeconfig: Path, programs: Path) -> str:
    """A line that makes a shell's kubectl and helm speak to a cluster, and find `kubectl pilot`."""
    path = f'{shlex.quote(str(programs))}:"$PATH":{shlex.quote(str(Path(sys.executable).parent))}'
    return f"export KUBECONFIG={shlex.quote(str(kubeconfig))} PATH={path}"
