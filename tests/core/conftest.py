"""How hypothesis runs here: a machine that others share says nothing by being slow."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("shared-machine", deadline=None, database=None)
settings.load_profile("shared-machine")
