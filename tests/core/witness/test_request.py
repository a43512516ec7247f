from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from pilot_identity.core.audit.checkpoint import Checkpoint, LogSigner
from pilot_identity.core.witness.request import (
    MAX_PROOF,
    MAX_REQUEST_BYTES,
    AddCheckpoint,
    RequestError,
    origin_hash,
)

NOTE = LogSigner("pilots.example.org/log", Ed25519PrivateKey.from_private_bytes(bytes(range(32)))).sign(
    Checkpoint("pilots.example.org/log", 42, bytes(32))
)
LINE = base64.b64encode(bytes(32)).decode()
SPECIFIED = """old 20852014
PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=
5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=
/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=

example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
— example.com/behind-the-sofa opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49/V6267UEjw6QUXTS5Rovnzv++qbSzm9Q=
"""  # noqa: E501 - of tlog-witness.md, as it stands there


def test_the_specifications_example_is_read() -> None:
    """And written again, byte for byte."""
    asked = AddCheckpoint.parse(SPECIFIED.encode())
    assert (asked.old, len(asked.proof)) == (20_852_014, 4)
    assert asked.note.startswith("example.com/behind-the-sofa\n20852163\n")
    assert str(asked) == SPECIFIED


@given(
    st.integers(0, 10**18 - 1), st.lists(st.binary(min_size=32, max_size=32), max_size=MAX_PROOF).map(tuple)
)
def test_writing_and_reading_are_inverse(old: int, proof: tuple[bytes, ...]) -> None:
    """Whatever is asked."""
    asked = AddCheckpoint(old, proof, NOTE)
    assert AddCheckpoint.parse(str(asked).encode()) == asked


BROKEN = {
    "nothing": ("", "begins with the line"),
    "no old size": (f"\n{NOTE}", "begins with the line"),
    "a size with a zero before": (f"old 01\n\n{NOTE}", "begins with the line"),
    "a negative size": (f"old -1\n\n{NOTE}", "begins with the line"),
    "a size of 19 digits": (f"old {10**18}\n\n{NOTE}", "begins with the line"),
    "two blanks": (f"old  1\n\n{NOTE}", "begins with the line"),
    "a carriage return": (f"old 1\r\n\n{NOTE}", "no control characters"),
    "a tab in the note": (f"old 1\n\n{NOTE}".replace("— ", "—\t"), "no control characters"),
    "no checkpoint": ("old 1\n", "ends with an empty line and the checkpoint"),
    "an unfinished line": (f"old 1\n\n{NOTE}".removesuffix("\n"), "whose lines all end"),
    "a checkpoint without signatures": ("old 1\n\na\n1\nb\n", "an empty line before its signatures"),
    "a proof line that is no base64": (f"old 1\n!{LINE}\n\n{NOTE}", "32 bytes in base64"),
    "a short hash": (f"old 1\nAAAA\n\n{NOTE}", "32 bytes in base64"),
    "base64 in another form": (f"old 1\n{LINE[:-2]}B=\n\n{NOTE}", "32 bytes in base64"),
    "a proof too long": (f"old 1\n{f'{LINE}{chr(10)}' * 64}\n{NOTE}", "at most 63 lines, got 64"),
    "too many signatures": (f"old 1\n\n{NOTE}" + "— a AAAAAAA=\n" * 32, "at most 32 signatures"),
    "too large": (f"old 1\n\n{NOTE}" + "x" * MAX_REQUEST_BYTES, "at most 131072 bytes"),
}


@pytest.mark.parametrize("text, rule", BROKEN.values(), ids=BROKEN)
def test_what_is_no_request_is_refused_by_the_rule(text: str, rule: str) -> None:
    """The message is the rule."""
    with pytest.raises(RequestError, match=rule):
        AddCheckpoint.parse(text.encode())


def test_bytes_that_are_no_text_are_refused() -> None:
    """Likewise."""
    with pytest.raises(RequestError, match="UTF-8"):
        AddCheckpoint.parse(b"old 1\n\xff\n\n" + NOTE.encode())


def test_a_log_is_named_by_the_hash_of_its_origin() -> None:
    """As `sha256sum` tells it."""
    assert origin_hash("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
