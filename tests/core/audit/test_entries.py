from __future__ import annotations

import ast
import dataclasses
import datetime as dt
import inspect
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot_identity.core.audit import entries
from pilot_identity.core.audit.entries import (
    MAX_ENTRY_BYTES,
    Entry,
    EntryError,
    EntryType,
    RecordedEntry,
    decode_entry,
    encode_entry,
)
from tests.core.builders import NOW

ENTRY = Entry(
    id="uid-1/closed",
    type=EntryType.GRANT_CLOSED,
    subject="TaskGrant team-a/task-1",
    subject_uid="uid-1",
    time=NOW,
    data={"b": [1, None], "a": "ä"},
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


def test_an_entry_is_one_canonical_cloud_event() -> None:
    """Names in order, no blanks, UTF-8 as it is: the bytes that are hashed into the tree."""
    assert encode_entry(ENTRY, "pilots.example.org/log").decode() == (
        '{"data":{"a":"ä","b":[1,null]},"datacontenttype":"application/json","id":"uid-1/closed",'
        '"source":"pilots.example.org/log","specversion":"1.0","subject":"TaskGrant team-a/task-1",'
        '"subjectuid":"uid-1","time":"2026-06-01T12:00:00.250Z",'
        '"type":"dev.pilotidentity.grant.closed.v1"}'
    )


@given(st.dictionaries(st.text(max_size=5), values, max_size=4), st.sampled_from(EntryType))
def test_decoding_is_the_inverse_of_encoding(data: dict[str, Any], kind: EntryType) -> None:
    """What went into the log comes out of it."""
    entry = dataclasses.replace(ENTRY, data=data, type=kind)
    recorded = decode_entry(encode_entry(entry, "log"))
    assert recorded == RecordedEntry(entry.id, kind.value, entry.subject, entry.subject_uid, NOW, data)


@given(st.dictionaries(st.text(max_size=5), values, max_size=4))
def test_the_encoding_is_one_line_and_the_only_one(data: dict[str, Any]) -> None:
    """The order in which data was put together does not show, and no line break can split an entry."""
    encoded = encode_entry(dataclasses.replace(ENTRY, data=data), "log")
    backwards = dict(reversed(data.items()))
    assert encoded == encode_entry(dataclasses.replace(ENTRY, data=backwards), "log")
    assert b"\n" not in encoded
    assert json.loads(encoded)["data"] == data


def filled(size: int) -> Entry:
    """An entry whose encoding has exactly `size` bytes."""
    empty = dataclasses.replace(ENTRY, data={"x": ""})
    return dataclasses.replace(ENTRY, data={"x": "x" * (size - len(encode_entry(empty, "log")))})


def test_an_entry_is_as_large_as_the_format_allows() -> None:
    """A bundle frames each entry with 16 bits."""
    assert len(encode_entry(filled(MAX_ENTRY_BYTES), "log")) == MAX_ENTRY_BYTES == 65_535


def test_a_larger_entry_is_refused_by_its_id() -> None:
    """One byte more, and the message says which entry and how large."""
    with pytest.raises(EntryError, match=r"at most 65535 bytes, uid-1/closed has 65536"):
        encode_entry(filled(MAX_ENTRY_BYTES + 1), "log")


BROKEN = {
    "not JSON": b"{",
    "no object": b"[]",
    "no subject": b'{"id":"a","type":"b","subjectuid":"c","time":"2026-06-01T12:00:00Z","data":{}}',
    "no uid": b'{"id":"a","type":"b","subject":"c","time":"2026-06-01T12:00:00Z","data":{}}',
    "data that is no object": (
        b'{"id":"a","type":"b","subject":"c","subjectuid":"d","time":"2026-06-01T12:00:00Z","data":1}'
    ),
    "a time that is none": b'{"id":"a","type":"b","subject":"c","subjectuid":"d","time":"noon","data":{}}',
    "bytes that are no text": b'{"id":"\xff"}',
}


@pytest.mark.parametrize("encoded", BROKEN.values(), ids=BROKEN)
def test_what_is_no_entry_is_refused(encoded: bytes) -> None:
    """A log that holds anything else was not written by us."""
    with pytest.raises(EntryError, match="a CloudEvent with a subject and its UID"):
        decode_entry(encoded)


def test_a_moment_is_kept_to_the_millisecond() -> None:
    """Entries say when to the millisecond; what is finer is cut, never rounded up."""
    entry = dataclasses.replace(ENTRY, time=NOW + dt.timedelta(microseconds=999))
    assert decode_entry(encode_entry(entry, "log")).time == NOW


def test_each_type_is_documented_and_named_alike() -> None:
    """A type is reverse-DNS with a version, and a sentence below it says what it tells."""
    tree = ast.parse(inspect.getsource(entries))
    (body,) = (node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "EntryType")
    constants = [node for node in body if isinstance(node, ast.Assign)]
    texts = [node for node in body[1:] if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)]
    assert len(constants) == len(texts) == len(EntryType)
    assert all(kind.startswith("dev.pilotidentity.") and kind.endswith(".v1") for kind in EntryType)
