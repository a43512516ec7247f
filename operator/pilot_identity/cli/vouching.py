"""Whether a stage signed what was found, by the bundle that it publishes beside its pilots.

What somebody brings may name any grant. Before a grant is ended on the word of a token, the token must be
known to the cluster or bear the stage's signature; else a forged one would end the work of others.
"""

from __future__ import annotations

from http import HTTPStatus

import jwt
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from pilot_identity.cli.clues import Clue
from pilot_identity.cli.failures import AnswerError
from pilot_identity.cli.session import Session, core
from pilot_identity.core.resources.pilot_identity import bundle_name
from pilot_identity.core.resources.task_grant import TaskGrant
from pilot_identity.core.spiffe import keys
from pilot_identity.core.spiffe.bundle import Bundle
from pilot_identity.core.spiffe.clauses import SpiffeIdError, SvidError
from pilot_identity.core.spiffe.ids import SpiffeId


def is_signed(session: Session, clue: Clue, grant: TaskGrant) -> bool | None:
    """Whether the stage of `grant` signed the token or certificate.

    `None` where that cannot be told: it is no token or certificate of ours, its key is not in the bundle (any
    more), or the user may not read the bundle.
    """
    credential = grant.status.credential
    if credential is None or not (clue.token or clue.certificate):
        return None
    name = bundle_name(grant.status.stage)
    try:
        stored = session.find(core(grant.metadata.namespace, "configmaps", name))
    except AnswerError as error:
        if error.status != HTTPStatus.FORBIDDEN:
            raise
        return None
    text = ((stored or {}).get("data") or {}).get("bundle.json", "")
    try:
        bundle = Bundle.parse_spiffe_json(text, SpiffeId.parse(credential.spiffe_id).trust_domain)
    except (SpiffeIdError, SvidError):
        return None
    if clue.certificate is not None:
        return _certificate_is(clue.certificate, bundle)
    return _token_is(clue.token, bundle)


def _token_is(token: str, bundle: Bundle) -> bool | None:
    """Only the signature counts here: a leaked token that has expired is still this stage's."""
    try:
        key = bundle.jwt_keys.get(str(jwt.get_unverified_header(token).get("kid")))
        if key is None:
            return None
        jwt.decode(token, key, algorithms=_algorithms(key), options=_SIGNATURE_ALONE)
    except (jwt.PyJWTError, TypeError, ValueError):
        return False
    return True


_SIGNATURE_ALONE: jwt.types.Options = {
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
}


def _algorithms(key: keys.VerificationKey) -> list[str]:
    """Those of the key's own kind, so that the token does not choose (RFC 8725 §3.1)."""
    return list(keys.algorithms(key))


def _certificate_is(certificate: x509.Certificate, bundle: Bundle) -> bool | None:
    for authority in bundle.authorities:
        try:
            certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return True
    return None
