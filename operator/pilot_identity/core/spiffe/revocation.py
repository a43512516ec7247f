"""Revocation: what a trust domain has taken back before it lapsed, as lists that its authority signs.

Two lists, because there are two kinds of credentials: a certificate revocation list (RFC 5280 §5) for
X.509-SVIDs, and for JWT-SVIDs, for which no standard has one, a signed list of token ids. Both are complete
for the trust domain; both say how long they are good for, so that an old one is not taken for a new one.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from pilot_identity.core.spiffe.jwt_svid import sign_compact

if TYPE_CHECKING:
    from pilot_identity.core.spiffe.ids import TrustDomain
    from pilot_identity.core.spiffe.x509_svid import Authority

DENY_LIST_TYPE = "pilot-revoked+jwt"
"""The `typ` of a deny list (RFC 8725 §3.11), so that nothing takes it for a JWT-SVID, nor the reverse."""


class RevokedCertificate(msgspec.Struct, frozen=True, rename="camel"):
    """A certificate that was taken back: its serial number in hexadecimal, and when it lapses by itself."""

    serial: str
    not_after: dt.datetime


class RevokedToken(msgspec.Struct, frozen=True, rename="camel"):
    """A token that was taken back: its id, and when it lapses by itself."""

    jti: str
    not_after: dt.datetime


class Revoked(msgspec.Struct, frozen=True, rename="camel"):
    """What one grant had out when it ended.

    Attributes:
        stage: whose authority signed it.
        namespace: where it was used; there the lists are published.
        at: when it was taken back.
    """

    stage: str
    namespace: str
    at: dt.datetime
    certificates: tuple[RevokedCertificate, ...] = ()
    tokens: tuple[RevokedToken, ...] = ()

    @property
    def lapses_at(self) -> dt.datetime | None:
        """When all of it has lapsed by itself; `None` where nothing was out."""
        ends = (*(one.not_after for one in self.certificates), *(one.not_after for one in self.tokens))
        return max(ends, default=None)


def certificate_revocation_list(
    authority: Authority,
    revoked: Iterable[tuple[int, dt.datetime]],
    *,
    number: int,
    this_update: dt.datetime,
    next_update: dt.datetime,
) -> x509.CertificateRevocationList:
    """Make the authority's complete CRL (version 2, RFC 5280 §5.1 and §5.2).

    Args:
        authority: whose certificates these are.
        revoked: serial numbers, and when each was revoked.
        number: must be larger than any list's before (§5.2.3).
        this_update: aware; times are cut to whole seconds.
        next_update: by when there is a newer one.
    """
    entries = [
        x509.RevokedCertificateBuilder(serial_number=serial, revocation_date=_whole(at)).build()
        for serial, at in revoked
    ]
    issuer = authority.certificate
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    # Given at once: the builder's own way of adding copies the whole list for each entry.
    template = (
        x509.CertificateRevocationListBuilder(revoked_certificates=entries)
        .issuer_name(issuer.subject)
        .last_update(_whole(this_update))
        .next_update(_whole(next_update))
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
        )
    )
    made = template.sign(authority.private_key, hashes.SHA256(), ecdsa_deterministic=True)
    if not made.is_signature_valid(authority.private_key.public_key()):
        raise ValueError("the authority's key does not sign what its certificate verifies")
    return made


def deny_list(  # noqa: PLR0913 - times are arguments; a bag for them would hide that
    signing_key: ec.EllipticCurvePrivateKey,
    key_id: str,
    trust_domain: TrustDomain,
    token_ids: Iterable[str],
    *,
    issued_at: dt.datetime,
    expires_at: dt.datetime,
) -> str:
    """Make the list of a trust domain's revoked token ids: a JWS of `iss`, `iat`, `exp` and `revoked`.

    The ids are in `revoked`, since `jti` is one string, the list's own (RFC 7519 §4.1.7).
    """
    payload = {
        "iss": trust_domain.uri,
        "iat": int(issued_at.timestamp()),
        "exp": int(expires_at.timestamp()),
        "revoked": sorted(token_ids),
    }
    return sign_compact({"alg": "ES256", "kid": key_id, "typ": DENY_LIST_TYPE}, payload, signing_key)


def _whole(moment: dt.datetime) -> dt.datetime:
    return moment.replace(microsecond=0)
