"""Seals: what the operator keeps beside the log for its next start, signed by the log's key.

Entries are held to heads that are signed. What a start must know of them is kept in a smaller form beside
them, where whoever can write past the admission policies could change it; so that is signed, too. A seal is
a signed note (C2SP signed-note.md). Its text is no checkpoint, whose second line is a number.
"""

from __future__ import annotations

import base64
import hashlib

from pilot_identity.core.audit.checkpoint import CheckpointError, LogSigner, LogVerifier

_HEADER = "pilotidentity.dev/seal/v1"


def seal(signer: LogSigner, what: str, content: bytes) -> str:
    """Sign that `content` is what the log keeps; `what` says of which entries, and for what."""
    return signer.sign_text(_text(signer.name, what, content))


def is_sealed(note: str, verifier: LogVerifier, what: str, content: bytes) -> bool:
    """Whether a note is the seal of just this."""
    try:
        return verifier.open_text(note) == _text(verifier.name, what, content)
    except CheckpointError:
        return False


def _text(name: str, what: str, content: bytes) -> str:
    digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
    return f"{_HEADER}\n{what} of {name}\n{digest}\n"
