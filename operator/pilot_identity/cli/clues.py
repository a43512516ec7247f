"""Clues: what a found credential says of itself. Nothing of it is believed; it only tells where to look.

Taken apart are tokens, certificates, private keys, kubeconfigs and Secrets' manifests, and plain identifiers
as people copy them: a serial number with or without colons, a token's id, a Secret's name, a SPIFFE ID. No
text form of a clue has the credential itself, and no error repeats what was given: it may be a secret.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jwt
import yaml
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from pilot_identity.cli.failures import CliError
from pilot_identity.core.spiffe.clauses import SpiffeIdError
from pilot_identity.core.spiffe.ids import SpiffeId
from pilot_identity.core.spiffe.jwt_svid import NAMESPACE as CLAIMS
from pilot_identity.core.spiffe.keys import spki_sha256

_TOKEN = re.compile(r"[A-Za-z0-9_-]{2,}\.[A-Za-z0-9_-]{2,}\.[A-Za-z0-9_-]*")
_SERIAL = re.compile(r"(?:serial=)?(?:0x)?([0-9a-f]{1,40}|(?:[0-9a-f]{2}:)+[0-9a-f]{2})", re.IGNORECASE)
_JTI = re.compile(r"(?:jti=)?([A-Za-z0-9._-]{8,128})", re.IGNORECASE)
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_MAX_LITERAL = 2048
_TASK_SEGMENTS = 6
_PILOT_SEGMENTS = 4
_PEM = "-----BEGIN "


@dataclass(frozen=True, slots=True)
class Clue:
    """What one credential or identifier says; empty where it does not say.

    Attributes:
        what: what it is, for people.
        grant: name of the grant that it claims to be of, with `grant_uid` where it says so.
        serial: of a certificate, lower-case hex without leading zeros.
        jti: of a token.
        account: name of the ServiceAccount of a Kubernetes token.
        key_sha256: hash of the public key, in hex.
        expires_at: when it ends by its own word.
        is_literal: an identifier that somebody typed; what it names is not known beforehand.
        token: the token itself, for its signature alone.
        certificate: the certificate, likewise.
    """

    what: str
    namespace: str = ""
    pilot: str = ""
    grant: str = ""
    grant_uid: str = ""
    serial: str = ""
    jti: str = ""
    account: str = ""
    secret: str = ""
    key_sha256: str = ""
    expires_at: dt.datetime | None = None
    is_literal: bool = False
    token: str = field(default="", repr=False)
    certificate: x509.Certificate | None = field(default=None, repr=False)

    @property
    def identifiers(self) -> frozenset[str]:
        """What the records may have of it, word for word."""
        named = (self.serial, self.jti, self.jti and f"JTI={self.jti}", self.key_sha256, self.secret)
        return frozenset(filter(None, named))

    @property
    def shown(self) -> dict[str, str]:
        """What may be shown of it; of what was typed nothing, since it may be a secret after all."""
        if self.is_literal:
            return {"what": self.what}
        told = {
            "what": self.what,
            "namespace": self.namespace,
            "pilot": self.pilot,
            "grant": self.grant,
            "serial": self.serial,
            "jti": self.jti,
            "serviceAccount": self.account,
            "secret": self.secret,
            "publicKeySHA256": self.key_sha256,
            "expiresAt": self.expires_at.isoformat() if self.expires_at else "",
        }
        return {key: value for key, value in told.items() if value}


def read_clues(text: str) -> list[Clue]:
    """Take apart what was found.

    Raises:
        CliError: it is nothing that can be traced; the message does not repeat it.
    """
    text = text.strip()
    clues = list(_clues(text))
    if not clues:
        raise CliError(
            "this is nothing that can be traced",
            "give a token, a certificate, a kubeconfig, a Secret's name, a serial or a jti; '-' reads stdin",
        )
    return list(dict.fromkeys(clues))


def _clues(text: str) -> Iterator[Clue]:
    bare = text.removeprefix("Bearer ").strip()
    if _PEM in text and not text.startswith(("{", "apiVersion", "kind")):
        yield from _pem(text)
    elif _TOKEN.fullmatch(bare) and (clue := _token(bare)) is not None:
        yield clue
    elif "\n" in text or text.startswith("{"):
        yield from _manifest(text)
    elif len(text) <= _MAX_LITERAL:
        yield from _literal(text)


def _literal(text: str) -> Iterator[Clue]:
    kind, slash, name = text.rpartition("/")
    if slash and _NAME.fullmatch(name) and kind in {"secret", "secrets"}:
        yield Clue("a Secret's name", secret=name, is_literal=True)
    elif slash and _NAME.fullmatch(name) and kind.partition(".")[0] in {"grant", "taskgrant", "taskgrants"}:
        yield Clue("a grant's name", grant=name, is_literal=True)
    elif text.startswith("spiffe://"):
        clue = _spiffe(text, Clue("a SPIFFE ID"))
        if clue.pilot:
            yield clue
    else:
        serial, jti = _SERIAL.fullmatch(text), _JTI.fullmatch(text)
        clue = Clue(
            "an identifier",
            serial=normal_serial(serial[1]) if serial else "",
            jti=jti[1] if jti else "",
            secret=text if _NAME.fullmatch(text) else "",
            is_literal=True,
        )
        if clue.serial or clue.jti or clue.secret:
            yield clue


def normal_serial(text: str) -> str:
    """A serial number as statuses write it.

    >>> normal_serial("0A:1B:2c")
    'a1b2c'
    """
    return text.replace(":", "").lower().lstrip("0")


def _spiffe(uri: str, clue: Clue) -> Clue:
    """Add what one of our SPIFFE IDs says: `/ns/<namespace>/pilot/<pilot>[/task/<grant>]`."""
    try:
        segments = SpiffeId.parse(uri).segments
    except SpiffeIdError:
        return clue
    named = dict(zip(segments[::2], segments[1::2], strict=False))
    if len(segments) not in {_PILOT_SEGMENTS, _TASK_SEGMENTS} or not {"ns", "pilot"} <= named.keys():
        return clue
    return replace(clue, namespace=named["ns"], pilot=named["pilot"], grant=named.get("task", ""))


def _token(text: str) -> Clue | None:
    try:
        claims = jwt.decode(text, options={"verify_signature": False})
    except jwt.PyJWTError:
        return None
    clue = Clue("a token", jti=_text(claims.get("jti")), expires_at=_moment(claims.get("exp")), token=text)
    bound = _mapping(claims.get("kubernetes.io"))
    if bound:
        return replace(
            clue,
            what="a Kubernetes token",
            namespace=_text(bound.get("namespace")),
            account=_text(_mapping(bound.get("serviceaccount")).get("name")),
        )
    clue = _spiffe(_text(claims.get("sub")), replace(clue, what="a JWT-SVID"))
    ours = _mapping(_mapping(claims.get(CLAIMS)).get("grant"))
    if not ours:
        return clue
    return replace(
        clue,
        namespace=_text(ours.get("namespace")),
        grant=_text(ours.get("name")),
        grant_uid=_text(ours.get("uid")),
    )


def _pem(text: str) -> Iterator[Clue]:
    content = text.encode()
    try:
        for certificate in x509.load_pem_x509_certificates(content) if "BEGIN CERTIFICATE-" in text else ():
            clue = _certificate(certificate)
            if clue is not None:
                yield clue
        if "PRIVATE KEY-" in text:
            key = load_pem_private_key(content[content.index(b"-----BEGIN", _key_at(text)) :], None)
            if isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)):
                yield Clue("a private key", key_sha256=spki_sha256(key.public_key()))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # Not chained: the library's error may hold what it could not read.
        raise CliError(
            "this PEM cannot be read: it is broken or encrypted", "give the certificate beside it instead"
        ) from None


def _key_at(text: str) -> int:
    """Where the private key's block begins, which need not be the first block."""
    return len(text[: text.index("PRIVATE KEY-")].rpartition(_PEM)[0].encode())


def _certificate(certificate: x509.Certificate) -> Clue | None:
    """What a leaf says; authorities in the same file are not what was found."""
    try:
        if certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return None
    except x509.ExtensionNotFound:
        pass
    clue = Clue(
        "a certificate",
        serial=f"{certificate.serial_number:x}",
        expires_at=certificate.not_valid_after_utc,
        certificate=certificate,
    )
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return clue
    for uri in names.get_values_for_type(x509.UniformResourceIdentifier):
        clue = _spiffe(uri, clue)
    return clue


def _manifest(text: str) -> Iterator[Clue]:
    """A kubeconfig's users, or what a Secret holds."""
    try:
        document = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe
    except (yaml.YAMLError, RecursionError):
        return
    document = _mapping(document)
    users = document.get("users")
    for each in users if isinstance(users, list) else ():
        user = _mapping(_mapping(each).get("user"))
        yield from _clues_of(_text(user.get("token")))
        yield from _clues_of(_decoded(user.get("client-certificate-data")))
    if document.get("kind") == "Secret":
        metadata = _mapping(document.get("metadata"))
        name, namespace = _text(metadata.get("name")), _text(metadata.get("namespace"))
        files = {key: _decoded(value) for key, value in _mapping(document.get("data")).items()}
        for key, content in files.items():
            if key.endswith((".jwt", ".crt")) or key in {"kubeconfig", "token"}:
                yield from _clues_of(content)
        if name:
            yield Clue("a Secret", namespace=namespace, secret=name)


def _clues_of(text: str) -> Iterator[Clue]:
    """What a part says, where it is a credential; a part is never a typed identifier."""
    return (clue for clue in _clues(text.strip()) if not clue.is_literal)


def _decoded(value: Any) -> str:
    try:
        return base64.b64decode(_text(value), validate=False).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return ""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _moment(value: Any) -> dt.datetime | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return dt.datetime.fromtimestamp(value, dt.UTC)
    except (OverflowError, OSError, ValueError):
        return None
