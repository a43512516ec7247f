"""A trust domain's bundle: the public half of everything that may speak for it.

Verifiers get it in three shapes: PEM for TLS libraries, SPIFFE JSON for SPIFFE's, and an OIDC key set. The
last is a document of its own: its keys say `use=sig`, and a bundle whose keys say so certifies nothing.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from pilot_identity.core.spiffe import bundle_document, bundle_profile, certificate_profile, jose, keys
from pilot_identity.core.spiffe.bundle_document import JWT_USE, X509_USE, Document
from pilot_identity.core.spiffe.certificate import public_key
from pilot_identity.core.spiffe.clauses import SvidError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pilot_identity.core.spiffe.ids import TrustDomain

# What SPIFFE_Federation.md §4.1 recommends where the publisher gives no hint.
DEFAULT_REFRESH_HINT = dt.timedelta(minutes=5)


def _fingerprint(certificate: x509.Certificate) -> bytes:
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).digest()


@dataclass(frozen=True, slots=True)
class Bundle:
    """The authorities and JWT keys of one trust domain; equal contents are written to equal bytes.

    `jwt_keys` maps each `kid` to its public key. `sequence` must rise whenever the contents change
    (SPIFFE_Trust_Domain_and_Bundle.md §4.1.1): who stores the bundle counts.
    """

    trust_domain: TrustDomain
    authorities: tuple[x509.Certificate, ...]
    jwt_keys: Mapping[str, keys.VerificationKey]
    sequence: int
    refresh_hint: dt.timedelta = DEFAULT_REFRESH_HINT

    def __post_init__(self) -> None:
        # Order carries no meaning in a bundle, so it must not change the bytes either.
        object.__setattr__(self, "authorities", tuple(sorted(set(self.authorities), key=_fingerprint)))
        object.__setattr__(self, "jwt_keys", MappingProxyType(dict(sorted(self.jwt_keys.items()))))

    def to_pem(self) -> str:
        """The authorities' certificates, one after another."""
        return "".join(it.public_bytes(serialization.Encoding.PEM).decode("ascii") for it in self.authorities)

    def to_spiffe_json(self) -> str:
        """The SPIFFE bundle (§4). Raises `SvidError` where it would break a clause."""
        members = {
            "keys": [
                *map(self._authority_entry, self.authorities),
                *({"use": JWT_USE, "kid": kid} | keys.jwk(key) for kid, key in self.jwt_keys.items()),
            ],
            "spiffe_sequence": self.sequence,
            "spiffe_refresh_hint": self.refresh_hint // dt.timedelta(seconds=1),
        }
        text = jose.json_text(members)
        bundle_profile.validate_bundle(text, self.trust_domain)
        return text

    def to_jwks(self) -> str:
        """The OIDC key set: the JWT keys alone. Raises `SvidError` where it would break a clause."""
        entries = [
            {"use": "sig", "kid": kid, "alg": keys.algorithms(key)[0]} | keys.jwk(key)
            for kid, key in self.jwt_keys.items()
        ]
        text = jose.json_text({"keys": entries})
        bundle_profile.validate_jwks(text)
        return text

    @classmethod
    def parse_spiffe_json(cls, text: str, trust_domain: TrustDomain) -> Bundle:
        """Read a bundle as its consumer, for the trust domain that it was fetched for.

        The standard's MUST-ignore entries are ignored (see `bundle_document.consumed`); anything else that is
        wrong raises `SvidError`.
        """
        document = Document(bundle_document.consumed(bundle_document.read(text)), trust_domain)
        violations = bundle_profile.document_violations(document, bundle_profile.CONSUMED)
        if violations:
            raise SvidError(violations)
        hint = document.members.get("spiffe_refresh_hint")
        return cls(
            trust_domain,
            tuple(certificate for _, certificate in document.certificates),
            {entry["kid"]: keys.key_from_jwk(entry) for entry in document.of_use(JWT_USE)},
            document.members.get("spiffe_sequence", 0),
            DEFAULT_REFRESH_HINT if hint is None else dt.timedelta(seconds=hint),
        )

    @staticmethod
    def _authority_entry(certificate: x509.Certificate) -> dict[str, Any]:
        key = public_key(certificate)
        if key is None:
            raise SvidError(certificate_profile.signing_certificate_violations(certificate))
        der = certificate.public_bytes(serialization.Encoding.DER)
        return {"use": X509_USE, "x5c": [base64.b64encode(der).decode("ascii")]} | keys.jwk(key)
