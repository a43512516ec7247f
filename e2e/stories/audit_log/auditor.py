"""The auditor: verifies with `kubectl pilot audit verify`, and holds it to all that was ever committed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from e2e.admin import Admin
from e2e.audit import read_entries
from e2e.controlplane.cluster import Cluster
from e2e.installation import NAMESPACE, ROOT
from e2e.sightings import Sightings
from pilot_identity.core.audit.groups import NAME_PREFIX, Group

SECONDS = 60.0


@dataclass
class Auditor:
    """One with a laptop and a memory.

    Attributes:
        admin: reads the log beside the program.
        home: where the program keeps the head that it saw last.
        groups: what a watch of the log's groups saw, compacted since or not.
    """

    cluster: Cluster
    admin: Admin
    home: Path
    groups: Sightings
    _committed: dict[int, bytes] = field(default_factory=dict)
    _read: int = 0

    def audit(self) -> int:
        """Verify the log, and that it goes on from what was seen and committed; returns its size."""
        committed = self.committed()  # first: what is committed while the log is read may be in it or not
        told = json.loads(self._verify())
        assert told["sound"], told
        assert told["entries"] > max(committed, default=-1), f"entries up to {max(committed)} were there"
        return int(told["entries"])

    def hold(self) -> int:
        """Read every entry: what was ever committed stands where it stood, and nothing stands twice."""
        committed = self.committed()
        entries = read_entries(self.admin)
        for index, entry in committed.items():
            assert entries[index] == entry, f"entry {index} was {entry!r}, is {entries[index]!r}"
        ids = Counter(json.loads(entry)["id"] for entry in entries)
        assert not [one for one, count in ids.items() if count > 1]
        return len(entries)

    def _verify(self) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "pilot_identity.cli", "audit", "verify", "-o", "json", "-n", NAMESPACE],
            env=self.cluster.environment(self.cluster.kubeconfig)
            | {"PYTHONPATH": f"{ROOT / 'operator'}{os.pathsep}{ROOT}", "XDG_STATE_HOME": str(self.home)},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}{done.stderr}"
        return done.stdout

    def committed(self) -> dict[int, bytes]:
        """Every entry that any group ever had, by its index; one index never has two."""
        for seen in self.groups.all()[self._read :]:
            self._read += 1
            if seen.name.startswith(NAME_PREFIX):
                group = Group.from_data(seen.name, _data(seen.object))
                for index, entry in enumerate(group.entries, start=group.extends):
                    assert self._committed.setdefault(index, entry) == entry, f"entry {index} was two entries"
        return self._committed


def _data(item: dict[str, Any]) -> dict[str, str]:
    data: dict[str, str] = item["data"]
    return data
