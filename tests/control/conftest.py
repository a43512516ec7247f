"""What the tests of the loop share."""

from __future__ import annotations

import secrets

import pytest


@pytest.fixture(autouse=True)
def _no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renewals at exactly half the lifetime, so that a story has the same requests each time."""
    monkeypatch.setattr(secrets, "randbelow", lambda bound: bound // 2)
