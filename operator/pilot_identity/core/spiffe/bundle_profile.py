"""What SPIFFE_Trust_Domain_and_Bundle.md asks of a bundle's JSON, and OIDC of a key set.

There are two readings. A publisher answers for all of its document. A consumer must ignore what it does not
know (§4.1.3, §4.2, X509-SVID.md §6.2): `consumed` leaves that out, and the same rows read what remains.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from pilot_identity.core.spiffe import certificate_profile, keys
from pilot_identity.core.spiffe.bundle_document import (
    BOUNDED,
    JWT_USE,
    KEY_TYPES,
    READABLE,
    USES,
    X509_USE,
    Document,
    Entry,
    first_certificate,
    read,
)
from pilot_identity.core.spiffe.certificate import public_key, spiffe_id
from pilot_identity.core.spiffe.clauses import Clause, SvidError, Violation, broken, names

if TYPE_CHECKING:
    from pilot_identity.core.spiffe.ids import TrustDomain

MAX_SEQUENCE = (1 << 63) - 1  # §4.1.1: what readers with 64 bits can hold
MAX_REFRESH_HINT_SECONDS = 366 * 86_400

_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


def _sequence(members: dict[str, Any]) -> int | None:
    value = members.get("spiffe_sequence")
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _sequence_does_not_fall(document: Document) -> bool:
    if document.previous is None:
        return True
    now, before = _sequence(document.members), _sequence(document.previous)
    return now is None or before is None or now >= before


def _sequence_tells_contents_apart(document: Document) -> bool:
    if document.previous is None or document.members == document.previous:
        return True
    now = _sequence(document.members)
    return now is None or now != _sequence(document.previous)


def _optional_integer(name: str, document: Document, least: int, most: int) -> bool:
    value = document.members.get(name, least)
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _x5c_is_single(document: Document) -> bool:
    return all(
        isinstance(entry.get("x5c"), list) and len(entry["x5c"]) == 1 for entry in document.of_use(X509_USE)
    )


def _x5c_is_certificate(document: Document) -> bool:
    return all(
        first_certificate(entry) is not None
        for entry in document.of_use(X509_USE)
        if isinstance(entry.get("x5c"), list) and entry["x5c"]
    )


def _x5c_is_self_signed(document: Document) -> bool:
    for _, certificate in document.certificates:
        try:
            certificate.verify_directly_issued_by(certificate)
        except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
            return False
    return True


def _jwk_is_the_certificates_key(document: Document) -> bool:
    for entry, certificate in document.certificates:
        try:
            if keys.key_from_jwk(entry) != public_key(certificate):
                return False
        except ValueError:
            return False
    return True


def _authorities_are_of_the_trust_domain(document: Document) -> bool:
    identities = (spiffe_id(certificate) for _, certificate in document.certificates)
    return all(
        identity is None or document.trust_domain is None or identity.trust_domain == document.trust_domain
        for identity in identities
    )


def _has_key_id(entry: Entry) -> bool:
    return isinstance(entry.get("kid"), str) and entry["kid"] != ""


def _key_ids_are_unique(document: Document) -> bool:
    found = [entry["kid"] for entry in document.entries if _has_key_id(entry)]
    return len(found) == len(set(found))


def _has_keys(document: Document) -> bool:
    found = document.members.get("keys")
    return isinstance(found, list) and all(isinstance(entry, dict) for entry in found)


def _is_public_key(entry: Entry) -> bool:
    try:
        keys.key_from_jwk(entry)
    except ValueError:
        return False
    return True


def _names_an_algorithm_of_its_key(entry: Entry) -> bool:
    try:
        return entry.get("alg") in keys.algorithms(keys.key_from_jwk(entry))
    except ValueError:
        return True  # an unusable key has a row of its own


KEY_SET: tuple[Clause[Document], ...] = (
    # Make sure that there is a list of keys, even if it is empty (§4.1.3).
    Clause("Bundle §4.1.3 keys", "bundle must have a keys array of JWKs", _has_keys),
    # Make sure that no private key leaves the house.
    Clause(
        "Pilot §bundle private-key",
        "JWK must not have private members",
        lambda it: all(_PRIVATE_MEMBERS.isdisjoint(entry) for entry in it.entries),
    ),
    # Make sure that a kid names one key.
    Clause("RFC 7517 §4.5 kid-unique", "kid must be unique in the bundle", _key_ids_are_unique),
)

CONSUMED: tuple[Clause[Document], ...] = (
    *KEY_SET,
    # Make sure that updates can be ordered, and none is missed (§4.1.1).
    Clause(
        "Bundle §4.1.1 sequence-integer",
        "spiffe_sequence must be an integer of 63 bits and not negative",
        lambda it: _optional_integer("spiffe_sequence", it, 0, MAX_SEQUENCE),
    ),
    Clause(
        "Bundle §4.1.1 sequence-monotonic",
        "spiffe_sequence must not fall",
        _sequence_does_not_fall,
    ),
    Clause(
        "Bundle §4.1.1 sequence-changes",
        "spiffe_sequence must change with the bundle's contents",
        _sequence_tells_contents_apart,
    ),
    # Make sure that a consumer knows when to come back (§4.1.2).
    Clause(
        "Bundle §4.1.2 refresh-hint-integer",
        "spiffe_refresh_hint must be an integer of one second to one year",
        lambda it: _optional_integer("spiffe_refresh_hint", it, 1, MAX_REFRESH_HINT_SECONDS),
    ),
    # Make sure that an entry that certifies X.509-SVIDs is its certificate and nothing else (X509-SVID §6.1).
    Clause(
        "X509-SVID §6.1 kid-absent",
        "x509-svid entry must not have a kid",
        lambda it: all("kid" not in entry for entry in it.of_use(X509_USE)),
    ),
    Clause(
        "X509-SVID §6.1 x5c-certificate",
        "x5c must hold the base64 of a DER certificate",
        _x5c_is_certificate,
    ),
    Clause(
        "RFC 7517 §4.7 x5c-key",
        "JWK must hold the public key of its x5c certificate",
        _jwk_is_the_certificates_key,
    ),
    # Make sure that one trust domain cannot speak for another (SPIFFE_Federation.md §4.2).
    Clause(
        "Federation §4.2 trust-domain-merged",
        "bundle must not hold authorities of another trust domain",
        _authorities_are_of_the_trust_domain,
    ),
    # Make sure that a token's kid finds a key that can verify it (JWT-SVID §6.1).
    Clause(
        "JWT-SVID §6.1 kid-present",
        "jwt-svid entry must have a kid",
        lambda it: all(_has_key_id(entry) for entry in it.of_use(JWT_USE)),
    ),
    Clause(
        "RFC 7518 §6 public-key",
        "jwt-svid entry must hold an RSA key of 2048 to 8192 bits or a key on P-256, P-384 or P-521",
        # Its type has a row of its own.
        lambda it: all(
            _is_public_key(entry) for entry in it.of_use(JWT_USE) if entry.get("kty") in KEY_TYPES
        ),
    ),
)

PUBLISHED: tuple[Clause[Document], ...] = (
    *CONSUMED,
    # Make sure that what a consumer may miss is there (§4.1.1, §4.1.2).
    Clause(
        "Bundle §4.1.1 sequence-present",
        "spiffe_sequence must be set",
        lambda it: "spiffe_sequence" in it.members,
    ),
    Clause(
        "Bundle §4.1.2 refresh-hint-present",
        "spiffe_refresh_hint must be set",
        lambda it: "spiffe_refresh_hint" in it.members,
    ),
    # Make sure that no consumer has to ignore an entry (§4.2.1, §4.2.2).
    Clause(
        "Bundle §4.2.1 kty",
        "JWK must have the kty EC or RSA",
        lambda it: all(entry.get("kty") in KEY_TYPES for entry in it.entries),
    ),
    Clause(
        "Bundle §4.2.2 use",
        "JWK must have the use x509-svid or jwt-svid",
        lambda it: all(entry.get("use") in USES for entry in it.entries),
    ),
    # Make sure that each X.509 entry is one self-signed certificate (X509-SVID §6.1).
    Clause("X509-SVID §6.1 x5c-single", "x5c must hold exactly one certificate", _x5c_is_single),
    Clause("X509-SVID §6.1 x5c-self-signed", "x5c certificate must be self-signed", _x5c_is_self_signed),
)

JWKS: tuple[Clause[Document], ...] = (
    *KEY_SET,
    # Make sure that OIDC's keys and the SPIFFE bundle stay apart: each has its own `use`.
    Clause(
        "OIDC §jwks use-sig",
        "JWK must have the use sig",
        lambda it: all(entry.get("use") == "sig" for entry in it.entries),
    ),
    Clause(
        "OIDC §jwks x5c-absent",
        "key set must not hold certificates",
        lambda it: all("x5c" not in entry for entry in it.entries),
    ),
    # Make sure that a verifier finds the key by name and knows what it signs.
    Clause("OIDC §jwks kid-present", "JWK must have a kid", lambda it: all(map(_has_key_id, it.entries))),
    Clause(
        "OIDC §jwks public-key",
        "JWK must hold an RSA key of 2048 to 8192 bits or a key on P-256, P-384 or P-521",
        lambda it: all(map(_is_public_key, it.entries)),
    ),
    Clause(
        "OIDC §jwks alg",
        "JWK must have an alg that its key can sign with",
        lambda it: all(map(_names_an_algorithm_of_its_key, it.entries)),
    ),
)

CLAUSES = names((READABLE,), (BOUNDED,), PUBLISHED, JWKS[len(KEY_SET) :])


def document_violations(document: Document, table: tuple[Clause[Document], ...]) -> tuple[Violation, ...]:
    """What is wrong with a document that was read, its signing certificates included."""
    certificates = (certificate for _, certificate in document.certificates)
    return (
        *broken(table, document),
        *(each for it in certificates for each in certificate_profile.signing_certificate_violations(it)),
    )


def bundle_violations(
    text: str,
    trust_domain: TrustDomain,
    *,
    previous: str | None = None,
) -> tuple[Violation, ...]:
    """What is wrong with a bundle that is to be published in place of `previous`."""
    try:
        before = None if previous is None else read(previous)
        return document_violations(Document(read(text), trust_domain, before), PUBLISHED)
    except SvidError as error:
        return error.violations


def jwks_violations(text: str) -> tuple[Violation, ...]:
    """What is wrong with an OIDC key set that is to be published."""
    try:
        return document_violations(Document(read(text)), JWKS)
    except SvidError as error:
        return error.violations


def validate_bundle(text: str, trust_domain: TrustDomain, *, previous: str | None = None) -> None:
    """Accept a bundle for publication or raise `SvidError` with every clause that it breaks."""
    violations = bundle_violations(text, trust_domain, previous=previous)
    if violations:
        raise SvidError(violations)


def validate_jwks(text: str) -> None:
    """Accept an OIDC key set for publication or raise `SvidError` with every clause that it breaks."""
    violations = jwks_violations(text)
    if violations:
        raise SvidError(violations)
