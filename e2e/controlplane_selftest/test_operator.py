from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

from e2e.controlplane import process
from e2e.patience import until

ROOT = Path(__file__).parents[2]


def test_an_operator_beside_the_cluster_ends_when_python_is_killed(tmp_path: Path) -> None:
    """SIGKILL of the parent leaves no etcd, API server, controller manager or operator running."""
    script = textwrap.dedent(f"""
        import threading
        from pathlib import Path
        from e2e.controlplane.build import build
        from e2e.controlplane.cluster import ControlPlane
        from e2e.controlplane.programs import Programs
        from e2e.installation import Installation
        directory = Path({str(tmp_path / "plane")!r})
        plane = ControlPlane(Programs.of_binary(build()), directory=directory).start()
        installation = Installation(plane)
        installation.install()
        components = [*plane.components.values(), installation.start_operator()]
        print(*(component.pid for component in components), flush=True)
        threading.Event().wait()
    """)
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = {pid: process.born(pid) for pid in map(int, parent.stdout.readline().split())}
        assert len(pids) == 4
        assert all(pids.values())
        parent.kill()
    until(lambda: all(process.born(pid) != birth for pid, birth in pids.items()), "all of them have ended")
