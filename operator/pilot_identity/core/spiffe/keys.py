"""Keys: P-256 in PEM, public keys as JWKs, and the digests that name them.

We sign with P-256 alone. From others we read every public key that the JWT-SVID algorithms can use: RSA of
2048 to 8192 bits and the three NIST curves. All errors are `ValueError`.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, TypeGuard

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from jwt.exceptions import InvalidKeyError

from pilot_identity.core.spiffe import jose

if TYPE_CHECKING:
    from collections.abc import Mapping

VerificationKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

MIN_RSA_BITS = 2048
MAX_RSA_BITS = 8192  # verifying costs time that the owner of the key decides on

_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
# What RFC 7638 §3.2 hashes, and all that a published key needs.
_MEMBERS = {"EC": ("crv", "kty", "x", "y"), "RSA": ("e", "kty", "n")}


def private_key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Write a private key as unencrypted PKCS #8, the form that every SPIFFE library reads."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def parse_private_key_pem(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Read an unencrypted P-256 private key. Raises `ValueError`, whose message never quotes the input."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (TypeError, ValueError, UnsupportedAlgorithm):
        # The cause may quote the key: it is left out on purpose.
        raise ValueError("private key must be unencrypted PEM") from None
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise ValueError("private key must be on P-256")


def public_key_pem(key: VerificationKey) -> bytes:
    """Write a public key as SubjectPublicKeyInfo in PEM."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def spki_sha256(key: VerificationKey) -> str:
    """SHA-256 of the key's SubjectPublicKeyInfo in DER, as lower-case hex."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def is_strong(key: object) -> TypeGuard[VerificationKey]:
    """Whether this is a public key that we accept anywhere: a NIST curve, or RSA of a sane size."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        return isinstance(key.curve, _CURVES)
    return isinstance(key, rsa.RSAPublicKey) and MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS


def algorithms(key: VerificationKey) -> tuple[str, ...]:
    """What JWT-SVID.md §2.1 lets this key sign with. No key answers to two families, nor to an HMAC."""
    if isinstance(key, rsa.RSAPublicKey):
        return ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
    return {"secp256r1": ("ES256",), "secp384r1": ("ES384",), "secp521r1": ("ES512",)}.get(key.curve.name, ())


def jwk(key: VerificationKey) -> dict[str, str]:
    """The public key as a JWK with its required members only (RFC 7518 §6)."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        full = ECAlgorithm.to_jwk(key, as_dict=True)
    else:
        full = RSAAlgorithm.to_jwk(key, as_dict=True)
    return {name: full[name] for name in _MEMBERS[full["kty"]]}


def key_id(key: VerificationKey) -> str:
    """The key's RFC 7638 SHA-256 thumbprint, which we use as its `kid`."""
    return jose.encode(hashlib.sha256(jose.json_text(jwk(key)).encode("ascii")).digest())


def key_from_jwk(entry: Mapping[str, Any]) -> VerificationKey:
    """Read a JWK's public key; its private members, were there any, are not looked at."""
    members = _MEMBERS.get(entry["kty"]) if isinstance(entry.get("kty"), str) else None
    if members is None:
        raise ValueError("JWK must be of type EC or RSA")
    if not all(isinstance(entry.get(name), str) for name in members):
        raise ValueError(f"JWK must have the members {', '.join(members)}")
    public = {name: entry[name] for name in members}
    try:
        key = (ECAlgorithm if entry["kty"] == "EC" else RSAAlgorithm).from_jwk(public)
    except (InvalidKeyError, ValueError) as error:
        raise ValueError("JWK must hold a public key") from error
    if not isinstance(key, (ec.EllipticCurvePublicKey, rsa.RSAPublicKey)) or not is_strong(key):
        raise ValueError("JWK must hold an RSA key of 2048 to 8192 bits or a key on P-256, P-384 or P-521")
    return key
