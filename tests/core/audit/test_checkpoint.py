from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from pilot_identity.core.audit.checkpoint import Checkpoint, CheckpointError, LogSigner, LogVerifier

STORED = json.loads((Path(__file__).parent / "vectors" / "notes.json").read_text())
NOTES: dict[str, dict[str, Any]] = STORED["notes"]
SIGNER = LogSigner("pilots.example.org/log", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
ROOT = bytes(range(32))

roots = st.binary(min_size=32, max_size=32)
sizes = st.integers(min_value=0, max_value=10**18 - 1)
"""All that at most 18 digits can say."""


@pytest.mark.parametrize("name", [name for name in NOTES if name.startswith("good")])
def test_a_good_note_opens(name: str) -> None:
    """Notes stored long ago still open; signatures of others are passed over."""
    checkpoint = LogVerifier.parse(STORED["verifier"]).open(NOTES[name]["note"])
    assert checkpoint == Checkpoint(SIGNER.name, NOTES[name].get("size", 42), ROOT)


@pytest.mark.parametrize("name", [name for name in NOTES if name.startswith("broken")])
def test_a_broken_note_is_refused_by_the_rule_that_it_breaks(name: str) -> None:
    """Each note is broken in the one way that its name tells."""
    with pytest.raises(CheckpointError, match=re.escape(NOTES[name]["error"])):
        LogVerifier.parse(STORED["verifier"]).open(NOTES[name]["note"])


def test_signatures_are_the_stored_ones() -> None:
    """One canonical encoding: the same head signed again is the same note, byte for byte."""
    assert SIGNER.sign(Checkpoint(SIGNER.name, 42, ROOT)) == NOTES["good"]["note"]
    assert str(SIGNER.verifier()) == STORED["verifier"]


@given(sizes, roots)
def test_signing_and_opening_are_inverse(size: int, root: bytes) -> None:
    """Any head survives the way into a note and back."""
    checkpoint = Checkpoint(SIGNER.name, size, root)
    assert SIGNER.verifier().open(SIGNER.sign(checkpoint)) == checkpoint


@given(sizes, roots)
def test_formatting_and_parsing_are_inverse(size: int, root: bytes) -> None:
    """So do the lines that are signed."""
    checkpoint = Checkpoint(SIGNER.name, size, root)
    assert Checkpoint.parse_body(checkpoint.body()) == checkpoint


@given(st.data())
def test_no_flipped_bit_of_the_text_goes_unseen(data: st.DataObject) -> None:
    """Whatever single bit of the signed lines is turned, the note does not open as another head."""
    note = SIGNER.sign(Checkpoint(SIGNER.name, 42, ROOT)).encode()
    at = data.draw(st.integers(min_value=0, max_value=note.index(b"\n\n")))
    bit = data.draw(st.integers(min_value=0, max_value=6))
    flipped = note[:at] + bytes([note[at] ^ (1 << bit)]) + note[at + 1 :]
    with pytest.raises(CheckpointError):
        SIGNER.verifier().open(flipped.decode(errors="replace"))


def test_a_checkpoint_of_a_body_without_its_last_newline_is_none() -> None:
    """Every line of a checkpoint ends."""
    with pytest.raises(CheckpointError, match="root line"):
        Checkpoint.parse_body(Checkpoint("o", 1, ROOT).body().removesuffix("\n"))


def test_another_origin_is_not_signed_for_silently() -> None:
    """A signer of one log makes a note that no verifier takes for another log's."""
    with pytest.raises(CheckpointError, match="the origin is"):
        SIGNER.verifier().open(SIGNER.sign(Checkpoint("other", 1, ROOT)))


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "a\u00a0b"])
def test_a_key_name_has_no_blanks_and_no_plus(name: str) -> None:
    """signed-note.md: such a name could not be told from its signature or key."""
    with pytest.raises(CheckpointError, match="no spaces and no plus sign"):
        LogSigner(name, Ed25519PrivateKey.generate())


class TestVerifierKey:
    """The published key (vkey)."""

    def test_writing_and_reading_are_inverse(self) -> None:
        """A vkey reads back to a verifier that opens the signer's notes."""
        read = LogVerifier.parse(f"{SIGNER.verifier()}\n")
        assert str(read) == str(SIGNER.verifier())
        assert read.open(NOTES["good"]["note"]).size == 42

    def test_a_key_that_others_published_is_read(self) -> None:
        """The example key of Go's note package has the id that our hash gives it."""
        vkey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
        assert str(LogVerifier.parse(vkey)) == vkey

    BROKEN = {  # noqa: RUF012 - a table of cases
        "two parts": ("name+00000000", "with plus signs between"),
        "nothing": ("", "with plus signs between"),
        "no base64": ("name+00000000+!!!!", "third part is base64"),
        "another algorithm": (
            "name+00000000+Ahpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
            "0x01 and 32 bytes",
        ),
        "a short key": ("name+00000000+ARpc2Q==", "0x01 and 32 bytes"),
        "another name": (
            "PaulNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
            "hash of its name and key",
        ),
        "another id": (
            "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
            "hash of its name and key",
        ),
    }

    @pytest.mark.parametrize("vkey, rule", BROKEN.values(), ids=BROKEN)
    def test_a_broken_key_is_refused_by_the_rule(self, vkey: str, rule: str) -> None:
        """The message is the rule."""
        with pytest.raises(CheckpointError, match=rule):
            LogVerifier.parse(vkey)
