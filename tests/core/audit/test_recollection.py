from __future__ import annotations

import base64
import gzip
import json
import os
from typing import Any

import pytest

from pilot_identity.core.audit.entries import decode_entry
from pilot_identity.core.audit.recollection import (
    MAX_PACKED_CHARACTERS,
    Recollection,
    pack,
    recollect,
    unpack,
)


def entry(number: int, **data: Any) -> bytes:
    """One of a bundle's entries."""
    event = {"id": f"{number}", "type": "t", "subject": "TaskGrant a/b", "subjectuid": "u"}
    return json.dumps({**event, "time": "2026-06-01T12:00:00Z", "data": data}).encode()


ENTRIES = [
    entry(0, credential={"id": "one", "issuance": 4}),
    entry(1, revoked={"stage": "sandbox"}),
    *(entry(number) for number in range(2, 256)),
]


def test_packing_and_unpacking_are_inverse() -> None:
    """What a start must know comes back: ids and subjects, announcements, revocations."""
    rows = unpack(pack(ENTRIES))
    assert rows is not None
    assert rows[:3] == [
        Recollection("0", "u", 4),
        Recollection("1", "u", None, {"stage": "sandbox"}),
        Recollection("2", "u"),
    ]
    assert rows == [recollect(decode_entry(one)) for one in ENTRIES]


def test_what_does_not_fit_is_left_out_whole() -> None:
    """Then the entries are read."""
    large = [entry(number, revoked=os.urandom(1000).hex()) for number in range(256)]
    assert pack(large) == ""
    assert unpack("") is None


BOMB = base64.b64encode(gzip.compress(b" " * (100 * MAX_PACKED_CHARACTERS) + b"[]")).decode()


@pytest.mark.parametrize(
    "packed",
    ["?", "aGVsbG8=", pack(ENTRIES)[:-40], pack(ENTRIES[:255]), BOMB],
    ids=["no base64", "no gzip", "cut short", "a row less", "larger than any"],
)
def test_what_is_no_recollection_is_not_believed(packed: str) -> None:
    """Nor unpacked without bound."""
    assert unpack(packed) is None
