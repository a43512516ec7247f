"""Who reports: the holder of a grant's own credential, and nobody else.

A JWT-SVID of the grant is taken for any audience that the grant has: a tool's gateway holds the token that it
was called with, and no other. So the entry names the audience: whoever serves it may have made the report.
Where the caller shows a client certificate too, it must be the one that the token is bound to (RFC 8705).
An X.509-SVID of the grant over mutual TLS is its holder's alone.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cryptography import x509

from pilot_identity.core.decisions.credentials import CLAIMS
from pilot_identity.core.resources import Phase, TaskGrant
from pilot_identity.core.resources.metadata import Key
from pilot_identity.core.resources.task_grant import IssuedToken
from pilot_identity.core.resources.timestamps import format_timestamp
from pilot_identity.core.spiffe import jose
from pilot_identity.core.spiffe.bundle import Bundle
from pilot_identity.core.spiffe.clauses import SpiffeIdError, SvidError
from pilot_identity.core.spiffe.ids import SpiffeId
from pilot_identity.core.spiffe.jwt_profile import jwt_svid_violations
from pilot_identity.core.spiffe.jwt_token import MAX_TOKEN_OCTETS
from pilot_identity.core.spiffe.x509_profile import read_chain, validate_x509_svid

_EXPIRED = "RFC 7519 §4.1.4 expired"
_TASK_SEGMENTS = 6


class NotAuthenticatedError(Exception):
    """Nobody knows who reports: no credential, or none of a grant of ours. The message may be told."""


class NotAllowedError(Exception):
    """Who reports is known, and may not any more. The message says why."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A credential that was shown, validated but for the grant that it names.

    Attributes:
        grant: the key that it names.
        uid: the grant's UID as the credential says it; empty where it does not.
        token_id: of a JWT-SVID.
        serial: of an X.509-SVID, in hexadecimal.
        has_expired: it was good, and its time is over.
        told: what the log says of it.
    """

    grant: Key
    uid: str
    token_id: str
    serial: str
    has_expired: bool
    told: Mapping[str, Any]


def claimed_id(token: str) -> SpiffeId:
    """Read whom a token speaks of, to find the keys that it must be verified with. Nothing is believed.

    Raises:
        NotAuthenticatedError: it is no token with a SPIFFE ID.
    """
    return _subject(_claims(token))


def presented_id(certificate: bytes) -> SpiffeId:
    """Read whom a client certificate (DER) speaks of, to find the authorities that it must be verified with.

    Raises:
        NotAuthenticatedError: it is no certificate with one SPIFFE ID.
    """
    try:
        (leaf,) = read_chain(certificate)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
        return SpiffeId.parse(uri)
    except (ValueError, SvidError, SpiffeIdError, x509.ExtensionNotFound) as error:
        raise NotAuthenticatedError("the client certificate has no SPIFFE ID of a grant") from error


def check_token(token: str, bundle: Bundle, now: dt.datetime, client: bytes | None) -> Credential:
    """Validate a JWT-SVID with its stage's bundle; with a client certificate (DER) it must be bound to it.

    Raises:
        NotAuthenticatedError: it is not one of that stage; every clause that it breaks is told.
    """
    claims = _claims(token)
    audience = claims.get("aud")
    if not isinstance(audience, str):
        raise NotAuthenticatedError("the token must have one audience")
    holder = x509.load_der_x509_certificate(client) if client is not None else None
    violations = jwt_svid_violations(token, bundle, audience, now, client=holder, issued=True)
    if any(violation.clause != _EXPIRED for violation in violations):
        raise NotAuthenticatedError("; ".join(map(str, violations)))
    ours = claims.get(CLAIMS)
    grant = ours.get("grant") if isinstance(ours, dict) else None
    uid = grant.get("uid") if isinstance(grant, dict) else None
    told = {"method": "JWT-SVID", "jti": claims["jti"], "audience": audience, "bound": holder is not None}
    return Credential(
        grant=_grant_key(_subject(claims)),
        uid=uid if isinstance(uid, str) else "",
        token_id=claims["jti"],
        serial="",
        has_expired=bool(violations),
        told=told,
    )


def check_certificate(certificate: bytes, bundle: Bundle, now: dt.datetime) -> Credential:
    """Validate an X.509-SVID (DER) that TLS has seen its holder's key for.

    Raises:
        NotAuthenticatedError: it is not one of that stage; every clause that it breaks is told.
    """
    try:
        svid = validate_x509_svid(certificate, bundle, now)
    except SvidError as error:
        raise NotAuthenticatedError(str(error)) from error
    serial = f"{svid.leaf.serial_number:x}"
    told = {"method": "X509-SVID", "serial": serial}
    return Credential(_grant_key(svid.spiffe_id), "", "", serial, has_expired=False, told=told)


def require_standing(credential: Credential, grant: TaskGrant | None, now: dt.datetime) -> TaskGrant:
    """Require that the credential is one that its grant has, and that the grant has not ended.

    Raises:
        NotAuthenticatedError: the credential is not the grant's, or its time is over.
        NotAllowedError: the grant has ended, or is another one.
    """
    if grant is None:
        raise NotAllowedError(f"{credential.grant} is gone: nothing is recorded after a grant's end")
    if credential.uid and credential.uid != grant.metadata.uid:
        raise NotAllowedError(f"{credential.grant} is another grant by now: this credential's has ended")
    ending = ending_of(grant, now)
    if ending:
        raise NotAllowedError(f"{grant.key} {ending}: nothing is recorded after a grant's end")
    if credential.has_expired:
        raise NotAuthenticatedError("the token has expired; read the Secret anew, it was renewed")
    if not _is_issued(credential, grant):
        raise NotAuthenticatedError(f"the credential is not one that {grant.key} has")
    return grant


def ending_of(grant: TaskGrant, now: dt.datetime) -> str:
    """Say how a grant ended, or that it has not begun; empty while its credentials are good."""
    status = grant.status
    if status.phase.is_terminal or status.phase is Phase.CLOSING:
        closure = status.closure
        why = f" ({closure.message})" if closure is not None and closure.message else ""
        return f"is {status.phase}{why}"
    if status.phase is not Phase.ACTIVE or status.expires_at is None:
        return f"is {status.phase} and has no credential"
    if grant.metadata.is_deleting or grant.spec.revoke is not None or grant.spec.completed:
        return "is being ended"
    if status.expires_at <= now:
        return f"expired at {format_timestamp(status.expires_at)}"
    return ""


def _is_issued(credential: Credential, grant: TaskGrant) -> bool:
    if credential.serial:
        return credential.serial in set(_serials(grant))
    told = {(token.jti, token.audience) for token in _tokens(grant)}
    return (credential.token_id, credential.told["audience"]) in told


def _serials(grant: TaskGrant) -> Iterator[str]:
    issued = grant.status.credential
    if issued is not None:
        yield issued.serial
        yield from (former.serial for former in issued.superseded)


def _tokens(grant: TaskGrant) -> Iterator[IssuedToken]:
    issued = grant.status.credential
    if issued is not None:
        yield from issued.tokens
        for former in issued.superseded:
            yield from former.tokens


def _claims(token: str) -> Mapping[str, Any]:
    if len(token) > MAX_TOKEN_OCTETS:
        raise NotAuthenticatedError(f"a token has at most {MAX_TOKEN_OCTETS} bytes")
    try:
        _, payload, _ = token.split(".")
        return jose.json_object(jose.decode(payload))
    except ValueError as error:
        raise NotAuthenticatedError("the token must be a JWS in compact serialization") from error


def _subject(claims: Mapping[str, Any]) -> SpiffeId:
    subject = claims.get("sub")
    if not isinstance(subject, str):
        raise NotAuthenticatedError("the token must say whom it speaks of (sub)")
    try:
        return SpiffeId.parse(subject)
    except SpiffeIdError as error:
        raise NotAuthenticatedError(f"sub: {error}") from error


def _grant_key(identity: SpiffeId) -> Key:
    """Name the grant of a task's SPIFFE ID."""
    segments = identity.segments
    if len(segments) != _TASK_SEGMENTS or (segments[0], segments[2], segments[4]) != ("ns", "pilot", "task"):
        raise NotAuthenticatedError(f"{identity} is no task's: show the grant's own credential")
    return Key("TaskGrant", segments[1], segments[5])
