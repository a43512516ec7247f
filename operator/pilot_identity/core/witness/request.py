"""The request of a log to its witness, and the answers, as tlog-witness.md writes them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from pilot_identity.core.audit.checkpoint import CheckpointError, split_note
from pilot_identity.core.audit.tiles import HASH_BYTES

MAX_REQUEST_BYTES = 131_072
"""A full proof, and a note with sixteen signatures of nearly 5 kB (signed-note.md)."""
MAX_PROOF = 63
MAX_SIGNATURES = 32
"""Each costs a look; signed-note.md asks for sixteen at least."""
_OLD = re.compile(r"old (0|[1-9][0-9]{0,17})")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")


class RequestError(ValueError):
    """A request is not what the protocol asks for; the message is the rule that it breaks."""


def origin_hash(origin: str) -> str:
    """A log's name in paths and keys: SHA-256 of its origin, in hex."""
    return hashlib.sha256(origin.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """Asks for a cosignature on a head.

    Attributes:
        old: the size of the head that the proof begins at, which the witness must have cosigned last.
        proof: that the tree of the note's head begins with the tree at `old`.
        note: the head as the log signed it.
    """

    old: int
    proof: tuple[bytes, ...]
    note: str

    def __str__(self) -> str:
        """The request's body."""
        proof = "".join(f"{base64.b64encode(node).decode()}\n" for node in self.proof)
        return f"old {self.old}\n{proof}\n{self.note}"

    @classmethod
    def parse(cls, body: bytes) -> AddCheckpoint:
        """Read a request's body; the inverse of `str`.

        Raises:
            RequestError: it is none.
        """
        if len(body) > MAX_REQUEST_BYTES:
            raise RequestError(f"a request has at most {MAX_REQUEST_BYTES} bytes, got {len(body)}")
        try:
            text = body.decode()
        except UnicodeDecodeError:
            raise RequestError("a request is UTF-8") from None
        if _CONTROL.search(text):
            raise RequestError("a request has no control characters but newlines")
        head, separator, note = text.partition("\n\n")
        size, *proof = head.split("\n")
        found = _OLD.fullmatch(size)
        if found is None:
            raise RequestError("a request begins with the line: old, a blank, and a size in decimal")
        if not separator or not note.endswith("\n"):
            raise RequestError("a request ends with an empty line and the checkpoint, whose lines all end")
        if len(proof) > MAX_PROOF:
            raise RequestError(f"a consistency proof has at most {MAX_PROOF} lines, got {len(proof)}")
        try:
            _, signatures = split_note(note)
        except CheckpointError as error:
            raise RequestError(str(error)) from error
        if len(signatures) > MAX_SIGNATURES:
            raise RequestError(f"a checkpoint has at most {MAX_SIGNATURES} signatures, got {len(signatures)}")
        return cls(int(found[1]), tuple(_hash(line) for line in proof), note)


def _hash(line: str) -> bytes:
    try:
        decoded = base64.b64decode(line, validate=True)
    except (binascii.Error, ValueError):
        decoded = b""
    if len(decoded) != HASH_BYTES or base64.b64encode(decoded).decode() != line:
        raise RequestError(f"a line of a consistency proof is {HASH_BYTES} bytes in base64")
    return decoded
