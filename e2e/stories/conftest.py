"""What the stories share: a namespace to play in, and an operator that is put right afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from e2e.admin import Admin
from e2e.audit import watch_groups
from e2e.installation import Installation
from e2e.sightings import Sightings
from e2e.stories.play import Play


@pytest.fixture(scope="session")
def groups(admin: Admin) -> Iterator[Sightings]:
    """Every group of the log, also those that are compacted meanwhile."""
    with watch_groups(admin) as groups:
        yield groups


@pytest.fixture
def play(admin: Admin, groups: Sightings, operator: Installation, namespace: str) -> Iterator[Play]:
    """A namespace of the story's own, under an operator that works; what the story makes goes with it."""
    operator.wait_ready(operator.operator)
    play = Play(admin, namespace, groups)
    yield play
    play.end()
