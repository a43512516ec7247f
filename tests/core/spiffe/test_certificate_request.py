"""Certificate requests: what is taken from them, and which are refused by which rule."""

from __future__ import annotations

import base64
import math
import time
from collections.abc import Mapping

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pilot_identity.core.spiffe import certificate_request
from pilot_identity.core.spiffe.certificate_request import (
    CLAUSES,
    MAX_REQUEST_OCTETS,
    CertificateRequestError,
    requested_key,
)

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
EC_KEY = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(65537, 2048)


def pem_of(key: PrivateKey = EC_KEY, digest: hashes.SHA224 | hashes.SHA256 | None = None) -> str:
    """A request for nothing in particular."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    signed = builder.sign(
        key, None if isinstance(key, ed25519.Ed25519PrivateKey) else digest or hashes.SHA256()
    )
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def with_key(public_key: rsa.RSAPublicKey) -> str:
    """A request whose public key was exchanged, so that its signature is another key's."""
    old, new = (
        key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        for key in (RSA_KEY.public_key(), public_key)
    )
    assert len(old) == len(new)
    return armoured(der_of(pem_of(RSA_KEY)).replace(old, new))


def der_of(pem: str) -> bytes:
    """The octets within a PEM block."""
    return base64.b64decode("".join(pem.splitlines()[1:-1]))


def armoured(der: bytes) -> str:
    """A PEM block around octets."""
    text = base64.encodebytes(der).decode()
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{text}-----END CERTIFICATE REQUEST-----\n"


def flipped(pem: str) -> str:
    """The request with the last octet of its signature changed."""
    der = bytearray(der_of(pem))
    der[-1] ^= 1
    return armoured(bytes(der))


def modulus(value: int) -> rsa.RSAPublicKey:
    """A public key of 2048 bits."""
    assert value.bit_length() == 2048
    return rsa.RSAPublicNumbers(65537, value).public_key()


def close_primes() -> int:
    """A modulus of 2048 bits whose factors are so near that anybody finds them."""
    near = math.isqrt(1 << 2047) | (1 << 1023) | 1
    return near * (near + 6)


GOOD: Mapping[str, PrivateKey] = {
    "P-256": EC_KEY,
    "P-384": ec.generate_private_key(ec.SECP384R1()),
    "RSA 2048": RSA_KEY,
    "RSA 4096": rsa.generate_private_key(65537, 4096),
}

REFUSED: Mapping[str, tuple[str, str]] = {
    "it is larger than a request can be": (
        pem_of() + " " * MAX_REQUEST_OCTETS,
        "certificate request must not be larger than 8192 bytes",
    ),
    "it is empty": ("", "must be one PEM block CERTIFICATE REQUEST and nothing else"),
    "it is text": ("please", "must be one PEM block CERTIFICATE REQUEST and nothing else"),
    "two requests come together": (
        pem_of() + pem_of(),
        "must be one PEM block CERTIFICATE REQUEST and nothing else",
    ),
    "the private key comes along": (
        pem_of()
        + EC_KEY.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode(),
        "must be one PEM block CERTIFICATE REQUEST and nothing else",
    ),
    "there is a remark before it": (
        f"my request:\n{pem_of()}",
        "must be one PEM block CERTIFICATE REQUEST and nothing else",
    ),
    "a header is inside it": (
        pem_of().replace("REQUEST-----\n", "REQUEST-----\nProc-Type: 4\n\n", 1),
        "must be one PEM block CERTIFICATE REQUEST and nothing else",
    ),
    "it is no DER": (armoured(b"not DER"), "must be a PKCS #10 request in DER"),
    "it is cut off": (armoured(der_of(pem_of())[:-9]), "must be a PKCS #10 request in DER"),
    "octets trail it": (armoured(der_of(pem_of()) + b"\0\0"), "must be a PKCS #10 request in DER"),
    "its key is on P-224": (
        pem_of(ec.generate_private_key(ec.SECP224R1())),
        "key must be on P-256 or P-384, or RSA of 2048 to 4096 bits",
    ),
    "its key is on P-521": (
        pem_of(ec.generate_private_key(ec.SECP521R1())),
        "key must be on P-256 or P-384, or RSA of 2048 to 4096 bits",
    ),
    "its key is Ed25519": (
        pem_of(ed25519.Ed25519PrivateKey.generate()),
        "key must be on P-256 or P-384, or RSA of 2048 to 4096 bits",
    ),
    "its key is RSA of 1024 bits": (
        pem_of(rsa.generate_private_key(65537, 1024)),  # noqa: S505 - refused for that
        "key must be on P-256 or P-384, or RSA of 2048 to 4096 bits",
    ),
    "its key is RSA of 5120 bits": (
        pem_of(rsa.generate_private_key(65537, 5120)),
        "key must be on P-256 or P-384, or RSA of 2048 to 4096 bits",
    ),
    "its exponent is 3": (
        pem_of(rsa.generate_private_key(3, 2048)),
        "RSA key must have the public exponent 65537",
    ),
    "its modulus has a small factor": (
        with_key(modulus((RSA_KEY.public_key().public_numbers().n // 751) * 751)),
        "RSA key must not have small or close factors",
    ),
    "its factors are close": (
        with_key(modulus(close_primes())),
        "RSA key must not have small or close factors",
    ),
    "another key signed it": (
        with_key(rsa.generate_private_key(65537, 2048).public_key()),
        "must be signed by its own key, with SHA-256 or better",
    ),
    "its signature was changed": (flipped(pem_of(RSA_KEY)), "must be signed by its own key"),
    "it was signed with SHA-224": (pem_of(digest=hashes.SHA224()), "with SHA-256 or better"),
}


@pytest.mark.parametrize("key", GOOD.values(), ids=GOOD)
def test_the_key_is_taken(key: PrivateKey) -> None:
    """As it is, and with blanks around the block."""
    assert requested_key(f"\n  {pem_of(key)}\n\n") == key.public_key()


@pytest.mark.parametrize("pem, rule", REFUSED.values(), ids=REFUSED)
def test_a_request_is_refused_because(pem: str, rule: str) -> None:
    """The message is the rule."""
    with pytest.raises(CertificateRequestError, match=rule.replace("(", r"\(")):
        requested_key(pem)


def test_every_rule_refuses_something() -> None:
    """A clause that no case breaks would be a promise that nobody tried."""
    rules = {
        *(clause.rule for clause in certificate_request.TEXT),
        *(clause.rule for clause in certificate_request.KEY),
        certificate_request.ENCODING.rule,
        certificate_request.POSSESSION.rule,
    }
    assert len(rules) == len(CLAUSES)
    assert all(any(said in rule for _, said in REFUSED.values()) for rule in rules)


def test_what_it_wishes_for_is_not_looked_at() -> None:
    """Names, usages and a wish to be an authority change nothing, not even where they are nonsense."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "system:admin")])
    wishes = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=5), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://other.example.org/root")]),
            critical=True,
        )
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=True)
        .sign(EC_KEY, hashes.SHA256())
    )
    assert requested_key(wishes.public_bytes(serialization.Encoding.PEM).decode()) == EC_KEY.public_key()


@pytest.mark.parametrize(
    "hostile",
    [
        "-----BEGIN CERTIFICATE REQUEST-----" + "\n" * 8000,
        "-----BEGIN CERTIFICATE REQUEST-----\n" + "A " * 4000,
        " " * 8000 + "-----BEGIN",
        armoured(b"\x30\x82\x17\x00" + b"\x30\x80" * 2900),
    ],
)
def test_a_hostile_text_costs_little(hostile: str) -> None:
    """Reading takes milliseconds, whatever is in it."""
    began = time.perf_counter()
    with pytest.raises(CertificateRequestError):
        requested_key(hostile)
    assert time.perf_counter() - began < 0.1
