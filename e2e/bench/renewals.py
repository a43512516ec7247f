"""Renewals: whether ten thousand long tasks get their fresh credentials in time."""

from __future__ import annotations

import asyncio
import datetime as dt
import math
import time
from bisect import bisect_left

from e2e.bench.client import GRANTS, Arrivals, Client
from e2e.bench.measure import percentile
from e2e.bench.results import Results, say

WINDOW_S = 30.0
LONGEST_S = 600.0
PAGE = 500


async def renewals(client: Client, arrivals: Arrivals, results: Results, names: set[str]) -> None:
    """Wait until each was renewed at its time; the rate is that of the busiest half minute."""
    due = {name: at for name, at in (await _due(client)).items() if name in names}
    ahead = max(due.values()) - time.time()
    say(f"renewals of {len(due)} grants; the last is due in {ahead:.0f} s")
    async with asyncio.timeout(max(ahead, 0) + LONGEST_S):
        await arrivals.until_renewed(due)
    at = sorted(arrivals.renewed[name] for name in due)
    late = [arrivals.renewed[name] - due[name] for name in due]
    results.figures["renewals_per_s"] = round(_busiest(at) / WINDOW_S, 1)
    results.figures["renewal_late_ms"] = {
        name: math.ceil(percentile(late, share) * 1000) for name, share in (("p50", 0.5), ("p99", 0.99))
    }


async def _due(client: Client) -> dict[str, float]:
    """When each active grant's credentials are due, in seconds since the epoch."""
    due: dict[str, float] = {}
    token = ""
    while True:
        page = await client.get(f"{GRANTS.format(namespace='bench')}?limit={PAGE}&continue={token}")
        for item in page["items"]:
            status = item.get("status", {})
            if status.get("phase") == "Active":
                due[item["metadata"]["name"]] = dt.datetime.fromisoformat(
                    status["credential"]["renewAt"]
                ).timestamp()
        token = page["metadata"].get("continue", "")
        if not token:
            return due


def _busiest(at: list[float]) -> int:
    """The most that fell into one window."""
    return max(bisect_left(at, start + WINDOW_S) - number for number, start in enumerate(at))
