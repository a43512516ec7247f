"""Making JWT-SVIDs: claims, sign, validate what was signed (JWT-SVID.md §2 and §3).

Signatures are deterministic (RFC 6979), as those of certificates are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.utils import der_to_raw_signature

from pilot_identity.core.spiffe import jose
from pilot_identity.core.spiffe.bundle import Bundle
from pilot_identity.core.spiffe.clauses import SvidError
from pilot_identity.core.spiffe.jwt_profile import jwt_svid_violations
from pilot_identity.core.spiffe.jwt_token import certificate_thumbprint

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping

    from pilot_identity.core.spiffe.ids import SpiffeId

__all__ = ["NAMESPACE", "certificate_thumbprint", "issue_token", "sign_compact", "token_octets"]

# The claim under which everything of ours lies, so that it collides with nobody's (RFC 7519 §4.2).
NAMESPACE = "https://pilotidentity.dev/claims"

# What the arguments say is not for `claims` to say again.
RESERVED = frozenset({"iss", "sub", "aud", "exp", "nbf", "iat", "jti"})

# A SHA-256 in base64url, which a key id (RFC 7638) and a certificate's thumbprint (RFC 8705) are.
_THUMBPRINT = "A" * 43
_SIGNATURE_OCTETS = 64  # ES256 (RFC 7518 §3.4)


def issue_token(  # noqa: PLR0913, PLR0917  # time and token id are arguments; a bag for them would hide that
    signing_key: ec.EllipticCurvePrivateKey,
    key_id: str,
    subject: SpiffeId,
    audience: str,
    issued_at: dt.datetime,
    expires_at: dt.datetime,
    token_id: str,
    claims: Mapping[str, Any],
) -> str:
    """Make the JWT-SVID of `subject` for one audience, signed with ES256.

    The times are aware and are cut to whole seconds. `claims` may hold `NAMESPACE`, `authorization_details`
    (RFC 9396) and `cnf` (RFC 8705); a claim that the arguments already say raises `ValueError`. Raises
    `SvidError` where the token would break any clause: nothing that breaks one is ever returned.
    """
    overridden = sorted(RESERVED.intersection(claims))
    if overridden:
        raise ValueError(f"claims must not set {', '.join(overridden)}")
    if issued_at.tzinfo is None or expires_at.tzinfo is None:
        raise ValueError("times must be aware")
    payload = dict(claims) | {
        "sub": subject.uri,
        "aud": audience,
        "iat": int(issued_at.timestamp()),
        "exp": int(expires_at.timestamp()),
        "jti": token_id,
    }
    token = sign_compact({"alg": "ES256", "kid": key_id, "typ": "JWT"}, payload, signing_key)
    bundle = Bundle(subject.trust_domain, (), {key_id: signing_key.public_key()}, sequence=0)
    violations = jwt_svid_violations(token, bundle, audience, issued_at, issued=True)
    if violations:
        raise SvidError(violations)
    return token


def token_octets(
    subject: SpiffeId, audience: str, expires_at: dt.datetime, token_id: str, claims: Mapping[str, Any]
) -> int:
    """How long the token would be that `issue_token` makes of these and of the certificate's thumbprint.

    Exact, since nothing else of a token has a length that varies: times have ten digits until the year 2286.
    What is longer than `jwt_token.MAX_TOKEN_OCTETS` is never issued.
    """
    seconds = int(expires_at.timestamp())
    payload = dict(claims) | {
        "sub": subject.uri,
        "aud": audience,
        "iat": seconds,
        "exp": seconds,
        "jti": token_id,
        "cnf": {"x5t#S256": _THUMBPRINT},
    }
    header = {"alg": "ES256", "kid": _THUMBPRINT, "typ": "JWT"}
    parts = (jose.json_text(header).encode("ascii"), jose.json_text(payload).encode("ascii"))
    return len(".".join(jose.encode(part) for part in (*parts, bytes(_SIGNATURE_OCTETS))))


def sign_compact(
    header: Mapping[str, Any], payload: Mapping[str, Any], key: ec.EllipticCurvePrivateKey
) -> str:
    """Sign a payload as a JWS in compact serialization (RFC 7515 §7.1) with ES256."""
    parts = (jose.encode(jose.json_text(part).encode("ascii")) for part in (header, payload))
    signed = ".".join(parts)
    der = key.sign(signed.encode("ascii"), ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    return f"{signed}.{jose.encode(der_to_raw_signature(der, key.curve))}"
