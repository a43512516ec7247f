from __future__ import annotations

import datetime as dt
import json
import re
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from pilot_identity.core.audit.checkpoint import (
    Checkpoint,
    CheckpointError,
    LogSigner,
    format_vkey,
    signatures_by,
    split_note,
)
from pilot_identity.core.audit.cosignature import (
    CosignatureVerifier,
    Cosigner,
    join_notes,
    split_notes,
)

STORED = json.loads((Path(__file__).parent / "vectors" / "cosignatures.json").read_text(encoding="utf-8"))
NOTES: dict[str, dict[str, Any]] = STORED["notes"]
LOG = LogSigner("pilots.example.org/log", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
WITNESS = Cosigner("witness.example.org/w1", Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))
AT = dt.datetime(2026, 6, 1, 12, 0, 0, 700_000, tzinfo=dt.UTC)
NOTE = LOG.sign(Checkpoint(LOG.name, 42, bytes(range(32))))


@pytest.mark.parametrize("name", [name for name in NOTES if name.startswith("good")])
def test_a_good_cosignature_tells_its_time(name: str) -> None:
    """Of two by one witness the later counts; the log's own signature is not looked at."""
    at = CosignatureVerifier.parse(STORED["witness"]).cosigned_at(NOTES[name]["note"])
    assert at.isoformat() == NOTES[name]["at"]


@pytest.mark.parametrize("name", [name for name in NOTES if name.startswith("broken")])
def test_a_broken_cosignature_is_refused_by_the_rule(name: str) -> None:
    """Each note is broken in the one way that its name tells."""
    with pytest.raises(CheckpointError, match=re.escape(NOTES[name]["error"])):
        CosignatureVerifier.parse(STORED["witness"]).cosigned_at(NOTES[name]["note"])


def test_what_go_cosigned_verifies() -> None:
    """github.com/transparency-dev/formats made it; its key's id is the one that our hash gives."""
    at = CosignatureVerifier.parse(STORED["go"]).cosigned_at(STORED["made_by_go"])
    assert at.year == 2026
    assert LOG.verifier().open(STORED["made_by_go"]).size == 42


def test_the_specifications_example_is_read() -> None:
    """Its timestamp stands where tlog-cosignature.md says: 1679315147."""
    _, lines = split_note(STORED["specified"])
    (signature,) = signatures_by(lines, "witness.example.com/w1", bytes.fromhex("8d66cf3f"))
    assert int.from_bytes(signature[:8], "big") == 1_679_315_147
    assert len(signature) == 8 + 64


def test_the_same_head_at_the_same_second_is_the_same_line() -> None:
    """One encoding, whatever the fraction of the second."""
    assert NOTE + WITNESS.cosign(NOTE, AT) == NOTES["good"]["note"]
    assert NOTE + WITNESS.cosign(NOTE, AT.replace(microsecond=1)) == NOTES["good"]["note"]
    assert str(WITNESS.verifier()) == STORED["witness"]


@given(st.datetimes(min_value=dt.datetime(1970, 1, 2), timezones=st.just(dt.UTC)))  # noqa: DTZ001 - of a draw
def test_cosigning_and_verifying_are_inverse(at: dt.datetime) -> None:
    """To the second, in any year that a clock can tell."""
    assert WITNESS.verifier().cosigned_at(NOTE + WITNESS.cosign(NOTE, at)) == at.replace(microsecond=0)


def test_a_witnesss_key_is_no_logs_key() -> None:
    """A cosignature is not the log's signature, nor the reverse, even by the same key and name."""
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    both = Cosigner(LOG.name, key)
    with pytest.raises(CheckpointError, match="no cosignature"):
        both.verifier().cosigned_at(NOTE)
    only = f"{split_note(NOTE)[0]}\n{both.cosign(NOTE, AT)}"
    with pytest.raises(CheckpointError, match="no valid signature"):
        LOG.verifier().open(only)
    with pytest.raises(CheckpointError, match="0x04 and 32 bytes"):
        CosignatureVerifier.parse(str(LOG.verifier()))


def test_a_key_that_others_published_is_read() -> None:
    """A public witness's, from the tests of Go's package."""
    vkey = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2"
    assert str(CosignatureVerifier.parse(vkey)) == vkey


def test_a_name_that_no_line_could_hold_is_refused() -> None:
    """In a key as in its making."""
    with pytest.raises(CheckpointError, match="no spaces"):
        Cosigner("a b", Ed25519PrivateKey.generate())
    with pytest.raises(CheckpointError, match="no spaces"):
        CosignatureVerifier.parse(format_vkey("a b", bytes(32), b"\x04"))


def test_only_the_witnesss_own_lines_are_taken_from_an_answer() -> None:
    """A witness may answer with lines of keys that nobody knows."""
    own = WITNESS.cosign(NOTE, AT)
    other = Cosigner("other.example.org", Ed25519PrivateKey.generate()).cosign(NOTE, AT)
    assert WITNESS.verifier().lines_of(other + own + "nonsense\n") == own


@pytest.mark.parametrize("count", range(4))
def test_notes_in_one_file_come_apart_again(count: int) -> None:
    """However many."""
    notes = [
        LOG.sign(Checkpoint(LOG.name, size, bytes(32))) + WITNESS.cosign(NOTE, AT) for size in range(count)
    ]
    assert list(split_notes(join_notes(notes))) == notes


@pytest.mark.parametrize("text", ["x", f"{NOTE}\n", f"{NOTE}{NOTE}", f"\n{NOTE}", f"{NOTE}\nx\n"])
def test_a_file_with_something_else_in_it_is_refused(text: str) -> None:
    """Nothing is passed over."""
    with pytest.raises(CheckpointError, match="one after another"):
        split_notes(text)
