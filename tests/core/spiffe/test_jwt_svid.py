from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spiffe import JwtBundle as ForeignBundle
from spiffe import JwtSvid as ForeignSvid
from spiffe import TrustDomain as ForeignTrustDomain

from pilot_identity.core.spiffe.bundle import Bundle
from pilot_identity.core.spiffe.clauses import SvidError
from pilot_identity.core.spiffe.ids import task_id
from pilot_identity.core.spiffe.jwt_profile import ALGORITHMS
from pilot_identity.core.spiffe.jwt_svid import (
    NAMESPACE,
    RESERVED,
    certificate_thumbprint,
    issue_token,
    token_octets,
)
from pilot_identity.core.spiffe.jwt_token import MAX_TOKEN_OCTETS
from pilot_identity.core.spiffe.keys import key_id
from pilot_identity.core.spiffe.validation import jwt_svid_violations, validate_jwt_svid
from pilot_identity.core.spiffe.x509_svid import authority_certificate

if TYPE_CHECKING:
    from pilot_identity.core.spiffe.ids import SpiffeId, TrustDomain
    from pilot_identity.core.spiffe.x509_svid import Authority

AUDIENCE = "https://tools.example.org"
FIVE = dt.timedelta(minutes=5)
Key = ec.EllipticCurvePrivateKey


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    """Another issuer's key."""
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture
def subject(bundle: Bundle) -> SpiffeId:
    """A task."""
    return task_id(bundle.trust_domain, "web", "translator", "t-1")


@pytest.fixture
def claims(authority: Authority) -> dict[str, Any]:
    """What a grant says in its token."""
    return {
        NAMESPACE: {"stage": "sandbox", "task": "t-1"},
        "authorization_details": [{"type": "tool", "actions": ["read"]}],
        "cnf": {"x5t#S256": certificate_thumbprint(authority.certificate)},
    }


@pytest.fixture
def token(token_key: Key, subject: SpiffeId, claims: dict[str, Any], now: dt.datetime) -> str:
    """A grant's token."""
    kid = key_id(token_key.public_key())
    return issue_token(token_key, kid, subject, AUDIENCE, now, now + FIVE, "id-1", claims)


def test_what_is_issued_is_valid(
    token: str,
    bundle: Bundle,
    subject: SpiffeId,
    claims: dict[str, Any],
    now: dt.datetime,
) -> None:
    """A token that we made is accepted, and says what it was given to say."""
    svid = validate_jwt_svid(token, bundle, AUDIENCE, now, issued=True)
    assert (svid.spiffe_id, svid.audience) == (subject, (AUDIENCE,))
    assert svid.expires_at == now.replace(microsecond=0) + FIVE
    assert claims.items() <= svid.claims.items()


def test_its_header_is_exactly_three_parameters(token: str, token_key: Key) -> None:
    """Verifiers that know the standard's header know ours."""
    expected = {"alg": "ES256", "kid": key_id(token_key.public_key()), "typ": "JWT"}
    assert jwt.get_unverified_header(token) == expected


def test_its_audience_is_a_string_and_its_dates_are_integers(token: str) -> None:
    """The standard's JSON schema takes neither a list nor a fraction."""
    payload = jwt.decode(token, options={"verify_signature": False})
    assert payload["aud"] == AUDIENCE
    assert [type(payload[date]) for date in ("iat", "exp")] == [int, int]


@pytest.mark.parametrize("claim", sorted(RESERVED))
def test_claims_cannot_override_arguments(
    claim: str, token_key: Key, subject: SpiffeId, now: dt.datetime
) -> None:
    """Who, for whom and until when are the arguments' to say."""
    with pytest.raises(ValueError, match=f"claims must not set {claim}"):
        issue_token(token_key, "kid", subject, AUDIENCE, now, now + FIVE, "id-1", {claim: "x"})


@pytest.mark.parametrize(
    "changed,rule",
    [
        ({"audience": ""}, "aud must have one value or more"),
        ({"expires_at": dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)}, "token must not have expired"),
        ({"claims": {"stage": "sandbox"}}, "must be named by an https URL"),
        (
            {"signing_key": ec.derive_private_key(5, ec.SECP384R1())},
            "alg must be one that the key can sign with",
        ),
        ({"claims": {NAMESPACE: "x" * 16384}}, "token must not be larger than 16384 bytes"),
    ],
)
def test_a_token_that_breaks_a_clause_is_not_issued(
    changed: dict[str, Any],
    rule: str,
    token_key: Key,
    subject: SpiffeId,
    now: dt.datetime,
) -> None:
    """What was signed is validated before it is returned."""
    arguments: dict[str, Any] = {
        "signing_key": token_key,
        "key_id": "kid",
        "subject": subject,
        "audience": AUDIENCE,
        "issued_at": now,
        "expires_at": now + FIVE,
        "token_id": "id-1",
        "claims": {},
    }
    with pytest.raises(SvidError, match=rule):
        issue_token(**arguments | changed)


def test_a_trust_domain_gets_no_token(token_key: Key, bundle: Bundle, now: dt.datetime) -> None:
    """A token's subject is a workload."""
    with pytest.raises(SvidError, match="sub must be a SPIFFE ID with a path"):
        issue_token(token_key, "kid", bundle.trust_domain.id(), AUDIENCE, now, now + FIVE, "id-1", {})


def test_a_copied_token_is_refused(
    token: str,
    bundle: Bundle,
    authority: Authority,
    trust_domain: TrustDomain,
    now: dt.datetime,
) -> None:
    """A tool that sees the client's certificate takes the token from its holder only."""
    other = authority_certificate(authority.private_key, trust_domain, 9, now, now + FIVE)
    assert jwt_svid_violations(token, bundle, AUDIENCE, now, client=authority.certificate) == ()
    refused = jwt_svid_violations(token, bundle, AUDIENCE, now, client=other)
    assert [violation.clause for violation in refused] == ["RFC 8705 §3.1 x5t#S256"]


def test_leeway_works_both_ways_and_no_further(token: str, bundle: Bundle, now: dt.datetime) -> None:
    """Clocks may differ by the leeway, before a token's beginning and after its end."""
    leeway = dt.timedelta(seconds=30)
    start, end = now.replace(microsecond=0), now.replace(microsecond=0) + FIVE
    tick = dt.timedelta(microseconds=1)
    for at, accepted in {
        start - leeway: True,
        start - leeway - tick: False,
        end + leeway - tick: True,
        end + leeway: False,
    }.items():
        assert (jwt_svid_violations(token, bundle, AUDIENCE, at, leeway=leeway) == ()) is accepted, at


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_each_algorithm_of_the_standard_is_read(
    algorithm: str,
    rsa_key: rsa.RSAPrivateKey,
    subject: SpiffeId,
    now: dt.datetime,
) -> None:
    """We sign with ES256 alone; a token that another library signed with any of the nine is accepted."""
    curves: dict[str, ec.EllipticCurve] = {
        "ES256": ec.SECP256R1(),
        "ES384": ec.SECP384R1(),
        "ES512": ec.SECP521R1(),
    }
    key = ec.derive_private_key(6, curves[algorithm]) if algorithm in curves else rsa_key
    bundle = Bundle(subject.trust_domain, (), {"theirs": key.public_key()}, sequence=0)
    payload = {"sub": subject.uri, "aud": AUDIENCE, "exp": int((now + FIVE).timestamp())}
    theirs = jwt.encode(payload, key, algorithm, headers={"kid": "theirs"})
    assert jwt_svid_violations(theirs, bundle, AUDIENCE, now) == ()


def test_py_spiffe_accepts_it(token_key: Key, subject: SpiffeId, bundle: Bundle) -> None:
    """A foreign verifier, which knows only the present, finds the same subject."""
    now = dt.datetime.now(dt.UTC)
    kid = key_id(token_key.public_key())
    token = issue_token(token_key, kid, subject, AUDIENCE, now, now + FIVE, "id-1", {NAMESPACE: {}})
    # Its JWT bundle is the Workload API's, of JWT keys alone: it wants a kid where the standard forbids one.
    foreign = ForeignBundle.parse(ForeignTrustDomain("sandbox.example.org"), bundle.to_jwks().encode())
    svid = ForeignSvid.parse_and_validate(token, foreign, {AUDIENCE})
    assert str(svid.spiffe_id) == subject.uri


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 300), to=st.characters())
def test_no_changed_character_goes_unseen(
    token: str, bundle: Bundle, now: dt.datetime, at: int, to: str
) -> None:
    """Change any character of a token and it is refused, by a clause and never by a crash."""
    changed = token[:at] + to + token[at + 1 :]
    assert changed == token or jwt_svid_violations(changed, bundle, AUDIENCE, now)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    claims=st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(("sub", "aud", "exp", "nbf", "iat", "jti", "cnf"), json_values),
    ),
)
def test_any_json_in_any_claim_is_judged(
    token_key: Key,
    bundle: Bundle,
    authority: Authority,
    now: dt.datetime,
    claims: dict[str, Any],
) -> None:
    """A signed token may hold any type anywhere: it is refused by a clause and never by a crash."""
    kid = key_id(token_key.public_key())
    token = jwt.api_jws.encode(json.dumps(claims).encode(), token_key, "ES256", headers={"kid": kid})
    assert jwt_svid_violations(token, bundle, AUDIENCE, now, client=authority.certificate, issued=True)


@given(
    texts=st.lists(st.text(max_size=40), max_size=8),
    token_id=st.text(st.characters(codec="ascii", categories=["Ll", "Nd"]), min_size=1, max_size=40),
    life=st.integers(1, 86_400),
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_how_long_a_token_will_be_is_known_beforehand(  # noqa: PLR0913, PLR0917 - fixtures and what is drawn
    token_key: Key,
    subject: SpiffeId,
    claims: dict[str, Any],
    now: dt.datetime,
    texts: list[str],
    token_id: str,
    life: int,
) -> None:
    """To the byte: whatever is granted, in any script, for any time."""
    said = claims | {"authorization_details": [{"type": "tool", "actions": texts}]}
    ends = now + dt.timedelta(seconds=life)
    made = issue_token(
        token_key, key_id(token_key.public_key()), subject, AUDIENCE, now, ends, token_id, said
    )
    del said["cnf"]
    assert token_octets(subject, AUDIENCE, ends, token_id, said) == len(made)


def test_what_is_known_to_be_too_long_is_not_issued(
    token_key: Key, subject: SpiffeId, claims: dict[str, Any], now: dt.datetime
) -> None:
    """The last that fits is issued, one byte more is not: base64url turns three bytes into four."""
    kid, ends = key_id(token_key.public_key()), now + FIVE

    def of(length: int) -> dict[str, Any]:
        return claims | {NAMESPACE: {"task": "x" * length}}

    fits = max(
        length
        for length in range(11_000, 12_500)
        if token_octets(subject, AUDIENCE, ends, "id-1", of(length)) <= MAX_TOKEN_OCTETS
    )
    assert issue_token(token_key, kid, subject, AUDIENCE, now, ends, "id-1", of(fits))
    with pytest.raises(SvidError, match="must not be larger"):
        issue_token(token_key, kid, subject, AUDIENCE, now, ends, "id-1", of(fits + 1))
