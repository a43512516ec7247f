from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest

from pilot_identity.core.audit.particulars import count, mapping, mappings, moment, text, texts

DATA = {
    "text": "words",
    "count": 3,
    "mapping": {"inner": {"text": "deep"}},
    "mappings": [{"text": "one"}, "stray", {"text": "two"}],
    "texts": ["one", 2, "three"],
    "moment": "2026-06-01T12:00:00Z",
    "naive": "2026-06-01T12:00:00",
    "yes": True,
}


def test_what_is_there_is_read() -> None:
    """At any depth; of a list what is of the kind."""
    assert text(DATA, "mapping", "inner", "text") == "deep"
    assert count(DATA, "count") == 3
    assert mapping(DATA, "mapping", "inner") == {"text": "deep"}
    assert [each["text"] for each in mappings(DATA, "mappings")] == ["one", "two"]
    assert texts(DATA, "texts") == ("one", "three")
    assert moment(DATA, "moment") == dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)


NOTHING: dict[str, tuple[Callable[..., Any], Any, tuple[str, ...]]] = {
    "no such text": (text, "", ("absent", "deeper")),
    "a text below a text": (text, "", ("text", "deeper")),
    "a number for a text": (text, "", ("count",)),
    "a text for a number": (count, 0, ("text",)),
    "a truth for a number": (count, 0, ("yes",)),
    "a list for an object": (mapping, {}, ("mappings",)),
    "an object for a list": (mappings, (), ("mapping",)),
    "a text for a list": (texts, (), ("text",)),
    "a text for a time": (moment, None, ("text",)),
    "a time of no zone": (moment, None, ("naive",)),
    "a number for a time": (moment, None, ("count",)),
}


@pytest.mark.parametrize("read, nothing, path", NOTHING.values(), ids=NOTHING)
def test_what_is_not_there_reads_as_nothing(
    read: Callable[..., Any], nothing: object, path: tuple[str, ...]
) -> None:
    """Whatever stands in its place."""
    assert read(DATA, *path) == nothing
