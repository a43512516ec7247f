"""`python -m e2e.bench`: run the benchmark, write `results.json` and `results.md`."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from e2e.bench import audit
from e2e.bench.report import AUDIT_HEADING, audit_table, table
from e2e.bench.results import Results
from e2e.bench.run import run
from e2e.controlplane.cluster import Cluster
from e2e.controlplane.pick import pick
from e2e.installation import Installation

HERE = Path(__file__).parent


@contextmanager
def _installed(kubeconfig: str | None) -> Iterator[tuple[Cluster, Installation]]:
    """A cluster with the chart and an operator on it; the stage's own limits are not what is measured."""
    with pick(kubeconfig) as cluster:
        installation = Installation(cluster)
        limits = "stages.sandbox.limits"
        installation.install(
            *("--set", f"{limits}.activeGrants=10000", "--set", f"{limits}.requestsPerMinute=100000"),
            *("--set-json", 'kubernetesAccess.roles=[{"kind": "ClusterRole", "name": "view"}]'),
        )
        installation.start_operator()
        try:
            yield cluster, installation
        finally:
            installation.stop()


def _before(path: Path) -> dict[str, Any]:
    """The figures of earlier runs."""
    return dict(json.loads(path.read_text())) if path.exists() else {}


def _write(path: Path, figures: dict[str, Any]) -> None:
    path.write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n")


def main() -> int:
    """Run the program; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m e2e.bench", description=__doc__)
    parser.add_argument("--kubeconfig", help="a cluster to run on; by default one is started")
    parser.add_argument("--active", type=int, default=10_000, help="active grants for the big figures")
    parser.add_argument("--output", type=Path, default=HERE, help="directory of results.json and results.md")
    parser.add_argument(
        "--only", choices=["grants", "audit"], help="only these figures; the others stay as they are"
    )
    parser.add_argument("--no-renewals", action="store_true", help="do not wait for ten thousand renewals")
    chosen = parser.parse_args()
    in_json, in_words = chosen.output / "results.json", chosen.output / "results.md"
    # Each part is written as soon as it is measured: the other may fail, and takes a quarter of an hour.
    if chosen.only != "audit":
        with _installed(chosen.kubeconfig) as (cluster, installation):
            with_renewals = not chosen.no_renewals
            running = run(cluster, installation, active=chosen.active, with_renewals=with_renewals)
            results = asyncio.run(running)
            figures = {**results.figures, "writes_per_grant": results.writes}
            kept = {"audit": _before(in_json)["audit"]} if "audit" in _before(in_json) else {}
            _write(in_json, kept | figures)
            about_audit = in_words.read_text().partition(AUDIT_HEADING)[2] if in_words.exists() else ""
            text = table(results, cluster.why)
            in_words.write_text(text + (f"\n{AUDIT_HEADING}{about_audit}" if about_audit else ""))
    if chosen.only != "grants":
        with _installed(chosen.kubeconfig) as (cluster, installation):
            results = Results()
            asyncio.run(audit.measure(cluster, installation, results))
            _write(in_json, _before(in_json) | results.figures)
            text = in_words.read_text().partition(AUDIT_HEADING)[0].rstrip() if in_words.exists() else ""
            in_words.write_text(f"{text}\n\n{audit_table(results.figures['audit'], cluster.why)}".lstrip())
    print(in_words.read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
