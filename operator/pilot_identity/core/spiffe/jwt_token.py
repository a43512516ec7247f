"""A token taken apart: header, claims, and what a verifier judges them by. Nothing is believed yet."""

from __future__ import annotations

import datetime as dt
import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import serialization

from pilot_identity.core.spiffe import jose, keys
from pilot_identity.core.spiffe.clauses import Clause, SpiffeIdError, SvidError, broken, names
from pilot_identity.core.spiffe.ids import SpiffeId

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography import x509

    from pilot_identity.core.spiffe.bundle import Bundle

MAX_TOKEN_OCTETS = 16 * 1024
_SEPARATORS = 2  # between header, payload and signature
# 9999-12-31T23:59:59Z, the last second that a datetime can tell.
_LAST_SECOND = 253_402_300_799


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a token is judged by."""

    bundle: Bundle
    audience: str
    at: dt.datetime
    leeway: dt.timedelta
    client: x509.Certificate | None


@dataclass(frozen=True, slots=True)
class Presented:
    """A token taken apart, beside what it is judged by."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    signed: bytes
    signature: bytes
    expected: Expectation

    @property
    def key(self) -> keys.VerificationKey | None:
        """The bundle's key of the token's `kid`."""
        kid = self.header.get("kid")
        return self.expected.bundle.jwt_keys.get(kid) if isinstance(kid, str) else None

    @property
    def audiences(self) -> tuple[Any, ...]:
        """The values of `aud`, whichever of its two forms it has."""
        value = self.claims.get("aud")
        return tuple(value) if isinstance(value, list) else (value,)

    @property
    def subject(self) -> SpiffeId | None:
        """The SPIFFE ID in `sub`, if it is one."""
        try:
            return SpiffeId.parse(self.claims["sub"]) if isinstance(self.claims.get("sub"), str) else None
        except SpiffeIdError:
            return None

    def date(self, claim: str) -> dt.datetime | None:
        """A NumericDate claim as a moment; none where it is absent or unusable."""
        value: Any = self.claims.get(claim)
        return dt.datetime.fromtimestamp(value, dt.UTC) if is_numeric_date(value) else None


def certificate_thumbprint(certificate: x509.Certificate) -> str:
    """The certificate's `x5t#S256`: base64url of the SHA-256 of its DER, without padding (RFC 8705 §3.1)."""
    return jose.encode(hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).digest())


def is_numeric_date(value: object) -> bool:
    """Whether this is seconds since 1970 that a datetime can hold (RFC 7519 §2)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value) and 0 <= value <= _LAST_SECOND


BOUNDED: tuple[Clause[str], ...] = (
    # Make sure that a stranger's token costs little to read.
    Clause(
        "Pilot §jwt token-octets",
        f"token must not be larger than {MAX_TOKEN_OCTETS} bytes",
        lambda token: len(token) <= MAX_TOKEN_OCTETS,
    ),
)

COMPACT: Clause[str] = Clause(
    "JWT-SVID §1 compact",
    "token must be a JWS in compact serialization",
    lambda token: token.count(".") == _SEPARATORS,
)

ENCODING: Clause[object] = Clause(
    "RFC 7519 §7.2 encoding",
    "token's parts must be unpadded base64url, its header and payload JSON objects without repeated names",
    lambda _: True,
)

CLAUSES = names(BOUNDED, (COMPACT, ENCODING))


def _json_part(part: str) -> dict[str, Any]:
    return jose.json_object(jose.decode(part).decode("utf-8"))


def _take_apart(token: str) -> tuple[dict[str, Any], dict[str, Any], bytes, bytes]:
    violations = (*broken(BOUNDED, token), *broken((COMPACT,), token))
    if violations:
        raise SvidError(violations)
    header, payload, signature = token.split(".")
    try:
        signed = f"{header}.{payload}".encode("ascii")
        return _json_part(header), _json_part(payload), signed, jose.decode(signature)
    except ValueError as error:
        raise SvidError((ENCODING.violation,)) from error


def read(token: str, expected: Expectation) -> Presented:
    """Take a token apart, or raise `SvidError` where it is not one in compact serialization."""
    header, claims, signed, signature = _take_apart(token)
    return Presented(header, claims, signed, signature, expected)
