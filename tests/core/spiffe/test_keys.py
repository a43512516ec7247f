from __future__ import annotations

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given
from hypothesis import strategies as st

from pilot_identity.core.spiffe import jose, keys

# RFC 7638 §3.1's own example.
RFC_7638_KEY = {
    "kty": "RSA",
    "n": (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc"
        "_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQ"
        "R0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bF"
        "TWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
    ),
    "e": "AQAB",
    "alg": "RS256",
    "kid": "2011-04-29",
}


def test_the_standards_thumbprint() -> None:
    """The key of RFC 7638's example has the thumbprint of RFC 7638's example."""
    assert keys.key_id(keys.key_from_jwk(RFC_7638_KEY)) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


def test_private_keys_survive_pem() -> None:
    """A key is read back as it was written."""
    key = ec.derive_private_key(2, ec.SECP256R1())
    assert keys.parse_private_key_pem(keys.private_key_pem(key)).private_numbers() == key.private_numbers()


def test_other_private_keys_are_refused() -> None:
    """Garbage, another curve and another kind are refused, and never quoted."""
    kinds = (
        ec.derive_private_key(2, ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.from_private_bytes(b"1" * 32),
    )
    for key in kinds:
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        with pytest.raises(ValueError, match="private key must be on P-256"):
            keys.parse_private_key_pem(pem)
    with pytest.raises(ValueError, match=r"^private key must be unencrypted PEM$") as refused:
        keys.parse_private_key_pem(b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n")
    assert refused.value.__cause__ is None


def test_the_public_digest_is_over_the_spki() -> None:
    """`spki_sha256` is what `openssl pkey -pubin -outform DER | sha256sum` says."""
    key = ec.derive_private_key(2, ec.SECP256R1()).public_key()
    body = "".join(keys.public_key_pem(key).decode().splitlines()[1:-1])
    assert keys.spki_sha256(key) == hashlib.sha256(base64.b64decode(body)).hexdigest()


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda it: it.name)
def test_public_keys_survive_jwk(curve: ec.EllipticCurve) -> None:
    """A JWK is read back as the key that it was written from."""
    key = ec.derive_private_key(3, curve).public_key()
    assert keys.key_from_jwk(keys.jwk(key)) == key


def test_weak_and_unknown_jwks_are_refused() -> None:
    """A short modulus, a curve of no standard here and a missing member end with a rule."""
    short = RFC_7638_KEY | {"n": RFC_7638_KEY["n"][:172]}
    for entry in (short, {"kty": "oct", "k": "AA"}, {"kty": "EC", "crv": "P-256"}, {"kty": ["EC"]}, {}):
        with pytest.raises(ValueError, match="JWK must"):
            keys.key_from_jwk(entry)


@given(st.binary())
def test_base64url_is_read_in_one_form(octets: bytes) -> None:
    """What is written is read back; its padded form is not read."""
    text = jose.encode(octets)
    assert jose.decode(text) == octets
    if len(octets) % 3:
        with pytest.raises(ValueError, match="canonical"):
            jose.decode(text + "=" * (-len(text) % 4))


def test_trailing_bits_of_base64url_are_zero() -> None:
    """Two texts never mean the same octets."""
    assert jose.decode("AA") == b"\x00"
    with pytest.raises(ValueError, match="canonical"):
        jose.decode("AB")
