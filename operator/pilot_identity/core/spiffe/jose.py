"""The text under JOSE: base64url and JSON, read strictly.

Lenient readers disagree about the same bytes (a name given twice, padding, a stray newline), and what two
readers see differently one of them can be fooled with. Every function here raises `ValueError`.
"""

from __future__ import annotations

import base64
import json
from typing import Any


def encode(octets: bytes) -> str:
    """Write base64url without padding (RFC 7515 §2).

    >>> encode(b"pilot")
    'cGlsb3Q'
    """
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode("ascii")


def decode(text: str) -> bytes:
    """Read base64url without padding; only the one spelling that `encode` writes is read.

    >>> decode("cGlsb3Q")
    b'pilot'
    """
    octets = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if encode(octets) != text:
        raise ValueError("base64url must be unpadded and in its one canonical form")
    return octets


def json_object(text: str | bytes) -> dict[str, Any]:
    """Read a JSON object in which no name appears twice and no number is NaN or infinite."""
    try:
        value = json.loads(text, object_pairs_hook=_unique_names, parse_constant=_refuse_constant)
    except RecursionError as error:
        # The C scanner recurses once for each level of nesting.
        raise ValueError("JSON must not be nested this deeply") from error
    if isinstance(value, dict):
        return value
    raise ValueError("JSON must be an object")


def json_text(value: Any) -> str:
    """Write JSON in one form: names sorted, no spaces, ASCII only."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("JSON names must be unique")
    return found


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"JSON has no {text}")
