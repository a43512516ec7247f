"""A terminal: runs the real program as a real user of the cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e.controlplane.cluster import Cluster
from e2e.installation import ROOT
from e2e.person import Person

COMMAND_S = 90.0


@dataclass(frozen=True, slots=True)
class Said:
    """What one command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed with `-o json`."""
        return json.loads(self.out)


class Terminal:
    """Where one person types, in one namespace."""

    def __init__(self, cluster: Cluster, person: Person) -> None:
        self.name = person.name
        self._cluster = cluster
        self._namespace = person.namespace
        self._kubeconfig = cluster.user(person.name, *person.groups)

    def process(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the program in the namespace."""
        path = {"PYTHONPATH": f"{ROOT / 'operator'}{os.pathsep}{ROOT}"}
        return subprocess.Popen(
            [sys.executable, "-m", "pilot_identity.cli", *arguments, "-n", self._namespace],
            env=self._cluster.environment(self._kubeconfig) | path,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, stdin: str = "") -> Said:
        """Run the program to its end."""
        process = self.process(*arguments)
        try:
            out, err = process.communicate(stdin, timeout=COMMAND_S)
        finally:
            process.kill()
        return Said(process.returncode, out, err)

    def does(self, *arguments: str, stdin: str = "") -> Said:
        """Run the program, which must succeed."""
        said = self.run(*arguments, stdin=stdin)
        assert said.code == 0, f"kubectl pilot {arguments[0]}: {said}"
        return said


def kept(path: Path, content: bytes) -> str:
    """Keep what was found in a file; returns its name."""
    path.write_bytes(content)
    return str(path)
