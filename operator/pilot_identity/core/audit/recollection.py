"""Recollection: what a start must know of entries that are compacted, small enough to read it of all of them.

An operator that starts must not record a step twice, must find every credential that was announced and not
confirmed, and must forget no revocation. All three follow from the entries, but a log has too many of them to
be read on every start. So each bundle says beside its entries what of them matters: their ids and subjects,
which of them announce a credential, and what they revoked. It is a copy: where it is missing, or not sealed
by the log's key, the entries themselves are read.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from pilot_identity.core.audit.checkpoint import LogSigner, LogVerifier
from pilot_identity.core.audit.entries import RecordedEntry, decode_entry
from pilot_identity.core.audit.seal import is_sealed, seal
from pilot_identity.core.audit.tiles import WIDTH
from pilot_identity.core.resources.metadata import GROUP

ANNOTATION = f"{GROUP}/recollection"
SEAL_ANNOTATION = f"{GROUP}/recollection-seal"
MAX_PACKED_CHARACTERS = 196_608
"""Three quarters of what all annotations of an object may have together (256 KiB)."""
_MAX_UNPACKED_BYTES = 64 * MAX_PACKED_CHARACTERS
_GZIP = 31


class Recollection(msgspec.Struct, frozen=True, array_like=True):
    """What is kept of one entry.

    Attributes:
        issuance: the number of the credential that it announces; `None` where it announces none.
        revoked: what it says was revoked; `None` where nothing was.
    """

    id: str
    subject_uid: str
    issuance: int | None = None
    revoked: Any = None


def recollect(entry: RecordedEntry) -> Recollection:
    """What is kept of `entry`."""
    credential = entry.data.get("credential")
    return Recollection(
        entry.id,
        entry.subject_uid,
        int(credential["issuance"]) if isinstance(credential, dict) else None,
        entry.data.get("revoked"),
    )


def pack(entries: Iterable[bytes]) -> str:
    """Write down a bundle's recollection; empty where it would not fit into an annotation."""
    rows = [recollect(decode_entry(entry)) for entry in entries]
    compressor = zlib.compressobj(level=6, wbits=_GZIP)
    packed = base64.b64encode(compressor.compress(msgspec.json.encode(rows)) + compressor.flush()).decode()
    return packed if len(packed) <= MAX_PACKED_CHARACTERS else ""


def annotated(first: int, entries: Iterable[bytes], signer: LogSigner) -> dict[str, str]:
    """The annotations of the bundle from `first` on; none where what is kept would not fit."""
    packed = pack(entries)
    if not packed:
        return {}
    return {ANNOTATION: packed, SEAL_ANNOTATION: seal(signer, _what(first), packed.encode())}


def sealed(first: int, found: Mapping[str, str], verifier: LogVerifier) -> str:
    """What the annotations of the bundle from `first` on keep, packed; empty where it is not sealed."""
    packed = found.get(ANNOTATION, "")
    is_ours = is_sealed(found.get(SEAL_ANNOTATION, ""), verifier, _what(first), packed.encode())
    return packed if is_ours else ""


def _what(first: int) -> str:
    return f"the recollection of the {WIDTH} entries from {first} on"


def unpack(packed: str) -> Sequence[Recollection] | None:
    """Read a bundle's recollection back; `None` where it is none, and the entries must be read instead."""
    decompressor = zlib.decompressobj(wbits=_GZIP)
    try:
        plain = decompressor.decompress(base64.b64decode(packed, validate=True), _MAX_UNPACKED_BYTES)
        rows = msgspec.json.decode(plain, type=list[Recollection])
    except (binascii.Error, zlib.error, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return rows if len(rows) == WIDTH else None
