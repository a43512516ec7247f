"""Limits: what is too much or too fast waits in line, is told so, and is never dropped."""

from __future__ import annotations

from e2e.patience import until
from e2e.stories.cast import change
from e2e.stories.play import Play, moment


def test_what_is_too_much_waits_for_room(play: Play) -> None:
    """One at a time: each end lets the next in line in, until all had their turn."""
    play.ready_pilot("triage")
    change(play.admin, play, limits={"activeGrants": 1})
    try:
        play.ask("first", "triage")
        play.phase("first", "Active")
        names = {f"next-{number}" for number in range(4)}
        for name in names:
            play.ask(name, "triage")
            told = play.condition(play.grants(name), "Ready", reason="LimitReached")
            assert "has 1 active grants, stage 'sandbox' allows 1" in told["message"]

        def active() -> set[str]:
            phases = {name: play.status(play.grants(name)).get("phase") for name in names}
            return {name for name, phase in phases.items() if phase == "Active"}

        done = "first"
        while names:
            play.admin.patch(play.grants(done), {"spec": {"completed": True}})
            (done,) = until(active, f"one of {sorted(names)} has its turn")
            names.remove(done)
    finally:
        change(play.admin, play, limits={"activeGrants": 1000})


def test_what_is_too_fast_waits_for_the_minute(play: Play) -> None:
    """The first that lapses from the minute lets the one in line in, not a minute later and not before."""
    play.ready_pilot("triage")
    change(play.admin, play, limits={"requestsPerMinute": 1})
    try:
        play.ask("first", "triage")
        first = play.phase("first", "Active")
        play.ask("second", "triage")
        told = play.condition(play.grants("second"), "Ready", reason="LimitReached")
        assert "allows 1; this one is issued when the minute is over" in told["message"]
        second = play.phase("second", "Active", seconds=75)
        apart = moment(second["status"]["issuedAt"]) - moment(first["status"]["issuedAt"])
        assert 60 <= apart < 65
    finally:
        change(play.admin, play, limits={"requestsPerMinute": 100000})
