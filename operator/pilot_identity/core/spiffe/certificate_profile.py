"""What X509-SVID.md asks of one certificate, read without its chain: of any SVID, of a CA, of a leaf."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID

from pilot_identity.core.spiffe.certificate import extension, is_authority, public_key, spiffe_id, uris
from pilot_identity.core.spiffe.clauses import Clause, SpiffeIdError, SvidError, Violation, broken, names
from pilot_identity.core.spiffe.ids import SpiffeId

if TYPE_CHECKING:
    from collections.abc import Callable

# RFC 5280 §4.1.2.2 allows 20 octets of two's complement; the top bit is the sign.
MAX_SERIAL_BITS = 159

# A critical extension that is not processed ends the path (RFC 5280 §4.2). Name constraints are not
# processed here, so even an uncritical one ends it: read over, it would be no constraint.
_PROCESSED = frozenset(
    {
        x509.BasicConstraints.oid,
        x509.KeyUsage.oid,
        x509.ExtendedKeyUsage.oid,
        x509.SubjectAlternativeName.oid,
        x509.SubjectKeyIdentifier.oid,
        x509.AuthorityKeyIdentifier.oid,
    },
)


def _where_usage_is_known(is_kept: Callable[[x509.KeyUsage], bool]) -> Callable[[x509.Certificate], bool]:
    """A predicate of the key usage that holds where there is none: its absence has a row of its own."""

    def holds(certificate: x509.Certificate) -> bool:
        usage = extension(certificate, x509.KeyUsage)
        return usage is None or is_kept(usage.value)

    return holds


def _where_purposes_are_known(purpose: x509.ObjectIdentifier) -> Callable[[x509.Certificate], bool]:
    def holds(certificate: x509.Certificate) -> bool:
        purposes = extension(certificate, x509.ExtendedKeyUsage)
        return purposes is None or purpose in purposes.value

    return holds


def _signs_with_sha2(certificate: x509.Certificate) -> bool:
    try:
        digest = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return False
    return isinstance(digest, (hashes.SHA256, hashes.SHA384, hashes.SHA512))


def _holds_a_strong_key(certificate: x509.Certificate) -> bool:
    return public_key(certificate) is not None


def _extensions_are_processed(certificate: x509.Certificate) -> bool:
    return all(
        found.oid in _PROCESSED or not (found.critical or found.oid == x509.NameConstraints.oid)
        for found in certificate.extensions
    )


def _san_is_critical_or_subject_given(certificate: x509.Certificate) -> bool:
    alternative = extension(certificate, x509.SubjectAlternativeName)
    return alternative is None or alternative.critical or len(certificate.subject) > 0


def _usage_is_critical(certificate: x509.Certificate) -> bool:
    usage = extension(certificate, x509.KeyUsage)
    return usage is None or usage.critical


def _authority_constraints_are_critical(certificate: x509.Certificate) -> bool:
    constraints = extension(certificate, x509.BasicConstraints)
    return constraints is None or not constraints.value.ca or constraints.critical


def _id_has_no_path(certificate: x509.Certificate) -> bool:
    identity = spiffe_id(certificate)
    return identity is None or identity.segments == ()


def _id_has_a_path(certificate: x509.Certificate) -> bool:
    identity = spiffe_id(certificate)
    return identity is None or identity.segments != ()


SERIAL: tuple[Clause[int], ...] = (
    # Make sure the serial number names a certificate: positive, and of a length that readers keep.
    Clause("RFC 5280 §4.1.2.2 serial-positive", "serial number must be positive", lambda serial: serial > 0),
    Clause(
        "RFC 5280 §4.1.2.2 serial-octets",
        "serial number must not be longer than 20 octets",
        # A negative number has the row above.
        lambda serial: serial <= 0 or serial.bit_length() <= MAX_SERIAL_BITS,
    ),
)

EVERY_SVID: tuple[Clause[x509.Certificate], ...] = (
    # Make sure that nothing rests on a broken hash or a key that can be computed.
    Clause(
        "Pilot §x509 signature-hash", "signature must be over SHA-256, SHA-384 or SHA-512", _signs_with_sha2
    ),
    Clause(
        "Pilot §x509 key-strength",
        "key must be RSA of 2048 to 8192 bits or on P-256, P-384 or P-521",
        _holds_a_strong_key,
    ),
    # Make sure that no extension is read over that was meant to stop us.
    Clause(
        "RFC 5280 §4.2 critical-extension",
        "certificate must not have critical extensions or name constraints that are not processed",
        _extensions_are_processed,
    ),
    # Make sure it has one SPIFFE ID: no less, no more (§2).
    Clause("X509-SVID §2 uri-san-present", "certificate must have a URI SAN", lambda it: len(uris(it)) > 0),
    Clause(
        "X509-SVID §2 uri-san-single",
        "certificate must not have more than one URI SAN",
        lambda it: len(uris(it)) <= 1,
    ),
    # Make sure that a reader who ignores SANs cannot take the certificate for nobody's (§3.1).
    Clause(
        "X509-SVID §3.1 san-critical",
        "subject alternative name must be critical where the subject is empty",
        _san_is_critical_or_subject_given,
    ),
    # Make sure the key's use is limited, and that no reader may overlook it (§4.3).
    Clause(
        "X509-SVID §4.3 keyUsage-present",
        "keyUsage must be set",
        lambda it: extension(it, x509.KeyUsage) is not None,
    ),
    Clause("X509-SVID §4.3 keyUsage-critical", "keyUsage must be critical", _usage_is_critical),
)

AUTHORITY: tuple[Clause[x509.Certificate], ...] = (
    # Make sure it is a CA, to every reader (§4.1).
    Clause("X509-SVID §4.1 authority-cA", "signing certificate must set cA to true", is_authority),
    Clause(
        "RFC 5280 §4.2.1.9 authority-basicConstraints-critical",
        "signing certificate's basic constraints must be critical",
        _authority_constraints_are_critical,
    ),
    # Make sure it may sign certificates (§4.3) and does nothing that a leaf does (appendix A).
    Clause(
        "X509-SVID §4.3 authority-keyCertSign",
        "signing certificate must set keyCertSign",
        _where_usage_is_known(lambda usage: usage.key_cert_sign),
    ),
    Clause(
        "X509-SVID §A authority-leaf-usage",
        "signing certificate must not set digitalSignature, keyEncipherment or keyAgreement",
        _where_usage_is_known(
            lambda usage: not (usage.digital_signature or usage.key_encipherment or usage.key_agreement),
        ),
    ),
    # Make sure it names a trust domain, not somebody in it (§3.2).
    Clause(
        "X509-SVID §3.2 authority-path",
        "signing certificate's SPIFFE ID must not have a path",
        _id_has_no_path,
    ),
    # Make sure that a chain can be built on it by name and by key.
    Clause(
        "RFC 5280 §4.1.2.6 authority-subject",
        "signing certificate's subject must not be empty",
        lambda it: len(it.subject) > 0,
    ),
    Clause(
        "RFC 5280 §4.2.1.2 authority-subjectKeyIdentifier",
        "signing certificate must have a subject key identifier",
        lambda it: extension(it, x509.SubjectKeyIdentifier) is not None,
    ),
)

LEAF: tuple[Clause[x509.Certificate], ...] = (
    # Make sure it cannot act as a CA (§4.1, §5.2).
    Clause("X509-SVID §4.1 leaf-cA", "leaf must set cA to false", lambda it: not is_authority(it)),
    # Make sure its key proves possession and signs nothing else (§4.3).
    Clause(
        "X509-SVID §4.3 leaf-digitalSignature",
        "leaf must set digitalSignature",
        _where_usage_is_known(lambda usage: usage.digital_signature),
    ),
    Clause(
        "X509-SVID §4.3 leaf-keyCertSign",
        "leaf must not set keyCertSign",
        _where_usage_is_known(lambda usage: not usage.key_cert_sign),
    ),
    Clause(
        "X509-SVID §4.3 leaf-cRLSign",
        "leaf must not set cRLSign",
        _where_usage_is_known(lambda usage: not usage.crl_sign),
    ),
    # Make sure it works at both ends of mutual TLS (§4.4).
    Clause(
        "X509-SVID §4.4 leaf-serverAuth",
        "extended key usage must have serverAuth where it is set",
        _where_purposes_are_known(ExtendedKeyUsageOID.SERVER_AUTH),
    ),
    Clause(
        "X509-SVID §4.4 leaf-clientAuth",
        "extended key usage must have clientAuth where it is set",
        _where_purposes_are_known(ExtendedKeyUsageOID.CLIENT_AUTH),
    ),
    # Make sure it names somebody, not the trust domain itself (§3.1).
    Clause("X509-SVID §3.1 leaf-path", "leaf's SPIFFE ID must have a path", _id_has_a_path),
    # Make sure that the issuer can be told from another of the same name.
    Clause(
        "RFC 5280 §4.2.1.1 leaf-authorityKeyIdentifier",
        "leaf must have an authority key identifier",
        lambda it: extension(it, x509.AuthorityKeyIdentifier) is not None,
    ),
)

READABLE: Clause[x509.Certificate] = Clause(
    "RFC 5280 §4.1 encoding",
    "certificate must be a DER or PEM X.509 v3 certificate",
    lambda it: it.version is x509.Version.v3,
)

CLAUSES = names(SERIAL, EVERY_SVID, AUTHORITY, LEAF, (READABLE,))


def _id_violations(certificate: x509.Certificate) -> tuple[Violation, ...]:
    found = uris(certificate)
    try:
        if len(found) == 1:
            SpiffeId.parse(found[0])
    except SpiffeIdError as error:
        return (error.violation,)
    return ()


def _violations(
    certificate: x509.Certificate,
    role: tuple[Clause[x509.Certificate], ...],
) -> tuple[Violation, ...]:
    try:
        return (
            *broken((READABLE,), certificate),
            *broken(SERIAL, certificate.serial_number),
            *broken(EVERY_SVID, certificate),
            *_id_violations(certificate),
            *broken(role, certificate),
        )
    except (ValueError, TypeError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        # The library reads a certificate's parts when they are asked for, so a broken one surfaces here.
        return (READABLE.violation,)


def leaf_violations(certificate: x509.Certificate) -> tuple[Violation, ...]:
    """What is wrong with this certificate as a leaf, whoever signed it."""
    return _violations(certificate, LEAF)


def signing_certificate_violations(certificate: x509.Certificate) -> tuple[Violation, ...]:
    """What is wrong with this certificate as an authority of a trust domain."""
    return _violations(certificate, AUTHORITY)


def validate_signing_certificate(certificate: x509.Certificate) -> None:
    """Accept a signing certificate or raise `SvidError` with every clause that it breaks."""
    violations = signing_certificate_violations(certificate)
    if violations:
        raise SvidError(violations)
