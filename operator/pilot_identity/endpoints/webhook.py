"""The audit webhook: kube-apiserver posts its own audit events (`--audit-webhook-config-file`).

What it tells is believed, so it must show that it is the API server: by a client certificate of an authority
that signs for nobody else (or by that certificate's name), by a token, or by both where both are set. All
others get the same answer, after the same work.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pilot_identity.control.sightings import Sightings, TooMuchError
from pilot_identity.core.audit.access import AuditError, parse_events, sightings_of
from pilot_identity.core.decisions.kubernetes_access import ACCOUNT_PREFIX
from pilot_identity.endpoints.server import client_certificate, read_body
from pilot_identity.ports import Clock

log = logging.getLogger(__name__)

PATH = "/v1/audit-events"
MAX_BODY_OCTETS = 10 * 1024 * 1024 + 64 * 1024
"""--audit-webhook-truncate-max-batch-size is 10 MiB by default, give or take several hundred bytes."""
RETRY_SECONDS = "5"
_MAX_TOKEN_FILE = 16 * 1024
_SCHEME = "Bearer "


class CredentialsError(ValueError):
    """What the API server is to be known by cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Sender:
    """What the API server is known by; all that is set must be shown, and something is.

    Attributes:
        authorities: PEM of those who sign its client certificate; `None` asks for no certificate.
        name: the common name that the certificate must have; empty takes any that they signed.
        token_file: what it sends as a bearer token; read anew for each batch, so that it can be changed.
    """

    authorities: Path | None = None
    name: str = ""
    token_file: Path | None = None

    def __post_init__(self) -> None:
        if self.authorities is None and self.token_file is None:
            raise CredentialsError("the audit webhook needs a client CA, a token file, or both")
        if self.name and self.authorities is None:
            raise CredentialsError("a client certificate's name counts only beside its CA")
        self._signers()
        self._digest()

    def pem(self) -> str:
        """The authorities, for the handshake."""
        return self.authorities.read_text(encoding="ascii") if self.authorities is not None else ""

    def is_shown(self, certificate: bytes | None, authorization: str, clock: Clock) -> bool:
        """Whether a request shows all that is set; each part is looked at whatever the others say."""
        has_certificate = self.authorities is None or self._is_certified(certificate, clock)
        has_token = self.token_file is None or self._is_token(authorization)
        return has_certificate and has_token

    def _is_token(self, authorization: str) -> bool:
        scheme, given = authorization[: len(_SCHEME)], authorization[len(_SCHEME) :]
        digest = hashlib.sha256(given.encode("utf-8", "surrogatepass")).digest()
        return hmac.compare_digest(digest, self._digest()) and scheme == _SCHEME

    def _digest(self) -> bytes:
        """SHA-256 of the token: two digests are compared, so that not even the length can be timed."""
        if self.token_file is None:
            return b""
        with self.token_file.open("rb") as file:
            token = file.read(_MAX_TOKEN_FILE).strip()
        if not token:
            raise CredentialsError(f"{self.token_file} has no token")
        return hashlib.sha256(token).digest()

    def _signers(self) -> list[x509.Certificate]:
        if self.authorities is None:
            return []
        found = x509.load_pem_x509_certificates(self.authorities.read_bytes())
        return [certificate for certificate in found if _may_sign(certificate)]

    def _is_certified(self, certificate: bytes | None, clock: Clock) -> bool:
        """Whether a certificate, whose key TLS has seen, is the API server's."""
        if certificate is None:
            return False
        leaf, now = x509.load_der_x509_certificate(certificate), clock()
        if not leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc or not _is_for_clients(leaf):
            return False
        if self.name and self.name not in _names(leaf):
            return False
        return any(_is_signed(leaf, signer) for signer in self._signers())


def _names(leaf: x509.Certificate) -> list[str | bytes]:
    return [attribute.value for attribute in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]


def _may_sign(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _is_for_clients(leaf: x509.Certificate) -> bool:
    try:
        purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return ExtendedKeyUsageOID.CLIENT_AUTH in purposes


def _is_signed(leaf: x509.Certificate, signer: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(signer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def application(
    sender: Sender, sightings: Sightings, clock: Clock, *, is_working: Callable[[], bool]
) -> web.Application:
    """Make the application; while `is_working` says no, the API server is asked to come back.

    It keeps a batch for five tries, each on a connection of its own, so that another replica is found.
    """

    async def take(request: web.Request) -> web.Response:
        authorization = request.headers.get("Authorization", "")
        if not sender.is_shown(client_certificate(request), authorization, clock):
            log.warning("refused to take audit events from %s: it is not the API server", request.remote)
            return _closing(401, "show that you are the API server\n")
        if not is_working():
            return _closing(503, "another replica works\n")
        try:
            events = parse_events(await read_body(request, MAX_BODY_OCTETS))
            if not is_working():  # any more: what is counted while it stops would never be told
                return _closing(503, "another replica works\n")
            sightings.take(sightings_of(events, ACCOUNT_PREFIX))
        except AuditError as error:
            log.warning("cannot read audit events: %s", error)
            return _closing(400, f"{error}\n")
        except TooMuchError as error:
            log.warning("cannot take more audit events: %s", error)
            return _closing(503, f"{error}\n")
        return web.Response()

    app = web.Application(client_max_size=MAX_BODY_OCTETS)
    app.add_routes([web.post(PATH, take)])
    return app


def _closing(status: int, text: str) -> web.Response:
    """Answer, and hang up: the body was not read, and a new connection may find another replica."""
    response = web.Response(status=status, text=text, headers={"Retry-After": RETRY_SECONDS})
    response.force_close()
    return response
