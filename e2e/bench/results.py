"""What the benchmark's parts share: figures, many jobs side by side, waiting until all is written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from e2e.installation import Installation

SETTLE_SECONDS = 2.0


@dataclass
class Results:
    """What was measured, under the keys that `results.json` has."""

    figures: dict[str, Any] = field(default_factory=dict)
    writes: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def say(text: str) -> None:
    """Show progress."""
    print(f"bench: {text}", flush=True)


async def many(jobs: Iterable[Callable[[], Awaitable[None]]], concurrency: int) -> float:
    """Do jobs with so many in flight; returns the seconds that all took."""
    waiting = iter(jobs)

    async def worker() -> None:
        for job in waiting:
            await job()

    started = time.perf_counter()
    async with asyncio.TaskGroup() as workers:
        for _ in range(concurrency):
            workers.create_task(worker())
    return time.perf_counter() - started


async def settle(installation: Installation) -> None:
    """Wait until the operator has written what it still has to write, Events too."""
    while True:
        figures = await asyncio.to_thread(installation.metrics, installation.operator)
        if not figures["pilot_identity_events_waiting"] and not figures["pilot_identity_queue_length"]:
            break
        await asyncio.sleep(0.2)  # between two looks
    await asyncio.sleep(SETTLE_SECONDS)  # what is in flight arrives, and the API server counts it
