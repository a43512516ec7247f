"""Cosignatures: another party's dated word on a head (C2SP tlog-cosignature.md, Ed25519).

A witness that cosigns a head says: at this time, of all heads of this log that I saw, this one is the
largest, and it goes on from all the others. So whoever holds the log's key cannot show anybody another
history under the witness's name.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilot_identity.core.audit.checkpoint import (
    CheckpointError,
    format_vkey,
    is_signed,
    key_id,
    lines_by,
    parse_vkey,
    require_name,
    signature_line,
    signatures_by,
    split_note,
)

COSIGNATURE = b"\x04"
"""The signature type of signed-note.md for timestamped Ed25519 cosignatures."""
_TIME_BYTES = 8
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_LAST_SECOND = 253_402_300_799
"""The end of the year 9999, which `datetime` can tell; the format goes on to 2^63 - 1."""
_NOTE = re.compile(r"(?:[^—\n][^\n]*\n)+\n(?:— [^\n]*\n)+")


class Cosigner:
    """Cosigns heads as one named key, which must sign nothing else."""

    def __init__(self, name: str, private_key: Ed25519PrivateKey) -> None:
        require_name(name)
        self.name = name
        self._private_key = private_key
        self._public = private_key.public_key().public_bytes_raw()

    def cosign(self, note: str, at: dt.datetime) -> str:
        """Return the signature line, with its newline, over the text of a note.

        Whether the note is signed, and the head is to be cosigned, is for the caller to know.

        Args:
            note: a checkpoint as its log signed it.
            at: now; whole seconds are told.

        Raises:
            CheckpointError: it is no signed note.
        """
        body, _ = split_note(note)
        second = (at - _EPOCH) // dt.timedelta(seconds=1)  # a float would round up what is nearly a second
        signature = self._private_key.sign(_message(body, second))
        identifier = key_id(self.name, self._public, COSIGNATURE)
        return signature_line(self.name, identifier, second.to_bytes(_TIME_BYTES, "big") + signature)

    def verifier(self) -> CosignatureVerifier:
        """The public half."""
        return CosignatureVerifier(self.name, self._public)


@dataclass(frozen=True, slots=True)
class CosignatureVerifier:
    """Verifies what one witness cosigned."""

    name: str
    public_key: bytes

    def __str__(self) -> str:
        """The verifier key as published (vkey)."""
        return format_vkey(self.name, self.public_key, COSIGNATURE)

    @property
    def identifier(self) -> bytes:
        """The key's id, four bytes."""
        return key_id(self.name, self.public_key, COSIGNATURE)

    @classmethod
    def parse(cls, vkey: str) -> CosignatureVerifier:
        """Parse a vkey.

        Raises:
            CheckpointError: it is no vkey of Ed25519 cosignatures, or its id is not its key's.
        """
        name, public_key = parse_vkey(vkey, COSIGNATURE)
        require_name(name)
        return cls(name, public_key)

    def cosigned_at(self, note: str) -> dt.datetime:
        """When this witness cosigned a note; the latest time where it did more than once.

        That the log itself signed the note is not looked at here.

        Raises:
            CheckpointError: it did not, or one of the cosignatures in its name is not good.
        """
        body, lines = split_note(note)
        times = [self._time(body, each) for each in signatures_by(lines, self.name, self.identifier)]
        if not times:
            raise CheckpointError(f"no cosignature by {self.name}")
        return max(times)

    def lines_of(self, text: str) -> str:
        """Those lines, each with its newline, that bear this key's name and id; good or not."""
        return lines_by(text.splitlines(), self.name, self.identifier)

    def _time(self, body: str, signature: bytes) -> dt.datetime:
        second = int.from_bytes(signature[:_TIME_BYTES], "big")
        if not 0 < second <= _LAST_SECOND:
            raise CheckpointError(f"a cosignature has a time after 1970 and before 10000, got {second}")
        if not is_signed(self.public_key, signature[_TIME_BYTES:], _message(body, second)):
            raise CheckpointError(f"no valid cosignature by {self.name}")
        return dt.datetime.fromtimestamp(second, dt.UTC)


def join_notes(notes: Iterable[str]) -> str:
    """Several checkpoints in one file, an empty line between them."""
    return "\n".join(notes)


def split_notes(text: str) -> Sequence[str]:
    """The checkpoints of such a file; the inverse of `join_notes`.

    A checkpoint has no empty line in its text, and a signature line begins with a dash that no other line
    begins with, so that where one ends and the next begins can be told.

    Raises:
        CheckpointError: there is something else in it.
    """
    notes = _NOTE.findall(text)
    if join_notes(notes) != text:
        raise CheckpointError("cosigned checkpoints stand one after another with an empty line between")
    return notes


def _message(body: str, second: int) -> bytes:
    """What is signed: a header that no other kind of signature has, the time, and the note's text."""
    return f"cosignature/v1\ntime {second}\n{body}".encode()
