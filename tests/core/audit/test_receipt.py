from __future__ import annotations

import base64
import re

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from pilot_identity.core.audit.checkpoint import Checkpoint, CheckpointError, LogSigner
from pilot_identity.core.audit.merkle import leaf_hash
from pilot_identity.core.audit.proofs import ProofError, Tree
from pilot_identity.core.audit.receipt import MAX_RECEIPT_BYTES, Receipt, ReceiptError

SIGNER = LogSigner("pilots.example.org/log", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
ENTRIES = [f'{{"id":"{number}"}}'.encode() for number in range(11)]
TREE = Tree(leaf_hash(entry) for entry in ENTRIES)
NOTE = SIGNER.sign(Checkpoint(SIGNER.name, TREE.size, TREE.root()))
TEXT = str(Receipt(6, ENTRIES[6], TREE.inclusion(6, TREE.size), NOTE))


@given(st.integers(0, len(ENTRIES) - 1))
def test_writing_and_reading_are_inverse_and_it_verifies(index: int) -> None:
    """Each entry's receipt says where it is, and that the log's key signed that."""
    receipt = Receipt(index, ENTRIES[index], TREE.inclusion(index, TREE.size), NOTE)
    assert Receipt.parse(str(receipt)) == receipt
    assert receipt.verify(SIGNER.verifier()).size == TREE.size


def test_the_file_is_the_specifications() -> None:
    """tlog-proof.md: header, extra, index, one hash a line, an empty line, the checkpoint as it is."""
    lines = TEXT.split("\n")
    assert lines[:3] == [
        "c2sp.org/tlog-proof@v1",
        f"extra {base64.b64encode(ENTRIES[6]).decode()}",
        "index 6",
    ]
    assert [base64.b64decode(line) for line in lines[3:7]] == list(TREE.inclusion(6, TREE.size))
    assert TEXT.endswith(f"\n\n{NOTE}")


BROKEN = {
    "no header": (TEXT.removeprefix("c2sp.org/"), "begins with the line"),
    "another version": (TEXT.replace("@v1", "@v2"), "begins with the line"),
    "no entry": (re.sub("extra .*\n", "", TEXT), "with the entry, and then a line `index`"),
    "no index": (TEXT.replace("index 6\n", ""), "a line `index`"),
    "an index with a zero before": (TEXT.replace("index 6", "index 06"), "a line `index`"),
    "a negative index": (TEXT.replace("index 6", "index -6"), "a line `index`"),
    "no checkpoint": (TEXT.partition("\n\n")[0], "the checkpoint"),
    "an empty checkpoint": (TEXT.partition("\n\n")[0] + "\n\n", "the checkpoint"),
    "an entry that is no base64": (TEXT.replace("extra ", "extra !"), "the extra line is base64"),
    "base64 in another form": (re.sub("extra .*\n", "extra YR==\n", TEXT), "one form"),
    "a short hash": (TEXT.replace("index 6\n", "index 6\nAAAA\n"), "32 bytes"),
    "a path without end": (
        TEXT.replace("index 6\n", "index 6\n" + f"{base64.b64encode(bytes(32)).decode()}\n" * 64),
        "at most 63 hashes",
    ),
    "too large": (TEXT + "x" * MAX_RECEIPT_BYTES, "bytes, got"),
    "an entry too large": (
        re.sub("extra .*\n", f"extra {base64.b64encode(bytes(65_536)).decode()}\n", TEXT),
        "at most 65535 bytes, got 65536",
    ),
}


@pytest.mark.parametrize("text, rule", BROKEN.values(), ids=BROKEN)
def test_what_is_no_receipt_is_refused_by_the_rule(text: str, rule: str) -> None:
    """The message is the rule."""
    with pytest.raises(ReceiptError, match=rule):
        Receipt.parse(text)


@given(st.data())
def test_no_changed_character_is_believed(data: st.DataObject) -> None:
    """Whatever one character is exchanged, the receipt is refused; or it still says the very same."""
    at = data.draw(st.integers(0, len(TEXT) - 1))
    put = data.draw(st.characters(min_codepoint=32, max_codepoint=126))
    text = TEXT[:at] + put + TEXT[at + 1 :]
    try:
        receipt = Receipt.parse(text)
        receipt.verify(SIGNER.verifier())
    except (ReceiptError, CheckpointError, ProofError):
        return
    assert (receipt.index, receipt.entry) == (6, ENTRIES[6])


def test_a_receipt_of_another_log_is_refused() -> None:
    """Its key is not the one that is asked about."""
    other = LogSigner(SIGNER.name, Ed25519PrivateKey.generate())
    with pytest.raises(CheckpointError, match="no valid signature"):
        Receipt.parse(TEXT).verify(other.verifier())


def test_a_receipt_of_another_place_is_refused() -> None:
    """The entry is in the log, but not there."""
    with pytest.raises(ProofError):
        Receipt.parse(TEXT.replace("index 6", "index 7")).verify(SIGNER.verifier())
