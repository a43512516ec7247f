from __future__ import annotations

from prometheus_client import generate_latest

from pilot_identity.endpoints.figures import collect


def test_figures_are_told_by_their_names_and_kinds() -> None:
    """A counter, a gauge, and a gauge with a figure for each kind of thing."""
    registry = collect(
        {
            "done_total": ("What was done.", lambda: 3.0),
            "waiting": ("What waits.", lambda: 2.0),
            "found": ("What is found.", lambda: {"missing": 1.0, "stranger": 0.0}),
        }
    )
    lines = generate_latest(registry).decode().splitlines()
    assert {
        "done_total 3.0",
        "waiting 2.0",
        'found{kind="missing"} 1.0',
        'found{kind="stranger"} 0.0',
    } <= set(lines)
