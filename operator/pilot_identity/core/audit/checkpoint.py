"""Checkpoints: the log's head, signed (C2SP tlog-checkpoint.md and signed-note.md)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ED25519 = b"\x01"
"""The signature type of signed-note.md that plain Ed25519 has."""
_KEY_ID_BYTES = 4
_HASH_BYTES = 32
_NAME = re.compile(r"[^\s+]+")
_SIGNATURE_LINE = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/=]+)")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_MAX_SIGNATURES = 100


class CheckpointError(ValueError):
    """A checkpoint or its signature is not what it must be; the message is the rule that it breaks."""


def key_id(name: str, public_key: bytes, kind: bytes = ED25519) -> bytes:
    """The key's id: the first four bytes of SHA-256(name ‖ 0x0A ‖ signature type ‖ public key)."""
    return hashlib.sha256(name.encode() + b"\n" + kind + public_key).digest()[:_KEY_ID_BYTES]


def require_name(name: str) -> None:
    """Make sure that a key can have this name.

    Raises:
        CheckpointError: it cannot.
    """
    if _NAME.fullmatch(name) is None:
        raise CheckpointError(f"a key's name has no spaces and no plus sign, got {name!r}")


def split_note(note: str) -> tuple[str, list[str]]:
    """A signed note's text, with its last newline, and its signature lines.

    It refuses what golang.org/x/mod/sumdb/note refuses, so that a note which is taken for good here is one
    for everybody: signed-note.md leaves no room for anything behind the signatures.

    Raises:
        CheckpointError: it is no signed note.
    """
    if _CONTROL.search(note):
        raise CheckpointError("a signed note has no control characters but newlines")
    body, separator, signatures = note.rpartition("\n\n")
    if not separator:
        raise CheckpointError("a signed note has an empty line before its signatures")
    if not signatures.endswith("\n"):
        raise CheckpointError("a signed note ends with a whole line, a signature")
    lines = signatures.removesuffix("\n").split("\n")
    if len(lines) > _MAX_SIGNATURES:
        raise CheckpointError(f"a signed note has at most {_MAX_SIGNATURES} signatures, got {len(lines)}")
    for line in lines:
        if not _is_signature(line):
            raise CheckpointError(f"behind a signed note's text stand signatures alone, got {line[:60]!r}")
    return f"{body}\n", lines


def _is_signature(line: str) -> bool:
    """Whether a line has a name and, in base64, a key's id and at least one more byte."""
    match = _SIGNATURE_LINE.fullmatch(line)
    if match is None:
        return False
    try:
        return len(base64.b64decode(match[2], validate=True)) > _KEY_ID_BYTES
    except binascii.Error:
        return False


def signature_line(name: str, identifier: bytes, signature: bytes) -> str:
    """One signature as a line of a note, with its newline."""
    return f"— {name} {base64.b64encode(identifier + signature).decode()}\n"


def signatures_by(lines: Iterable[str], name: str, identifier: bytes) -> list[bytes]:
    """The signatures of a note that bear a key's name and id; whether they are good is another matter."""
    found: list[bytes] = []
    for line in lines:
        match = _SIGNATURE_LINE.fullmatch(line)
        if match is None or match[1] != name:
            continue
        try:
            signature = base64.b64decode(match[2], validate=True)
        except binascii.Error:
            continue
        if hmac.compare_digest(signature[:_KEY_ID_BYTES], identifier):
            found.append(signature[_KEY_ID_BYTES:])
    return found


def lines_by(lines: Iterable[str], name: str, identifier: bytes) -> str:
    """Those signature lines that bear a key's name and id, each with its newline."""
    return "".join(f"{line}\n" for line in lines if signatures_by([line], name, identifier))


def format_vkey(name: str, public_key: bytes, kind: bytes = ED25519) -> str:
    """A verifier key as published (vkey): name, key id in hex, type and key in base64."""
    encoded = base64.b64encode(kind + public_key).decode()
    return f"{name}+{key_id(name, public_key, kind).hex()}+{encoded}"


def parse_vkey(vkey: str, kind: bytes = ED25519) -> tuple[str, bytes]:
    """Read a vkey of a type whose public keys are Ed25519's; returns the name and the key.

    Raises:
        CheckpointError: it is no such vkey, or its id is not its key's.
    """
    match vkey.strip().split("+", 2):
        case [name, identifier, encoded]:
            try:
                decoded = base64.b64decode(encoded, validate=True)
            except binascii.Error as error:
                raise CheckpointError("a vkey's third part is base64") from error
        case _:
            raise CheckpointError("a vkey is a name, a key id and a key, with plus signs between")
    if decoded[:1] != kind or len(decoded) != 1 + _HASH_BYTES:
        raise CheckpointError(f"the key of a vkey is 0x{kind.hex()} and 32 bytes of Ed25519")
    if identifier != key_id(name, decoded[1:], kind).hex():
        raise CheckpointError("the id of a vkey is the hash of its name and key")
    return name, decoded[1:]


def is_signed(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether an Ed25519 signature is good."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except InvalidSignature:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A head: the first `size` entries of the log `origin` have this root."""

    origin: str
    size: int
    root: bytes

    def body(self) -> str:
        """The text that is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    @classmethod
    def parse_body(cls, text: str) -> Checkpoint:
        """Parse the text that is signed; extension lines are allowed and ignored.

        Raises:
            CheckpointError: it is no checkpoint.
        """
        match text.split("\n"):
            case [origin, size, root, *_] if (
                text.endswith("\n") and origin and re.fullmatch(r"0|[1-9][0-9]{0,17}", size)
            ):
                try:
                    decoded = base64.b64decode(root, validate=True)
                except binascii.Error as error:
                    raise CheckpointError("a checkpoint's third line is base64") from error
                if len(decoded) != _HASH_BYTES:
                    raise CheckpointError(f"a root is {_HASH_BYTES} bytes, got {len(decoded)}")
                return cls(origin, int(size), decoded)
            case _:
                raise CheckpointError("a checkpoint is an origin line, a decimal size line and a root line")


class LogSigner:
    """Signs heads as one named key; the name is the log's origin."""

    def __init__(self, name: str, private_key: Ed25519PrivateKey) -> None:
        require_name(name)
        self.name = name
        self._private_key = private_key
        self._public = private_key.public_key().public_bytes_raw()

    def sign(self, checkpoint: Checkpoint) -> str:
        """Return the signed note of `checkpoint`."""
        return self.sign_text(checkpoint.body())

    def sign_text(self, body: str) -> str:
        """Return the signed note of a text that ends with a newline.

        A text that is no checkpoint must be none to anybody: see `core.audit.seal`.
        """
        signature = self._private_key.sign(body.encode())
        return f"{body}\n{signature_line(self.name, key_id(self.name, self._public), signature)}"

    def verifier(self) -> LogVerifier:
        """The public half."""
        return LogVerifier(self.name, self._public)


class LogVerifier:
    """Verifies heads that one named key signed."""

    def __init__(self, name: str, public_key: bytes) -> None:
        self.name = name
        self._public = public_key

    def __str__(self) -> str:
        """The verifier key as published (vkey)."""
        return format_vkey(self.name, self._public)

    @classmethod
    def parse(cls, vkey: str) -> LogVerifier:
        """Parse a vkey.

        Raises:
            CheckpointError: it is no Ed25519 vkey, or its id is not its key's.
        """
        return cls(*parse_vkey(vkey))

    def open(self, note: str) -> Checkpoint:
        """Verify a signed note and return its checkpoint.

        Signatures by other keys (witnesses) are passed over, as signed-note.md asks. Where this key is named
        more than once, each of its signatures must be good.

        Raises:
            CheckpointError: no signature by this key verifies, or the origin is not this log's.
        """
        checkpoint = Checkpoint.parse_body(self.open_text(note))
        if checkpoint.origin != self.name:
            raise CheckpointError(f"the origin is {self.name!r}, got {checkpoint.origin!r}")
        return checkpoint

    def open_text(self, note: str) -> str:
        """Verify a signed note as `open` does, whatever it says, and return its text.

        Raises:
            CheckpointError: no signature by this key verifies.
        """
        body, lines = split_note(note)
        found = signatures_by(lines, self.name, key_id(self.name, self._public))
        if not found or not all(is_signed(self._public, each, body.encode()) for each in found):
            raise CheckpointError(f"no valid signature by {self.name}")
        return body

    def alone(self, note: str) -> str:
        """The note with no signatures but this key's.

        Raises:
            CheckpointError: it is no signed note.
        """
        body, lines = split_note(note)
        return f"{body}\n{lines_by(lines, self.name, key_id(self.name, self._public))}"
