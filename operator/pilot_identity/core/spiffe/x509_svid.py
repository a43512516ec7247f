"""Making X.509-SVIDs: template, sign, validate what was signed (X509-SVID.md §2 to §4).

Signatures are deterministic (RFC 6979): the same arguments give the same certificate, octet for octet, and a
poor source of randomness cannot leak the authority's key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pilot_identity.core.spiffe import certificate_profile, x509_profile
from pilot_identity.core.spiffe.bundle import Bundle
from pilot_identity.core.spiffe.certificate import uris
from pilot_identity.core.spiffe.clauses import Clause, SvidError, broken, names

if TYPE_CHECKING:
    import datetime as dt

    from pilot_identity.core.spiffe.ids import SpiffeId, TrustDomain
    from pilot_identity.core.spiffe.keys import VerificationKey

_ORGANIZATION = "pilotidentity.dev"
_MAX_COMMON_NAME = 64  # RFC 5280 appendix A, ub-common-name


@dataclass(frozen=True, slots=True)
class Authority:
    """A trust domain's signing certificate with its private key. Raises `SvidError` where they do not fit."""

    certificate: x509.Certificate
    private_key: ec.EllipticCurvePrivateKey
    trust_domain: TrustDomain

    def __post_init__(self) -> None:
        violations = (
            *certificate_profile.signing_certificate_violations(self.certificate),
            *broken(AUTHORITY, self),
        )
        if violations:
            raise SvidError(violations)

    def __repr__(self) -> str:
        # Never the key, not even as an object that a formatter may look into.
        return f"Authority({self.trust_domain}, serial={self.certificate.serial_number:x})"


AUTHORITY: tuple[Clause[Authority], ...] = (
    # Make sure that what it signs can be traced to its certificate.
    Clause(
        "Pilot §authority key",
        "authority's private key must be its certificate's",
        lambda it: it.certificate.public_key() == it.private_key.public_key(),
    ),
    # Make sure that it signs in its own name.
    Clause(
        "Pilot §authority trust-domain",
        "authority's certificate must be its trust domain's",
        lambda it: it.trust_domain.uri in uris(it.certificate),
    ),
)

CLAUSES = names(AUTHORITY)


def authority_certificate(
    key: ec.EllipticCurvePrivateKey,
    trust_domain: TrustDomain,
    serial: int,
    not_before: dt.datetime,
    not_after: dt.datetime,
) -> x509.Certificate:
    """Make a trust domain's self-signed signing certificate; it may sign leaves and nothing below them.

    The times are aware and are cut to whole seconds. Its subject carries the serial number, so that two
    authorities of one trust domain never share a name while one takes over from the other.
    """
    _require_serial(serial)
    # The SPIFFE ID in the SAN is the name that counts; a subject must be there for chains to be built.
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, _ORGANIZATION),
            x509.NameAttribute(NameOID.COMMON_NAME, trust_domain.name[:_MAX_COMMON_NAME]),
            x509.NameAttribute(NameOID.SERIAL_NUMBER, f"{serial:x}"),
        ],
    )
    template = (
        _dated(serial, not_before, not_after)
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
        .add_extension(_san(trust_domain.uri), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    certificate = _sign(template, key)
    certificate_profile.validate_signing_certificate(certificate)
    return certificate


def issue_leaf(  # noqa: PLR0913, PLR0917  # time and serial are arguments; a bag for them would hide that
    authority: Authority,
    public_key: VerificationKey,
    spiffe_id: SpiffeId,
    serial: int,
    not_before: dt.datetime,
    not_after: dt.datetime,
) -> x509.Certificate:
    """Make the X.509-SVID of `spiffe_id` over `public_key`.

    The times are aware and are cut to whole seconds; the caller caps `not_after` at the authority's. Raises
    `SvidError` where the result would break any clause; nothing that breaks one is ever returned.
    """
    _require_serial(serial)
    template = _leaf(_dated(serial, not_before, not_after), authority.certificate, public_key, spiffe_id)
    certificate = _sign(template, authority.private_key)
    bundle = Bundle(authority.trust_domain, (authority.certificate,), {}, sequence=0)
    # A leaf is backdated for skewed clocks, maybe to before its authority began: judge it where both began.
    at = max(certificate.not_valid_before_utc, authority.certificate.not_valid_before_utc)
    violations = x509_profile.issued_violations(certificate, bundle, at)
    if violations:
        raise SvidError(violations)
    return certificate


def _leaf(
    dated: x509.CertificateBuilder,
    issuer: x509.Certificate,
    public_key: VerificationKey,
    spiffe_id: SpiffeId,
) -> x509.CertificateBuilder:
    issuer_key = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    return (
        dated.subject_name(x509.Name([]))
        .issuer_name(issuer.subject)
        .public_key(public_key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage("digital_signature"), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        # Critical because the subject is empty (RFC 5280 §4.1.2.6).
        .add_extension(_san(spiffe_id.uri), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_key),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _require_serial(serial: int) -> None:
    violations = broken(certificate_profile.SERIAL, serial)
    if violations:
        raise SvidError(violations)


def _dated(serial: int, not_before: dt.datetime, not_after: dt.datetime) -> x509.CertificateBuilder:
    if not_before.tzinfo is None or not_after.tzinfo is None:
        raise ValueError("times must be aware")
    return (
        x509.CertificateBuilder()
        .serial_number(serial)
        .not_valid_before(not_before.replace(microsecond=0))
        .not_valid_after(not_after.replace(microsecond=0))
    )


def _san(uri: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])


def _usage(*allowed: str) -> x509.KeyUsage:
    every = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{usage: usage in allowed for usage in every})


def _sign(template: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    return template.sign(key, hashes.SHA256(), ecdsa_deterministic=True)
