"""Whether a certificate can be signed as it was asked for."""

from __future__ import annotations

from pilot_identity.core.decisions.credentials import granted_access
from pilot_identity.core.decisions.grants.seen import Request
from pilot_identity.core.decisions.objection import Check, Objection
from pilot_identity.core.resources.conditions import Reason
from pilot_identity.core.spiffe.certificate_request import CertificateRequestError, requested_key


def _certificate_request(request: Request) -> Objection | None:
    pem = request.grant.spec.certificate_request
    if not pem:
        return None
    try:
        requested_key(pem)
    except CertificateRequestError as error:
        return Objection(Reason.CERTIFICATE_REQUEST_INVALID, f"spec.certificateRequest: {error}")
    return None


def _needs_no_secret(request: Request) -> Objection | None:
    spec = request.grant.spec
    if not spec.certificate_request:
        return None
    if spec.secret_name:
        return Objection(
            Reason.CERTIFICATE_REQUEST_INVALID,
            "with spec.certificateRequest no Secret is made; leave spec.secretName out",
        )
    for asked, entry in granted_access(request.grant, request.pilot):
        if entry.kubernetes is not None:
            return Objection(
                Reason.CERTIFICATE_REQUEST_INVALID,
                f"access {asked.name!r} is Kubernetes access, whose token needs a Secret, and with "
                "spec.certificateRequest none is made; ask for it in a grant of its own",
            )
    return None


CERTIFICATE_REQUEST = (
    # Make sure that a weak key, or one that the requester has not, is never certified.
    Check("certificate-request-sound", _certificate_request),
    # Make sure that nothing is asked for that would be silently left out.
    Check("certificate-request-alone", _needs_no_secret),
)
