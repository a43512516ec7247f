from __future__ import annotations

import math
from enum import StrEnum
from typing import Any

import msgspec
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from pilot_identity.core.audit.canonical import canonical, is_canonical

# No lone surrogates: they are no text (RFC 8785 §3.2.2.2).
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
SCALARS = (
    st.none()
    | st.booleans()
    | TEXT
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=20)


@given(VALUES)
def test_it_is_what_the_rfc_says(value: Any) -> None:
    """Whichever way a value goes."""
    assert canonical(value) == rfc8785.dumps(value)


@given(VALUES)
def test_what_was_made_so_is_known_as_that(value: Any) -> None:
    """Whichever way it is looked at."""
    assert is_canonical(rfc8785.dumps(value))


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1}',
        '{"b":1,"a":2}',
        '{"a":1,"a":1}',
        '{"a":1e2}',
        '{"a":100.0}',
        '{"a":-0}',
        '{"a":-0.0}',
        "[0.10]",
        "[1E400]",
        '{"a":10000000000000000000000}',
        '{"a":"\\u0061"}',
        '{"a":"\\u00e9"}',
        '{"a":"\\/"}',
        '{"a":12345678901234567890}',
        '{"a":[1,9007199254740993]}',
        '{"\uffff":2,"\U00010000":1}',
    ],
)
def test_what_was_made_otherwise_is_known_too(text: str) -> None:
    """Blanks, other orders, other numbers, numbers that no double holds, names beyond the basic plane."""
    try:
        told = is_canonical(text.encode())
    except (rfc8785.CanonicalizationError, msgspec.DecodeError):
        told = False
    assert not told


def test_names_beyond_the_basic_plane_have_one_order() -> None:
    """That of UTF-16, not of code points."""
    assert is_canonical(b'{"a":1e+22,"b":10000000000000000}')
    assert is_canonical('{"\U00010000":1,"\uffff":2}'.encode())


@pytest.mark.parametrize("code", range(0x100))
def test_every_low_character_is_escaped_as_the_rfc_says(code: int) -> None:
    """In values and in names."""
    value = {chr(code): chr(code)}
    assert canonical(value) == rfc8785.dumps(value)


@pytest.mark.parametrize("value", [2**53, -(2**53), math.nan, math.inf, "\ud800", b"bytes", {1: 2}])
def test_what_canonical_json_cannot_say_is_refused(value: Any) -> None:
    """Never written another way instead."""
    for made in (value, [value], {"a": value}):
        with pytest.raises((rfc8785.CanonicalizationError, UnicodeEncodeError)):
            canonical(made)


class Word(StrEnum):
    """A word of the code's own."""

    ONE = "one"


def test_a_word_of_the_code_is_a_string() -> None:
    """It goes the slow way, to the same end."""
    assert canonical({"a": Word.ONE}) == b'{"a":"one"}'
