"""Up to where the log has left the cluster for the archive, in ConfigMaps named by that size.

See `docs/decisions/0018-archive.md`. With the tree's right edge there and the signed head over it, whoever
reads the cluster alone proves all that follows; what lies before is in the archive. Beside them stands what
a start must remember of the entries that left. It goes on in `audit-archived-<size>-1` and so forth where
one ConfigMap is too small; the one without a number is written last and commits them.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from pilot_identity.core.audit.checkpoint import LogSigner, LogVerifier
from pilot_identity.core.audit.compacted import MAX_PART_BYTES
from pilot_identity.core.audit.groups import BrokenLogError
from pilot_identity.core.audit.proofs import join
from pilot_identity.core.audit.recollection import Recollection
from pilot_identity.core.audit.remembered import Kept
from pilot_identity.core.audit.seal import is_sealed, seal
from pilot_identity.core.audit.tiles import HASH_BYTES, WIDTH

NAME_PREFIX = "audit-archived-"
_MAX_PARTS = 32
_MAX_UNPACKED_BYTES = 64 * MAX_PART_BYTES * _MAX_PARTS
_GZIP = 31
_NAME = re.compile(rf"{NAME_PREFIX}(\d{{16}})(?:-([1-9]\d?))?")

Stored = tuple["ArchivedName", Mapping[str, str], Mapping[str, str]]
"""A ConfigMap's name, `data` and `binaryData`."""


class _Row(msgspec.Struct, frozen=True, array_like=True):
    index: int
    row: Recollection


@dataclass(frozen=True, slots=True, order=True)
class ArchivedName:
    """What the ConfigMap's name says: the size up to which the log is archived, and which part it is."""

    size: int
    part: int = 0

    def __str__(self) -> str:
        """The ConfigMap's name.

        >>> str(ArchivedName(512)), str(ArchivedName(512, 1))
        ('audit-archived-0000000000000512', 'audit-archived-0000000000000512-1')
        """
        return f"{NAME_PREFIX}{self.size:016d}" + (f"-{self.part}" if self.part else "")

    @classmethod
    def parse(cls, name: str) -> ArchivedName:
        """Read a name; the inverse of `str`.

        Raises:
            BrokenLogError: it is none.
        """
        match = _NAME.fullmatch(name)
        if match is None or not int(match[1]) or int(match[1]) % WIDTH:
            raise BrokenLogError(f"{name}: what is archived is a multiple of {WIDTH} entries")
        return cls(int(match[1]), int(match[2] or 0))


@dataclass(frozen=True, slots=True)
class Archived:
    """The first `size` entries are in the archive.

    Attributes:
        edge: the tree's right edge there, the largest subtree first.
        note: the signed head there.
        kept: what a start must remember of them.
        seal: what the log's key signed over that: no head covers it.
    """

    size: int
    edge: tuple[bytes, ...]
    note: str
    kept: tuple[Kept, ...] = ()
    seal: str = ""

    def sealed(self, signer: LogSigner) -> Archived:
        """The same, with what is to be remembered signed."""
        return replace(self, seal=seal(signer, self._what, self._plain()))

    def is_sealed(self, verifier: LogVerifier) -> bool:
        """Whether what is to be remembered is what the log's key signed, all of it and in its order."""
        return is_sealed(self.seal, verifier, self._what, self._plain())

    def require_signed(self, verifier: LogVerifier) -> None:
        """Make sure that the edge is that of the signed head.

        Raises:
            BrokenLogError: it is not.
            CheckpointError: the head is not signed by the log's key.
        """
        head = verifier.open(self.note)
        if (head.size, head.root) != (self.size, join(self.edge)):
            raise BrokenLogError(
                f"{ArchivedName(self.size)}: its edge makes root {join(self.edge).hex()}, signed is "
                f"{head.root.hex()} at size {head.size}"
            )

    def config_maps(self) -> Sequence[Stored]:
        """Each ConfigMap in the order in which they are written.

        Raises:
            BrokenLogError: there is more to remember than they can hold.
        """
        compressor = zlib.compressobj(level=6, wbits=_GZIP)
        packed = compressor.compress(self._plain()) + compressor.flush()
        pieces = [packed[at : at + MAX_PART_BYTES] for at in range(0, len(packed), MAX_PART_BYTES)]
        if len(pieces) > _MAX_PARTS:
            raise BrokenLogError(f"what is to be remembered needs {len(pieces)} ConfigMaps of {_MAX_PARTS}")
        encoded = [{"kept.gz": base64.b64encode(piece).decode()} for piece in pieces]
        data = {
            "checkpoint": self.note,
            "edge": "".join(f"{node.hex()}\n" for node in self.edge),
            "parts": str(len(pieces)),
            "seal": self.seal,
        }
        others: list[Stored] = [
            (ArchivedName(self.size, number), {}, binary)
            for number, binary in enumerate(encoded[1:], start=1)
        ]
        return [*others, (ArchivedName(self.size), data, encoded[0])]

    @property
    def _what(self) -> str:
        return f"what is kept of the first {self.size} entries"

    def _plain(self) -> bytes:
        """What is to be remembered, before it is compressed."""
        rows = sorted(self.kept, key=lambda one: (one.row.subject_uid, one.index))
        return msgspec.json.encode([_Row(one.index, one.row) for one in rows])

    @classmethod
    def from_data(cls, name: ArchivedName, data: Mapping[str, str]) -> Archived:
        """Read all but what is to be remembered and its seal, from the ConfigMap without a number.

        Raises:
            BrokenLogError: it is none.
        """
        try:
            edge = tuple(bytes.fromhex(line) for line in data["edge"].splitlines())
            note = data["checkpoint"]
        except (KeyError, ValueError) as error:
            raise BrokenLogError(f"{name}: it has no edge and no signed head: {error!r}") from error
        if len(edge) != name.size.bit_count() or any(len(node) != HASH_BYTES for node in edge):
            raise BrokenLogError(f"{name}: its edge has {name.size.bit_count()} hashes of {HASH_BYTES} bytes")
        return cls(name.size, edge, note)

    @classmethod
    def from_config_maps(cls, stored: Sequence[Stored]) -> Archived:
        """Read it back whole, the inverse of `config_maps`; their order does not matter.

        Raises:
            BrokenLogError: they are not one whole.
        """
        parts = sorted(stored, key=lambda one: one[0])
        name, data, _ = parts[0]
        found = cls.from_data(name, data)
        if data.get("parts") != str(len(parts)) or [it[0].part for it in parts] != list(range(len(parts))):
            raise BrokenLogError(f"{name}: its parts are 0 to {len(parts) - 1}, each once")
        try:
            packed = b"".join(base64.b64decode(it[2]["kept.gz"], validate=True) for it in parts)
            plain = zlib.decompressobj(wbits=_GZIP).decompress(packed, _MAX_UNPACKED_BYTES)
            rows = msgspec.json.decode(plain, type=list[_Row])
        except (KeyError, binascii.Error, zlib.error, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise BrokenLogError(f"{name}: what is to be remembered cannot be read: {error!r}") from error
        kept = tuple(Kept(row.index, row.row) for row in rows)
        return replace(found, kept=kept, seal=data.get("seal", ""))
