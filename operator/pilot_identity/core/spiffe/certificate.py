"""What a certificate says, asked in the domain's words. Malformed extensions raise the library's errors."""

from __future__ import annotations

from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from pilot_identity.core.spiffe import keys
from pilot_identity.core.spiffe.clauses import SpiffeIdError
from pilot_identity.core.spiffe.ids import SpiffeId

Extension = TypeVar("Extension", bound=x509.ExtensionType)


def extension(certificate: x509.Certificate, kind: type[Extension]) -> x509.Extension[Extension] | None:
    """The certificate's extension of this kind, or none."""
    try:
        return certificate.extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None


def uris(certificate: x509.Certificate) -> tuple[str, ...]:
    """Every URI in the subject alternative name, as text."""
    names_found = extension(certificate, x509.SubjectAlternativeName)
    if names_found is None:
        return ()
    return tuple(names_found.value.get_values_for_type(x509.UniformResourceIdentifier))


def spiffe_id(certificate: x509.Certificate) -> SpiffeId | None:
    """The SPIFFE ID of a certificate that has exactly one URI and that one valid, otherwise none."""
    found = uris(certificate)
    try:
        return SpiffeId.parse(found[0]) if len(found) == 1 else None
    except SpiffeIdError:
        return None


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether basic constraints say that this is a CA."""
    constraints = extension(certificate, x509.BasicConstraints)
    return constraints is not None and constraints.value.ca


def public_key(certificate: x509.Certificate) -> keys.VerificationKey | None:
    """The certificate's key, or none where it is of a kind or size that we do not accept."""
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key if keys.is_strong(key) else None
