"""The JSON of a bundle or key set, read without believing it: JWKs, and the certificates in them."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography import x509

from pilot_identity.core.spiffe import jose
from pilot_identity.core.spiffe.clauses import Clause, SvidError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pilot_identity.core.spiffe.ids import TrustDomain

MAX_BUNDLE_OCTETS = 256 * 1024

X509_USE = "x509-svid"
JWT_USE = "jwt-svid"
# Tuples, because JSON may put anything there, and a set would hash it.
KEY_TYPES = ("EC", "RSA")
USES = (X509_USE, JWT_USE)

Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Document:
    """A bundle's or key set's JSON object, and what is known of it beforehand."""

    members: dict[str, Any]
    trust_domain: TrustDomain | None = None
    previous: dict[str, Any] | None = None

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The JWKs; an element that is no object reads as an empty one, which breaks every rule."""
        found = self.members.get("keys")
        if not isinstance(found, list):
            return ()
        return tuple(entry if isinstance(entry, dict) else {} for entry in found)

    def of_use(self, use: str) -> Iterator[Entry]:
        """The JWKs of one use."""
        return (entry for entry in self.entries if entry.get("use") == use)

    @property
    def certificates(self) -> Iterator[tuple[Entry, x509.Certificate]]:
        """Each X.509 entry whose first `x5c` value is a certificate, with that certificate."""
        for entry in self.of_use(X509_USE):
            certificate = first_certificate(entry)
            if certificate is not None:
                yield entry, certificate


def first_certificate(entry: Entry) -> x509.Certificate | None:
    """The certificate in an entry's first `x5c` value: standard base64 of DER (RFC 7517 §4.7)."""
    chain = entry.get("x5c")
    if not isinstance(chain, list) or not chain or not isinstance(chain[0], str):
        return None
    try:
        certificate = x509.load_der_x509_certificate(base64.b64decode(chain[0], validate=True))
        # Read here what the library would otherwise read, and fail on, later.
        tuple(certificate.extensions)
    except (ValueError, TypeError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return None
    return certificate


READABLE: Clause[object] = Clause(
    "RFC 7517 §5 encoding",
    "bundle must be one JSON object without repeated names",
    lambda _: True,
)
BOUNDED: Clause[str] = Clause(
    "Pilot §bundle octets",
    f"bundle must not be larger than {MAX_BUNDLE_OCTETS} bytes",
    lambda text: len(text) <= MAX_BUNDLE_OCTETS,
)


def read(text: str) -> dict[str, Any]:
    """Read the JSON object of a bundle or key set, or raise `SvidError`."""
    if not BOUNDED.is_kept(text):
        raise SvidError((BOUNDED.violation,))
    try:
        return jose.json_object(text)
    except ValueError as error:
        raise SvidError((READABLE.violation,)) from error


def consumed(members: dict[str, Any]) -> dict[str, Any]:
    """The document without what a consumer must ignore: unknown kinds and uses, `x5c` beyond the first."""
    found = members.get("keys")
    if not isinstance(found, list):
        return members
    return members | {"keys": [_first_x5c_only(entry) for entry in found if not _must_be_ignored(entry)]}


def _must_be_ignored(entry: Any) -> bool:
    if not isinstance(entry, dict):
        return False  # no JWK at all: that is refused, not ignored
    if entry.get("kty") not in KEY_TYPES or entry.get("use") not in USES:
        return True
    return entry["use"] == X509_USE and not entry.get("x5c")


def _first_x5c_only(entry: Any) -> Any:
    if isinstance(entry, dict) and isinstance(entry.get("x5c"), list):
        return entry | {"x5c": entry["x5c"][:1]}
    return entry
