"""`python -m e2e.bench`: run the benchmark, write `results.json` and `results.md`."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from e2e.bench import audit
from e2e.bench.report import AUDIT_HEADING, audit_table, table
from e2e.bench.results import Results
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
    parser.add_argument("--only", choices=["audit"], help="only these figures; the others stay as they are")
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
        results = Results()
        try:
            if chosen.only is None:
                results = asyncio.run(run(cluster, installation, active=chosen.active))
            asyncio.run(audit.measure(cluster, installation, results))
        finally:
            installation.stop()
    in_json, in_words = chosen.output / "results.json", chosen.output / "results.md"
    if chosen.only is None:
        figures, text = {**results.figures, "writes_per_grant": results.writes}, table(results, cluster.why)
    else:
        figures = json.loads(in_json.read_text()) | results.figures
        text = in_words.read_text().partition(AUDIT_HEADING)[0].rstrip() + "\n"
    text += "\n" + audit_table(results.figures["audit"], cluster.why)
    in_json.write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n")
    in_words.write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
