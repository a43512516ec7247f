"""Checkpoints: the log's head, signed (C2SP tlog-checkpoint.md and signed-note.md)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ED25519 = b"\x01"
"""The signature type of signed-note.md that plain Ed25519 has."""
_KEY_ID_BYTES = 4
_HASH_BYTES = 32
_NAME = re.compile(r"[^\s+]+")
_SIGNATURE_LINE = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/=]+)")


class CheckpointError(ValueError):
    """A checkpoint or its signature is not what it must be; the message is the rule that it breaks."""


def key_id(name: str, public_key: bytes) -> bytes:
    """The key's id: the first four bytes of SHA-256(name ‖ 0x0A ‖ 0x01 ‖ public key)."""
    return hashlib.sha256(name.encode() + b"\n" + ED25519 + public_key).digest()[:_KEY_ID_BYTES]


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
        if _NAME.fullmatch(name) is None:
            raise CheckpointError(f"a key's name has no spaces and no plus sign, got {name!r}")
        self.name = name
        self._private_key = private_key
        self._public = private_key.public_key().public_bytes_raw()

    def sign(self, checkpoint: Checkpoint) -> str:
        """Return the signed note of `checkpoint`."""
        body = checkpoint.body()
        signature = key_id(self.name, self._public) + self._private_key.sign(body.encode())
        return f"{body}\n— {self.name} {base64.b64encode(signature).decode()}\n"

    def verifier(self) -> LogVerifier:
        """The public half."""
        return LogVerifier(self.name, self._public)


class LogVerifier:
    """Verifies heads that one named key signed."""

    def __init__(self, name: str, public_key: bytes) -> None:
        self.name = name
        self._public = public_key

    def __str__(self) -> str:
        """The verifier key as published (vkey): name, key id in hex, type and key in base64."""
        encoded = base64.b64encode(ED25519 + self._public).decode()
        return f"{self.name}+{key_id(self.name, self._public).hex()}+{encoded}"

    @classmethod
    def parse(cls, vkey: str) -> LogVerifier:
        """Parse a vkey.

        Raises:
            CheckpointError: it is no Ed25519 vkey, or its id is not its key's.
        """
        match vkey.strip().split("+", 2):
            case [name, identifier, encoded]:
                try:
                    decoded = base64.b64decode(encoded, validate=True)
                except binascii.Error as error:
                    raise CheckpointError("a vkey's third part is base64") from error
            case _:
                raise CheckpointError("a vkey is a name, a key id and a key, with plus signs between")
        if decoded[:1] != ED25519 or len(decoded) != 1 + _HASH_BYTES:
            raise CheckpointError("the key of a vkey is 0x01 and 32 bytes of Ed25519")
        if identifier != key_id(name, decoded[1:]).hex():
            raise CheckpointError("the id of a vkey is the hash of its name and key")
        return cls(name, decoded[1:])

    def open(self, note: str) -> Checkpoint:
        """Verify a signed note and return its checkpoint.

        Signatures by other keys (witnesses) are passed over, as signed-note.md asks.

        Raises:
            CheckpointError: no signature by this key verifies, or the origin is not this log's.
        """
        body, separator, signatures = note.rpartition("\n\n")
        if not separator:
            raise CheckpointError("a signed note has an empty line before its signatures")
        body += "\n"
        if not any(self._verifies(body, line) for line in signatures.splitlines()):
            raise CheckpointError(f"no valid signature by {self.name}")
        checkpoint = Checkpoint.parse_body(body)
        if checkpoint.origin != self.name:
            raise CheckpointError(f"the origin is {self.name!r}, got {checkpoint.origin!r}")
        return checkpoint

    def _verifies(self, body: str, line: str) -> bool:
        match = _SIGNATURE_LINE.fullmatch(line)
        if match is None or match[1] != self.name:
            return False
        try:
            signature = base64.b64decode(match[2], validate=True)
        except binascii.Error:
            return False
        if not hmac.compare_digest(signature[:_KEY_ID_BYTES], key_id(self.name, self._public)):
            return False
        try:
            Ed25519PublicKey.from_public_bytes(self._public).verify(signature[_KEY_ID_BYTES:], body.encode())
        except InvalidSignature:
            return False
        return True
