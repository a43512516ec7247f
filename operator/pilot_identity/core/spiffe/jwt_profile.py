"""Whether a token is a JWT-SVID of a trust domain, for an audience, at a moment (JWT-SVID.md §1 to §4).

Nothing about the token is believed before it was checked: `alg` only picks from what the key, found by `kid`
in the bundle, can verify with. So "none", an HMAC over a public key and EdDSA end at the same row.
"""

from __future__ import annotations

import datetime as dt
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jwt.algorithms import get_default_algorithms

from pilot_identity.core.spiffe import jwt_token, keys
from pilot_identity.core.spiffe.clauses import Clause, SpiffeIdError, SvidError, Violation, broken, names
from pilot_identity.core.spiffe.ids import SpiffeId
from pilot_identity.core.spiffe.jwt_token import (
    Expectation,
    Presented,
    certificate_thumbprint,
    is_numeric_date,
    read,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography import x509

    from pilot_identity.core.spiffe.bundle import Bundle

ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512"})
_VERIFIERS = get_default_algorithms()

_HEADERS = frozenset({"alg", "kid", "typ"})
_REGISTERED = frozenset(
    # RFC 7519 §4.1; RFC 7800 §3.1; RFC 9396 §9.1.
    {"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "cnf", "authorization_details"},
)
_DATES = ("exp", "nbf", "iat")


@dataclass(frozen=True, slots=True)
class JwtSvid:
    """A JWT-SVID that was validated. Dates are aware; `claims` is everything in its payload."""

    spiffe_id: SpiffeId
    audience: tuple[str, ...]
    expires_at: dt.datetime
    claims: Mapping[str, Any]


def _alg_is_supported(token: Presented) -> bool:
    alg = token.header.get("alg")
    return isinstance(alg, str) and alg in ALGORITHMS


def _key_signs_with_alg(token: Presented) -> bool:
    if token.key is None or not _alg_is_supported(token):
        return True  # each has a row of its own
    return token.header["alg"] in keys.algorithms(token.key)


def _signature_is_the_keys(token: Presented) -> bool:
    key, alg = token.key, token.header.get("alg")
    if key is None or alg not in keys.algorithms(key):
        return True  # there is nothing to verify with, and rows above say so
    return _VERIFIERS[alg].verify(token.signed, key, token.signature)


def _aud_has_values(token: Presented) -> bool:
    if token.claims.get("aud") is None:
        return True  # absence has a row of its own
    return len(token.audiences) > 0 and all(isinstance(it, str) and it != "" for it in token.audiences)


def _is_for_the_audience(token: Presented) -> bool:
    if token.claims.get("aud") is None or not _aud_has_values(token):
        return True
    return token.expected.audience in token.audiences


def _sub_has_a_path(token: Presented) -> bool:
    return token.subject is None or token.subject.segments != ()


def _sub_is_of_the_trust_domain(token: Presented) -> bool:
    return token.subject is None or token.subject.trust_domain == token.expected.bundle.trust_domain


def _has_not_expired(token: Presented) -> bool:
    expires = token.date("exp")
    return expires is None or token.expected.at - token.expected.leeway < expires


def _has_begun(claim: str, token: Presented) -> bool:
    begins = token.date(claim)
    return begins is None or begins <= token.expected.at + token.expected.leeway


def _is_held_by_its_client(token: Presented) -> bool:
    if token.expected.client is None:
        return True
    confirmation = token.claims.get("cnf")
    claimed = confirmation.get("x5t#S256") if isinstance(confirmation, dict) else None
    if not isinstance(claimed, str):
        return False  # a verifier that asks for the binding gets the binding
    actual = certificate_thumbprint(token.expected.client)
    return hmac.compare_digest(claimed.encode("utf-8", "surrogatepass"), actual.encode("ascii"))


TOKEN: tuple[Clause[Presented], ...] = (
    # Make sure that no header can steer us: crit, jwk, jku, x5u and whatever comes next (§2).
    Clause(
        "JWT-SVID §2 headers",
        "header must not have parameters other than alg, kid and typ",
        lambda it: _HEADERS.issuperset(it.header),
    ),
    # Make sure that it is signed, and with a public key (§2.1).
    Clause("JWT-SVID §2.1 alg", f"alg must be one of {', '.join(sorted(ALGORITHMS))}", _alg_is_supported),
    # Make sure that its key is named: we try no keys in turn (§2.2, §6.2).
    Clause("JWT-SVID §2.2 kid-present", "kid must be set", lambda it: isinstance(it.header.get("kid"), str)),
    Clause(
        "JWT-SVID §6.2 kid-known",
        "kid must be that of a jwt-svid key of the bundle",
        lambda it: it.key is not None or not isinstance(it.header.get("kid"), str),
    ),
    # Make sure that it is a JWT, if it says what it is (§2.3).
    Clause(
        "JWT-SVID §2.3 typ",
        "typ must be JWT or JOSE where it is set",
        lambda it: "typ" not in it.header or it.header["typ"] in ("JWT", "JOSE"),
    ),
    # Make sure that the key was made for the algorithm, and that it made this signature (§4).
    Clause("RFC 7518 §3.1 alg-key", "alg must be one that the key can sign with", _key_signs_with_alg),
    Clause("JWT-SVID §4 signature", "signature must be that of the bundle's key", _signature_is_the_keys),
    # Make sure that it names a workload of the trust domain whose keys we hold (§3.1).
    Clause("JWT-SVID §3.1 sub-present", "sub must be set", lambda it: isinstance(it.claims.get("sub"), str)),
    Clause("JWT-SVID §3.1 sub-path", "sub must be a SPIFFE ID with a path", _sub_has_a_path),
    Clause(
        "JWT-SVID §3.1 sub-trust-domain",
        "sub must be of the bundle's trust domain",
        _sub_is_of_the_trust_domain,
    ),
    # Make sure that it was meant for us (§3.2).
    Clause("JWT-SVID §3.2 aud-present", "aud must be set", lambda it: it.claims.get("aud") is not None),
    Clause("JWT-SVID §3.2 aud-values", "aud must have one value or more, each a string", _aud_has_values),
    Clause("JWT-SVID §3.2 aud-matches", "aud must have the validator's audience", _is_for_the_audience),
    # Make sure that it ends, and has not (§3.3).
    Clause("JWT-SVID §3.3 exp-present", "exp must be set", lambda it: it.claims.get("exp") is not None),
    Clause(
        "RFC 7519 §2 numeric-date",
        "exp, nbf and iat must be seconds since 1970, before the year 10000",
        lambda it: all(
            is_numeric_date(it.claims[date]) for date in _DATES if it.claims.get(date) is not None
        ),
    ),
    Clause("RFC 7519 §4.1.4 expired", "token must not have expired", _has_not_expired),
    # Make sure that it has begun (RFC 7519 §4.1.5, §4.1.6).
    Clause("RFC 7519 §4.1.5 nbf", "token must not be used before its nbf", lambda it: _has_begun("nbf", it)),
    Clause("RFC 7519 §4.1.6 iat", "token must not be issued in the future", lambda it: _has_begun("iat", it)),
    # Make sure that it was not copied from its holder, where we see who holds it (RFC 8705 §3.1).
    Clause(
        "RFC 8705 §3.1 x5t#S256",
        "cnf must be the thumbprint of the client's certificate",
        _is_held_by_its_client,
    ),
)

# What we ask of our own tokens beyond the standard, or where it recommends.
ISSUED: tuple[Clause[Presented], ...] = (
    # Make sure that the header is the one that every verifier reads.
    Clause(
        "Pilot §issued header",
        "our token's header must be alg ES256, kid and typ JWT",
        lambda it: (it.header.get("alg"), it.header.get("typ")) == ("ES256", "JWT"),
    ),
    # Make sure that who receives it cannot pass it on to the next audience (§3.2, §7.2).
    Clause(
        "JWT-SVID §3.2 aud-single-string",
        "our token's aud must be a single string",
        lambda it: it.claims.get("aud") is None or isinstance(it.claims["aud"], str),
    ),
    # Make sure that every claim of ours has a name of ours (§3; RFC 7519 §4.2).
    Clause(
        "JWT-SVID §3 collision-resistant",
        "claims that are not registered must be named by an https URL",
        lambda it: all(name in _REGISTERED or name.startswith("https://") for name in it.claims),
    ),
    # Make sure that the log can name the token and its time.
    Clause(
        "Pilot §issued jti", "our token's jti must be set", lambda it: isinstance(it.claims.get("jti"), str)
    ),
    Clause("Pilot §issued iat", "our token's iat must be set", lambda it: it.claims.get("iat") is not None),
    Clause(
        "Pilot §issued integer-dates",
        "our token's dates must be whole seconds",
        lambda it: not any(isinstance(it.claims.get(date), float) for date in _DATES),
    ),
)

CLAUSES = (*jwt_token.CLAUSES, *names(TOKEN, ISSUED))


def _judge(token: Presented, table: tuple[Clause[Presented], ...]) -> tuple[Violation, ...]:
    found = broken(table, token)
    try:
        if isinstance(token.claims.get("sub"), str):
            SpiffeId.parse(token.claims["sub"])
    except SpiffeIdError as error:
        return (*found, error.violation)
    return found


def jwt_svid_violations(  # noqa: PLR0913  # what a verifier knows; a bag would only hide it
    token: str,
    bundle: Bundle,
    audience: str,
    at: dt.datetime,
    *,
    leeway: dt.timedelta = dt.timedelta(0),
    client: x509.Certificate | None = None,
    issued: bool = False,
) -> tuple[Violation, ...]:
    """What is wrong with a token as a JWT-SVID of the bundle's trust domain for `audience`.

    `leeway` is how far clocks may differ. With `client`, the certificate that the caller showed over mutual
    TLS, the token must be bound to it. With `issued`, it is held to what we ask of our own tokens.
    """
    try:
        presented = read(token, Expectation(bundle, audience, at, leeway, client))
    except SvidError as error:
        return error.violations
    return _judge(presented, (*TOKEN, *ISSUED) if issued else TOKEN)


def validate_jwt_svid(  # noqa: PLR0913  # as jwt_svid_violations
    token: str,
    bundle: Bundle,
    audience: str,
    at: dt.datetime,
    *,
    leeway: dt.timedelta = dt.timedelta(0),
    client: x509.Certificate | None = None,
    issued: bool = False,
) -> JwtSvid:
    """Accept a token, or raise `SvidError` with every clause that it breaks; as `jwt_svid_violations`."""
    presented = read(token, Expectation(bundle, audience, at, leeway, client))
    violations = _judge(presented, (*TOKEN, *ISSUED) if issued else TOKEN)
    if violations:
        raise SvidError(violations)
    subject, expires_at = presented.subject, presented.date("exp")
    if subject is None or expires_at is None:
        # Both have rows above that were kept: this is for the type checker, and fails closed.
        raise SvidError((jwt_token.ENCODING.violation,))
    return JwtSvid(subject, presented.audiences, expires_at, presented.claims)
