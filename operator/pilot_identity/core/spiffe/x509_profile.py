"""Whether a chain is an X.509-SVID of a trust domain at a moment (X509-SVID.md §5).

Path building is deliberately small. The chain must come in order, leaf first, each certificate signed by the
next and the last by an authority of the one bundle given: nothing is searched for, so nothing can be found
that should not be.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from pilot_identity.core.spiffe import certificate_profile
from pilot_identity.core.spiffe.certificate import extension, spiffe_id
from pilot_identity.core.spiffe.clauses import Clause, SvidError, Violation, broken, names
from pilot_identity.core.spiffe.ids import SpiffeId

if TYPE_CHECKING:
    import datetime as dt

    from pilot_identity.core.spiffe.bundle import Bundle

MAX_CHAIN_OCTETS = 16 * 1024
MAX_CHAIN_LENGTH = 5

_PEM = b"-----BEGIN"
_SHORT_LENGTH = 0x80


@dataclass(frozen=True, slots=True)
class X509Svid:
    """An X.509-SVID that was validated; `chain` is its certificates, leaf first, without the authority."""

    spiffe_id: SpiffeId
    chain: tuple[x509.Certificate, ...]
    authority: x509.Certificate

    @property
    def leaf(self) -> x509.Certificate:
        """The certificate that identifies its holder."""
        return self.chain[0]


@dataclass(frozen=True, slots=True)
class Path:
    """A chain with the authorities that end it: none where no authority signed its last certificate."""

    chain: tuple[x509.Certificate, ...]
    anchor: x509.Certificate | None
    bundle: Bundle
    at: dt.datetime

    @property
    def leaf(self) -> x509.Certificate:
        """The certificate that identifies its holder."""
        return self.chain[0]

    @property
    def issuers(self) -> tuple[x509.Certificate, ...]:
        """Who signed, from the leaf's issuer to the bundle's authority."""
        return (*self.chain[1:], *(() if self.anchor is None else (self.anchor,)))


def _is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True


def _trust_domain_is_the_bundles(path: Path) -> bool:
    identity = spiffe_id(path.leaf)
    return identity is None or identity.trust_domain == path.bundle.trust_domain


def _issuers_are_of_the_trust_domain(path: Path) -> bool:
    identities = (spiffe_id(issuer) for issuer in path.issuers)
    return all(it is None or it.trust_domain == path.bundle.trust_domain for it in identities)


def _is_signed_to_the_bundle(path: Path) -> bool:
    pairs = zip(path.chain, path.chain[1:], strict=False)
    return path.anchor is not None and all(_is_issued_by(lower, upper) for lower, upper in pairs)


def _is_valid_at(certificate: x509.Certificate, at: dt.datetime) -> bool:
    return certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc


def _ends_with_its_issuers(path: Path) -> bool:
    return all(path.leaf.not_valid_after_utc <= issuer.not_valid_after_utc for issuer in path.issuers)


def _path_lengths_allow(path: Path) -> bool:
    for below, issuer in enumerate(path.issuers):
        constraints = extension(issuer, x509.BasicConstraints)
        limit = None if constraints is None else constraints.value.path_length
        if limit is not None and below > limit:
            return False
    return True


def _names_its_issuers_key(path: Path) -> bool:
    claimed = extension(path.leaf, x509.AuthorityKeyIdentifier)
    actual = extension(path.issuers[0], x509.SubjectKeyIdentifier) if path.issuers else None
    if claimed is None or actual is None or claimed.value.key_identifier is None:
        return True  # absence has rows of its own
    return hmac.compare_digest(claimed.value.key_identifier, actual.value.digest)


BOUNDED: tuple[Clause[bytes], ...] = (
    # Make sure that a stranger's chain costs little to read.
    Clause(
        "Pilot §x509 chain-octets",
        f"certificate chain must not be larger than {MAX_CHAIN_OCTETS} bytes",
        lambda chain: len(chain) <= MAX_CHAIN_OCTETS,
    ),
)

LENGTH: tuple[Clause[tuple[x509.Certificate, ...]], ...] = (
    # Make sure that a stranger's chain costs few signatures to check.
    Clause(
        "Pilot §x509 chain-length",
        f"certificate chain must not be longer than {MAX_CHAIN_LENGTH} certificates",
        lambda chain: len(chain) <= MAX_CHAIN_LENGTH,
    ),
)

PATH: tuple[Clause[Path], ...] = (
    # Make sure that the leaf names somebody of the trust domain whose bundle we hold (§5.2).
    Clause(
        "X509-SVID §5.2 trust-domain",
        "leaf must be of the bundle's trust domain",
        _trust_domain_is_the_bundles,
    ),
    # Make sure that one of that bundle's authorities vouches for it, link by link (§5.1).
    Clause(
        "X509-SVID §5.1 signature",
        "leaf must be signed, through its chain in order, by an authority of the bundle",
        _is_signed_to_the_bundle,
    ),
    # Make sure that no authority of another trust domain stands in between (§3.2).
    Clause(
        "X509-SVID §3.2 authority-trust-domain",
        "signing certificates must be of the bundle's trust domain",
        _issuers_are_of_the_trust_domain,
    ),
    # Make sure that everything on the path is valid now (RFC 5280 §6.1.3).
    Clause(
        "RFC 5280 §6.1.3 not-yet-valid",
        "leaf must have begun to be valid",
        lambda path: path.leaf.not_valid_before_utc <= path.at,
    ),
    Clause(
        "RFC 5280 §6.1.3 expired",
        "leaf must not have expired",
        lambda path: path.at <= path.leaf.not_valid_after_utc,
    ),
    Clause(
        "RFC 5280 §6.1.3 authority-validity",
        "signing certificates must be valid",
        lambda path: all(_is_valid_at(issuer, path.at) for issuer in path.issuers),
    ),
    # Make sure that the leaf cannot come back to life with a renewed authority.
    Clause(
        "Pilot §x509 outlives-authority",
        "leaf must not outlive its signing certificates",
        _ends_with_its_issuers,
    ),
    # Make sure that no authority signs further down than it was allowed to (RFC 5280 §4.2.1.9).
    Clause(
        "RFC 5280 §4.2.1.9 path-length", "chain must keep to its path length constraints", _path_lengths_allow
    ),
    # Make sure that the issuer that vouches is the issuer that is named (RFC 5280 §4.2.1.1).
    Clause(
        "RFC 5280 §4.2.1.1 authorityKeyIdentifier-matches",
        "leaf's authority key identifier must be its issuer's subject key identifier",
        _names_its_issuers_key,
    ),
)

# What we ask of our own leaves beyond the standard, which lets a leaf leave these out.
ISSUED: tuple[Clause[x509.Certificate], ...] = (
    # Make sure that nothing about a pilot is told twice: the SPIFFE ID is its whole name.
    Clause(
        "Pilot §issued subject-empty", "our leaf's subject must be empty", lambda leaf: len(leaf.subject) == 0
    ),
    # Make sure that no reader has to know a default.
    Clause(
        "Pilot §issued basicConstraints-critical",
        "our leaf must have critical basic constraints",
        lambda leaf: (found := extension(leaf, x509.BasicConstraints)) is not None and found.critical,
    ),
    Clause(
        "Pilot §issued extendedKeyUsage",
        "our leaf must have an extended key usage",
        # What it must hold is §4.4's rows.
        lambda leaf: extension(leaf, x509.ExtendedKeyUsage) is not None,
    ),
    Clause(
        "Pilot §issued subjectKeyIdentifier",
        "our leaf must have a subject key identifier",
        lambda leaf: extension(leaf, x509.SubjectKeyIdentifier) is not None,
    ),
)

CLAUSES = names(BOUNDED, LENGTH, PATH, ISSUED)


def read_chain(octets: bytes) -> tuple[x509.Certificate, ...]:
    """Read a chain, leaf first: PEM, or DER one after another as the Workload API sends it."""
    violations = broken(BOUNDED, octets)
    if violations:
        raise SvidError(violations)
    try:
        chain = tuple(_certificates(octets))
    except (ValueError, TypeError, IndexError, x509.InvalidVersion) as error:
        raise SvidError((certificate_profile.READABLE.violation,)) from error
    violations = broken(LENGTH, chain)
    if violations:
        raise SvidError(violations)
    return chain


def _certificates(octets: bytes) -> list[x509.Certificate]:
    if octets.lstrip().startswith(_PEM):
        return x509.load_pem_x509_certificates(octets)
    found: list[x509.Certificate] = []
    while octets or not found:
        end = _der_end(octets)
        found.append(x509.load_der_x509_certificate(octets[:end]))
        octets = octets[end:]
    return found


def _der_end(octets: bytes) -> int:
    """Where the first DER element ends; whether it is one is for the parser to say."""
    first = octets[1]
    if first < _SHORT_LENGTH:
        return 2 + first
    width = first - _SHORT_LENGTH
    return 2 + width + int.from_bytes(octets[2 : 2 + width])


def path_to(chain: tuple[x509.Certificate, ...], bundle: Bundle, at: dt.datetime) -> Path:
    """The chain with the bundle's authority that ends it. An authority sent along is not counted twice."""
    if len(chain) > 1 and chain[-1] in bundle.authorities:
        return Path(chain[:-1], chain[-1], bundle, at)
    anchor = next((each for each in bundle.authorities if _is_issued_by(chain[-1], each)), None)
    return Path(chain, anchor, bundle, at)


def path_violations(path: Path) -> tuple[Violation, ...]:
    """What is wrong with a path: its leaf, its signing certificates, and how they hang together."""
    alone = (
        *certificate_profile.leaf_violations(path.leaf),
        *(each for it in path.issuers for each in certificate_profile.signing_certificate_violations(it)),
    )
    if certificate_profile.READABLE.violation in alone:
        return alone  # what cannot be read cannot be asked about its neighbours
    return (*alone, *broken(PATH, path))


def x509_svid_violations(chain: bytes, bundle: Bundle, at: dt.datetime) -> tuple[Violation, ...]:
    """What is wrong with a chain (PEM or DER) as an X.509-SVID of the bundle's trust domain."""
    try:
        return path_violations(path_to(read_chain(chain), bundle, at))
    except SvidError as error:
        return error.violations


def issued_violations(leaf: x509.Certificate, bundle: Bundle, at: dt.datetime) -> tuple[Violation, ...]:
    """What is wrong with a leaf as one of our own making."""
    violations = path_violations(path_to((leaf,), bundle, at))
    return (
        violations
        if certificate_profile.READABLE.violation in violations
        else (*violations, *broken(ISSUED, leaf))
    )


def validate_x509_svid(chain: bytes, bundle: Bundle, at: dt.datetime) -> X509Svid:
    """Accept a chain (PEM or DER, leaf first) or raise `SvidError` with every clause that it breaks."""
    path = path_to(read_chain(chain), bundle, at)
    violations = path_violations(path)
    if violations:
        raise SvidError(violations)
    identity, authority = spiffe_id(path.leaf), path.anchor
    if identity is None or authority is None:
        # Both have rows above that were kept: this is for the type checker, and fails closed.
        raise SvidError((certificate_profile.READABLE.violation,))
    return X509Svid(identity, path.chain, authority)
