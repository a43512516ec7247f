"""`python -m e2e.bench`: run the benchmark, write `results.json` and `results.md`."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from e2e.bench.report import table
from e2e.bench.run import run
from e2e.controlplane.pick import pick
from e2e.installation import Installation

HERE = Path(__file__).parent


def main() -> int:
    """Run the program; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m e2e.bench", description=__doc__)
    parser.add_argument("--kubeconfig", help="a cluster to run on; by default one is started")
    parser.add_argument("--active", type=int, default=10_000, help="active grants for the big figures")
    parser.add_argument("--output", type=Path, default=HERE, help="directory of results.json and results.md")
    chosen = parser.parse_args()
    with pick(chosen.kubeconfig) as cluster:
        installation = Installation(cluster)
        # The stage's own limits are not what is measured.
        limits = "stages.sandbox.limits"
        installation.install(
            *("--set", f"{limits}.activeGrants=10000", "--set", f"{limits}.requestsPerMinute=100000"),
            *("--set-json", 'kubernetesAccess.roles=[{"kind": "ClusterRole", "name": "view"}]'),
        )
        installation.start_operator()
        try:
            results = asyncio.run(run(cluster, installation, active=chosen.active))
        finally:
            installation.stop()
        text = table(results, cluster.why)
    figures = {**results.figures, "writes_per_grant": results.writes}
    (chosen.output / "results.json").write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n")
    (chosen.output / "results.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
