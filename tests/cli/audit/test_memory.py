from __future__ import annotations

import datetime as dt
from pathlib import Path

from pilot_identity.cli.audit.memory import MAX_SIGHTINGS, Memory, thinned
from pilot_identity.core.audit.arrivals import Sighting
from pilot_identity.core.audit.checkpoint import Checkpoint
from tests.cli.audit.logs import NAME, SIGNER

NOW = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)
MINUTE = dt.timedelta(minutes=1)
LOG = SIGNER.verifier()


def note(size: int) -> str:
    """A signed head."""
    return SIGNER.sign(Checkpoint(NAME, size, bytes(32)))


def test_when_a_size_was_first_seen_stays(tmp_path: Path) -> None:
    """Seeing it again makes it no newer, and a smaller head that is shown later tells nothing."""
    memory = Memory(tmp_path)
    for minute, size in enumerate((4, 4, 9, 6)):
        memory.remember("here", LOG, note(size), NOW + minute * MINUTE)
    assert memory.sightings(LOG) == (Sighting(4, NOW), Sighting(9, NOW + 2 * MINUTE))


def test_what_is_kept_of_sightings_is_bounded() -> None:
    """The first and the newest stay; the file does not grow with each verification."""
    sightings: tuple[Sighting, ...] = ()
    for number in range(10 * MAX_SIGHTINGS):
        sightings = thinned((*sightings, Sighting(number + 1, NOW + number * MINUTE)))
        assert len(sightings) <= MAX_SIGHTINGS
    sizes = [each.size for each in sightings]
    assert (sizes[0], sizes[-1], sizes) == (1, 10 * MAX_SIGHTINGS, sorted(sizes))
