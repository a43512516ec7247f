"""The report: a Markdown table with each bar beside its figure."""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

from e2e.bench.results import Results

WRITES_TO_ISSUE = 3
"""Two objects and an Event: what the rate's bar is divided by."""


def rate_bar(figures: dict[str, Any]) -> float:
    """Grants a second: 100, or 40 % of the raw write rate divided by the writes per grant, the lower."""
    return float(min(100.0, 0.4 * figures["raw_writes_per_s"] / WRITES_TO_ISSUE))


Row = tuple[str, Callable[[dict[str, Any]], str], Callable[[dict[str, Any]], str]]

ROWS: tuple[Row, ...] = (
    ("raw writes a second", lambda f: f"{f['raw_writes_per_s']}", lambda _: "(the run's measure)"),
    ("grants issued a second", lambda f: f"{f['grants_per_s']}", lambda f: f"at least {rate_bar(f):.0f}"),
    (
        "of the raw rate, by its writes",
        lambda f: f"{f['grants_per_s'] * WRITES_TO_ISSUE / f['raw_writes_per_s']:.0%}",
        lambda _: "at least 40 %, or 100 grants a second",
    ),
    ("object writes to issue", lambda f: f"{f['object_writes_per_grant']['issue']}", lambda _: "at most 2"),
    ("object writes to end", lambda f: f"{f['object_writes_per_grant']['end']}", lambda _: "at most 2"),
    (
        "Events to issue, to end",
        lambda f: f"{f['events_per_grant']['issue']}, {f['events_per_grant']['end']}",
        lambda _: "1 each",
    ),
    (
        "audit groups to issue, to end",
        lambda f: f"{f['audit_writes_per_grant']['issue']}, {f['audit_writes_per_grant']['end']}",
        lambda _: "(counted apart)",
    ),
    (
        "create → Secret alone, p50",
        lambda f: f"{f['create_to_secret_ms']['alone']['p50']} ms",
        lambda _: "under 25 ms",
    ),
    (
        "create → Secret alone, p99",
        lambda f: f"{f['create_to_secret_ms']['alone']['p99']} ms",
        lambda _: "under 100 ms",
    ),
    (
        "create → Secret under load, p50, p99",
        lambda f: (
            f"{f['create_to_secret_ms']['load']['p50']} ms, {f['create_to_secret_ms']['load']['p99']} ms"
        ),
        lambda _: "",
    ),
    (
        "operator CPU a grant, to issue, to end",
        lambda f: (
            f"{f['operator_cpu_s_per_grant']['issue'] * 1000:.1f} ms, "
            f"{f['operator_cpu_s_per_grant']['end'] * 1000:.1f} ms"
        ),
        lambda _: "",
    ),
    ("active grants", lambda f: f"{f['active_grants']}", lambda _: ""),
    ("memory with them", lambda f: f"{f['rss_mb_at_10000']} MB", lambda _: "under 250 MB"),
    (
        "requests a minute when idle",
        lambda f: f"{f.get('idle_requests_per_minute', 'not measured')} {f.get('idle_requests', '')}",
        lambda _: "lease renewals and watches only",
    ),
    (
        "killed and restarted, first grant after",
        lambda f: f"{f['restart_ready_s_at_10000']} s",
        lambda _: "within 10 s",
    ),
    (
        "asked → seen to wait for approval, p50, p99",
        lambda f: _both(f["approval_ms"]["asked_to_waiting"]),
        lambda _: "",
    ),
    (
        "approved → Secret, p50, p99",
        lambda f: _both(f["approval_ms"]["approved_to_secret"]),
        lambda _: "(what approvals add, beside the people's own time)",
    ),
    (
        "revoke → first refused request, alone, p50, p99",
        lambda f: _both(f["revoke_to_refused_ms"]["alone"]),
        lambda _: "under 25 ms, under 1 s",
    ),
    (
        "the same with the active grants present",
        lambda f: _both(f["revoke_to_refused_ms"]["at_10000"]),
        lambda _: "under 25 ms, under 1 s",
    ),
    (
        "create → Secret while another namespace asks for the active grants, p50, p99",
        lambda f: _both(f["beside_10000_asked"]["create_to_secret_ms"]),
        lambda _: "p99 under 1 s",
    ),
    (
        "revoke → first refused request then",
        lambda f: _both(f["beside_10000_asked"]["revoke_to_refused_ms"]),
        lambda _: "p99 under 1 s",
    ),
    (
        "pilot with 1,000 active grants suspended, all refused after",
        lambda f: f"{f['suspend_1000_refused_s']} s",
        lambda _: "within 5 s",
    ),
    (
        "object writes of a grant with Kubernetes access, to issue, to end",
        lambda f: (
            f"{f['object_writes_per_kubernetes_grant']['issue']}, "
            f"{f['object_writes_per_kubernetes_grant']['end']}"
        ),
        lambda _: "4 to issue",
    ),
    (
        "renewals a second, in the busiest half minute",
        lambda f: f"{f['renewals_per_s']}",
        lambda _: "67: 10,000 grants with credentials of 5 minutes",
    ),
    (
        "renewal after its time, p50, p99",
        lambda f: _both(f["renewal_late_ms"]),
        lambda _: "",
    ),
)


AUDIT_HEADING = "## Audit log"

AUDIT_ROWS: tuple[Row, ...] = (
    (
        "entries a second, 64 writers, and while compaction goes on",
        lambda f: f"{f['entries_per_s']}, {f['entries_per_s_with_compaction']}",
        lambda _: "2,000",
    ),
    (
        "entries a second of CPU, all of the writer's",
        lambda f: f"{f['entries_per_cpu_s']}",
        lambda _: "2,000",
    ),
    (
        "ConfigMaps written a second, for each entry",
        lambda f: f"{f['configmap_writes_per_s']}, {f['configmap_writes_per_entry']}",
        lambda _: "at most 45 a second",
    ),
    (
        "ConfigMaps deleted a second, behind it",
        lambda f: f"{f['configmap_deletes_per_s']}",
        lambda _: "(counted apart)",
    ),
    (
        "groups not yet deleted when the load ends, and until they are",
        lambda f: f"{f['groups_standing']}, {f['compacted_after_s']} s",
        lambda _: "written in the last 30 s, so at most 1,050; 40 s",
    ),
    ("commit, p50, p99", lambda f: _both(f["commit_ms"]), lambda _: "p99 under 150 ms"),
    ("bytes of an entry", lambda f: f"{f['entry_bytes']}", lambda _: ""),
    (
        "bytes in etcd for each byte of an entry, compacted",
        lambda f: f"{f['etcd_bytes_per_entry_byte']}",
        lambda _: "under 1.5",
    ),
    (
        "verify of 100,000 entries, the whole command",
        lambda f: f"{f['verify_100000_s']} s",
        lambda _: "under 10 s",
    ),
    (
        "log taken up with 100,000 entries",
        lambda f: f"{f['start_with_100000_s']} s",
        lambda _: "under 2 s",
    ),
    (
        "operator's process ready, with a log of few entries and of 100,000",
        lambda f: f"{f['operator_ready_s']} s, {f['operator_ready_with_100000_s']} s",
        lambda _: "",
    ),
    (
        "its memory at most until then, with a log of few entries and of 100,000",
        lambda f: f"{f['operator_peak_mb']} MB, {f['operator_peak_mb_with_100000']} MB",
        lambda _: "",
    ),
)


def audit_table(figures: dict[str, Any], cluster: str) -> str:
    """Write the audit log's table."""
    lines = [
        AUDIT_HEADING,
        "",
        f"Cluster: {cluster}. Machine: {platform.machine()}, Python {platform.python_version()}.",
        "",
        "| what | measured | bar |",
        "|---|---|---|",
        *(f"| {name} | {value(figures)} | {bar(figures)} |" for name, value, bar in AUDIT_ROWS),
    ]
    return "\n".join(lines) + "\n"


def _both(figure: dict[str, float]) -> str:
    return f"{figure['p50']} ms, {figure['p99']} ms"


def _cell(value: Callable[[dict[str, Any]], str], figures: dict[str, Any]) -> str:
    """A figure, or that this run left it out."""
    try:
        return value(figures)
    except KeyError:
        return "not measured"


def table(results: Results, cluster: str) -> str:
    """Write the table, and the writes of one grant by verb and resource."""
    figures = results.figures
    lines = [
        "# Benchmark",
        "",
        f"Cluster: {cluster}. Machine: {platform.machine()}, Python {platform.python_version()}.",
        "",
        "| what | measured | bar |",
        "|---|---|---|",
        *(f"| {name} | {_cell(value, figures)} | {bar(figures)} |" for name, value, bar in ROWS),
        "",
        "API writes for one grant, from the API server's own metrics:",
        "",
        "| request | to issue | to end |",
        "|---|---|---|",
    ]
    issue, end = results.writes["issue"], results.writes["end"]
    lines += [
        f"| {name} | {issue.get(name, 0)} | {end.get(name, 0)} |"
        for name in sorted(issue.keys() | end.keys())
    ]
    lines += ["", *results.notes]
    return "\n".join(lines).rstrip() + "\n"
