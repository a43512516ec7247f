"""Certificate requests (RFC 2986): what a workload whose key never leaves it asks with.

Of a request only the public key is taken. The names, usages and other extensions that it wishes for are
never looked at: who the certificate is for is the grant's to say. The request's own signature shows that
whoever made it had the private key; it shows neither when nor for which grant, so that a copied request gets
its finder a certificate for a key that he has not.
"""

from __future__ import annotations

import math
import re

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from pilot_identity.core.spiffe.clauses import Clause, Subject, first_broken, names
from pilot_identity.core.spiffe.keys import MIN_RSA_BITS, VerificationKey

MAX_REQUEST_OCTETS = 8192
MAX_RSA_BITS = 4096
"""Less than what we read in bundles: this key is used for minutes, and each handshake pays for its size."""

_BOUNDARY = "-----{} CERTIFICATE REQUEST-----"
_PEM = re.compile(rf"\s*{_BOUNDARY.format('BEGIN')}\s[A-Za-z0-9+/=\s]+{_BOUNDARY.format('END')}\s*", re.ASCII)
_CURVES = (ec.SECP256R1, ec.SECP384R1)
_DIGESTS = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_EXPONENT = 65537
"""The one that every library draws. Small ones turn sloppy padding into forgeries; others are a trick."""
_SMALL_PRIMES = math.prod(
    number for number in range(2, 752) if all(number % other for other in range(2, math.isqrt(number) + 1))
)
"""The product of the primes that CAs try (Boulder's goodkey): a modulus that has one was not well drawn."""
_FERMAT_ROUNDS = 100
"""As CAs do against CVE-2022-26320: primes so close to each other are found from the modulus alone."""


class CertificateRequestError(ValueError):
    """The request cannot be signed; the message is the rule."""


def _is_self_signed(request: x509.CertificateSigningRequest) -> bool:
    try:
        return isinstance(request.signature_hash_algorithm, _DIGESTS) and request.is_signature_valid
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False


def _has_close_primes(modulus: int) -> bool:
    """Fermat's method: the modulus is a difference of two squares, and the larger is tried upwards."""
    root = math.isqrt(modulus)
    if root * root < modulus:
        root += 1
    for candidate in range(root, root + _FERMAT_ROUNDS):
        rest = candidate * candidate - modulus
        if math.isqrt(rest) ** 2 == rest:
            return True
    return False


def _is_sound(key: VerificationKey) -> bool:
    if not isinstance(key, rsa.RSAPublicKey):
        return True
    modulus = key.public_numbers().n
    return math.gcd(modulus, _SMALL_PRIMES) == 1 and not _has_close_primes(modulus)


TEXT: tuple[Clause[str], ...] = (
    # Make sure that the text is bounded before anything reads it.
    Clause(
        "Pilot §csr octets",
        f"certificate request must not be larger than {MAX_REQUEST_OCTETS} bytes",
        lambda text: len(text.encode("utf-8", "surrogatepass")) <= MAX_REQUEST_OCTETS,
    ),
    # Make sure that nothing rides along: no second block, no private key pasted by mistake (RFC 7468 §7).
    Clause(
        "RFC 7468 §7 one-block",
        "certificate request must be one PEM block CERTIFICATE REQUEST and nothing else",
        lambda text: _PEM.fullmatch(text) is not None,
    ),
)

ENCODING: Clause[object] = Clause(
    "RFC 2986 §4 encoding", "certificate request must be a PKCS #10 request in DER", lambda _: True
)

STRENGTH: Clause[VerificationKey] = Clause(
    "Pilot §csr key-type",
    f"key must be on P-256 or P-384, or RSA of {MIN_RSA_BITS} to {MAX_RSA_BITS} bits",
    lambda key: (
        isinstance(key.curve, _CURVES)
        if isinstance(key, ec.EllipticCurvePublicKey)
        else MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS
    ),
)

KEY: tuple[Clause[VerificationKey], ...] = (
    # Make sure that the key holds for as long as what is signed over it, and that verifiers can use it.
    STRENGTH,
    # Make sure that it is an RSA key as libraries draw them.
    Clause(
        "Pilot §csr exponent",
        f"RSA key must have the public exponent {_EXPONENT}",
        lambda key: not isinstance(key, rsa.RSAPublicKey) or key.public_numbers().e == _EXPONENT,
    ),
    # Make sure that its private key cannot be computed by whoever sees the certificate.
    Clause("Pilot §csr sound-key", "RSA key must not have small or close factors", _is_sound),
)

POSSESSION: Clause[x509.CertificateSigningRequest] = Clause(
    "RFC 2986 §4.2 signature",
    "certificate request must be signed by its own key, with SHA-256 or better",
    _is_self_signed,
)

CLAUSES = names(TEXT, (ENCODING,), KEY, (POSSESSION,))


def requested_key(pem: str) -> VerificationKey:
    """Read the public key that a certificate is asked for.

    Raises:
        CertificateRequestError: the text is no request, its key is weak, or it is not signed by that key.
    """
    _require(TEXT, pem)
    try:
        request = x509.load_pem_x509_csr(pem.encode("ascii"))
        key = request.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CertificateRequestError(ENCODING.rule) from error
    if not isinstance(key, (ec.EllipticCurvePublicKey, rsa.RSAPublicKey)):
        raise CertificateRequestError(STRENGTH.rule)
    _require(KEY, key)
    _require((POSSESSION,), request)
    return key


def _require(table: tuple[Clause[Subject], ...], subject: Subject) -> None:
    violation = first_broken(table, subject)
    if violation is not None:
        raise CertificateRequestError(violation.message)
