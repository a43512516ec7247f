"""`kubectl get configmaps … -o json | python -m e2e.demo.log`: the audit log, checked and listed.

Every group is checked: that it goes on where the one before ended, and that its checkpoint, which the log's
key signed, has the size and root that its entries make.
"""

from __future__ import annotations

import json
import sys

from rich.console import Console
from rich.table import Table

from pilot_identity.core.audit.checkpoint import LogVerifier
from pilot_identity.core.audit.entries import decode_entry
from pilot_identity.core.audit.groups import NAME_PREFIX, Group, follow
from pilot_identity.core.audit.merkle import Frontier

TYPE_PREFIX = "dev.pilotidentity."


def main() -> int:
    """Run the program; returns its exit code."""
    data = {item["metadata"]["name"]: item["data"] for item in json.load(sys.stdin)["items"]}
    verifier = LogVerifier.parse(data["audit-verifier"]["vkey"])
    groups = [Group.from_data(name, data[name]) for name in sorted(data) if name.startswith(NAME_PREFIX)]
    frontier = Frontier()
    table = Table("index", "time", "type", "subject", box=None, pad_edge=False, header_style="bold")
    for group in groups:
        frontier = follow(frontier, group, verifier)
        for offset, encoded in enumerate(group.entries):
            entry = decode_entry(encoded)
            index, kind = group.extends + offset, entry.type.removeprefix(TYPE_PREFIX)
            table.add_row(str(index), f"{entry.time:%H:%M:%S.%f}"[:-3], kind, entry.subject)
    Console(width=110, highlight=False).print(table)
    print(f"{len(groups)} groups: each signed checkpoint verifies against {verifier}")
    print(f"the last one covers {frontier.size} entries, root {frontier.root().hex()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
