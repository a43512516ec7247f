"""How long our finalizer may hold a deleted object."""

from __future__ import annotations

import datetime as dt

from pilot_identity.core.resources.metadata import Metadata

HOLDING_BOUND = dt.timedelta(seconds=60)
"""A deleted object waits so long at most: for its grants to close, for its end to be recorded."""


def is_overdue(metadata: Metadata, now: dt.datetime) -> bool:
    """Whether a deleted object has waited past the bound, and is to be let go whatever fails."""
    since = metadata.deletion_timestamp
    return since is not None and now >= since + HOLDING_BOUND
