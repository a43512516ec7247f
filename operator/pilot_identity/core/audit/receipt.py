"""Receipts: one entry, its place in the log and the signed head, in one file (C2SP tlog-proof.md).

The format leaves open where the entry itself is. Here it is in the `extra` line, so that the file is
complete. That line is not authenticated by itself; it becomes so because the leaf hash is computed from it.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

from pilot_identity.core.audit.checkpoint import Checkpoint, LogVerifier
from pilot_identity.core.audit.entries import MAX_ENTRY_BYTES
from pilot_identity.core.audit.merkle import leaf_hash
from pilot_identity.core.audit.proofs import verify_inclusion
from pilot_identity.core.audit.tiles import HASH_BYTES

HEADER = "c2sp.org/tlog-proof@v1"
MAX_RECEIPT_BYTES = 262_144
"""Room for an entry of the largest size in base64 and a note with far more cosignatures than 16."""
_MAX_PATH = 63
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,17})")


class ReceiptError(ValueError):
    """A file is no receipt; the message is the rule that it breaks."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What shows offline that `entry` is number `index` of the log whose head is `note`."""

    index: int
    entry: bytes
    path: tuple[bytes, ...]
    note: str

    def __str__(self) -> str:
        """The file's text."""
        path = "".join(f"{_encode(node)}\n" for node in self.path)
        return f"{HEADER}\nextra {_encode(self.entry)}\nindex {self.index}\n{path}\n{self.note}"

    @classmethod
    def parse(cls, text: str) -> Receipt:
        """Read a receipt; the inverse of `str`.

        Raises:
            ReceiptError: it is none, or it does not carry its entry.
        """
        if len(text) > MAX_RECEIPT_BYTES:
            raise ReceiptError(f"a receipt has at most {MAX_RECEIPT_BYTES} bytes, got {len(text)}")
        head, separator, note = text.partition("\n\n")
        lines = head.split("\n")
        if lines[0] != HEADER:
            raise ReceiptError(f"a receipt begins with the line {HEADER}")
        if not separator or not note:
            raise ReceiptError("a receipt ends with an empty line and the checkpoint")
        match lines[1:]:
            case [extra, index, *path] if extra.startswith("extra ") and (found := _INDEX.fullmatch(index)):
                entry = _decode(extra.removeprefix("extra "), "the extra line")
            case _:
                raise ReceiptError("a receipt has a line `extra`, with the entry, and then a line `index`")
        if len(entry) > MAX_ENTRY_BYTES:
            raise ReceiptError(f"an entry has at most {MAX_ENTRY_BYTES} bytes, got {len(entry)}")
        if len(path) > _MAX_PATH:
            raise ReceiptError(f"an inclusion path has at most {_MAX_PATH} hashes, got {len(path)}")
        nodes = tuple(_decode(line, "a line of the inclusion path") for line in path)
        if any(len(node) != HASH_BYTES for node in nodes):
            raise ReceiptError(f"a hash of the inclusion path has {HASH_BYTES} bytes")
        return cls(int(found[1]), entry, nodes, note)

    def verify(self, verifier: LogVerifier) -> Checkpoint:
        """Check that the log of `verifier` has the entry at its index; return the head that says so.

        Raises:
            CheckpointError: the head is not signed by the log's key, or is another log's.
            ProofError: the head does not cover this entry at this index.
        """
        checkpoint = verifier.open(self.note)
        verify_inclusion(leaf_hash(self.entry), self.index, checkpoint.size, self.path, checkpoint.root)
        return checkpoint


def _encode(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _decode(text: str, what: str) -> bytes:
    try:
        decoded = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ReceiptError(f"{what} is base64") from error
    if _encode(decoded) != text:
        raise ReceiptError(f"{what} is base64 in its one form")
    return decoded
