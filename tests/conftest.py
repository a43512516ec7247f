"""What all unit tests share: the interpreter."""

from __future__ import annotations

import gc


def pytest_collection_finish() -> None:
    """Keep what was imported and collected out of every later look for garbage: it stays to the end."""
    gc.collect()
    gc.freeze()
