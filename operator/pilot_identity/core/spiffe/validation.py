"""Every validator of this package in one place, and the list of every clause that they know.

For each document there is a form that answers with values (`…_violations`) and a form that raises them
(`validate_…`). `CLAUSES` is what the test vectors are counted against: a clause without a stored document
that breaks it, and only it, is a red test.
"""

from __future__ import annotations

from pilot_identity.core.spiffe import (
    bundle_profile,
    certificate_profile,
    ids,
    jwt_profile,
    rotation,
    x509_profile,
    x509_svid,
)
from pilot_identity.core.spiffe.bundle_profile import (
    bundle_violations,
    jwks_violations,
    validate_bundle,
    validate_jwks,
)
from pilot_identity.core.spiffe.certificate_profile import (
    signing_certificate_violations,
    validate_signing_certificate,
)
from pilot_identity.core.spiffe.clauses import SvidError, Violation
from pilot_identity.core.spiffe.jwt_profile import JwtSvid, jwt_svid_violations, validate_jwt_svid
from pilot_identity.core.spiffe.rotation import publication_violations
from pilot_identity.core.spiffe.x509_profile import X509Svid, validate_x509_svid, x509_svid_violations

__all__ = [
    "CLAUSES",
    "JwtSvid",
    "SvidError",
    "Violation",
    "X509Svid",
    "bundle_violations",
    "jwks_violations",
    "jwt_svid_violations",
    "publication_violations",
    "signing_certificate_violations",
    "validate_bundle",
    "validate_jwks",
    "validate_jwt_svid",
    "validate_signing_certificate",
    "validate_x509_svid",
    "x509_svid_violations",
]

CLAUSES: tuple[str, ...] = (
    *ids.CLAUSES,
    *certificate_profile.CLAUSES,
    *x509_profile.CLAUSES,
    *x509_svid.CLAUSES,
    *jwt_profile.CLAUSES,
    *bundle_profile.CLAUSES,
    *rotation.CLAUSES,
)
