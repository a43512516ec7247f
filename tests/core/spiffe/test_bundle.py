from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from spiffe import TrustDomain as ForeignTrustDomain
from spiffe import X509Bundle as ForeignX509Bundle

from pilot_identity.core.spiffe.bundle import DEFAULT_REFRESH_HINT, Bundle
from pilot_identity.core.spiffe.clauses import SvidError
from pilot_identity.core.spiffe.x509_svid import authority_certificate

if TYPE_CHECKING:
    import datetime as dt

    from pilot_identity.core.spiffe.x509_svid import Authority


def changed(bundle: Bundle, **members: Any) -> str:
    """The bundle's JSON with members replaced."""
    return json.dumps(json.loads(bundle.to_spiffe_json()) | members)


def entries(bundle: Bundle) -> list[dict[str, Any]]:
    """The bundle's keys."""
    found: list[dict[str, Any]] = json.loads(bundle.to_spiffe_json())["keys"]
    return found


def test_parse_undoes_format(bundle: Bundle) -> None:
    """A bundle is read back as it was written."""
    assert Bundle.parse_spiffe_json(bundle.to_spiffe_json(), bundle.trust_domain) == bundle


def test_order_does_not_change_the_bytes(authority: Authority, now: dt.datetime) -> None:
    """Equal contents are equal documents, so that nothing is written for nothing."""
    keys = {f"key-{number}": ec.derive_private_key(number, ec.SECP256R1()).public_key() for number in (3, 4)}
    next_key = ec.derive_private_key(21, ec.SECP256R1())
    until = authority.certificate.not_valid_after_utc
    following = authority_certificate(next_key, authority.trust_domain, 0xCB, now, until)
    both = (authority.certificate, following)
    forth = Bundle(authority.trust_domain, both, keys, sequence=2)
    back = Bundle(authority.trust_domain, both[::-1], dict(reversed(keys.items())), sequence=2)
    assert forth == back
    assert (forth.to_pem(), forth.to_spiffe_json(), forth.to_jwks()) == (
        back.to_pem(),
        back.to_spiffe_json(),
        back.to_jwks(),
    )


def test_the_oidc_key_set_is_a_document_of_its_own(bundle: Bundle) -> None:
    """OIDC's verifiers get the JWT keys with `use=sig`, and no certificates."""
    (entry,) = json.loads(bundle.to_jwks())["keys"]
    assert (entry["use"], entry["alg"], entry["kid"]) == ("sig", "ES256", *bundle.jwt_keys)
    assert "x5c" not in entry


def test_a_bundle_of_another_trust_domain_is_not_published(bundle: Bundle, authority: Authority) -> None:
    """Trust domains are never merged."""
    other = type(bundle.trust_domain).parse("pilot.example.org")
    with pytest.raises(SvidError, match="bundle must not hold authorities of another trust domain"):
        Bundle(other, (authority.certificate,), {}, sequence=1).to_spiffe_json()


def test_a_consumer_ignores_what_the_standard_says_to_ignore(bundle: Bundle) -> None:
    """Unknown uses and types, no use, an X.509 entry without its certificate: read over, not refused."""
    x509_entry, jwt_entry = entries(bundle)
    without_use = {name: value for name, value in jwt_entry.items() if name != "use"}
    without_x5c = {name: value for name, value in x509_entry.items() if name != "x5c"}
    strange = [
        jwt_entry | {"use": "wit-svid", "kid": "a"},
        jwt_entry | {"kty": "AKP", "kid": "b"},
        without_use | {"kid": "c"},
        without_x5c,
        x509_entry | {"x5c": []},
        jwt_entry | {"use": ["jwt-svid"], "kid": "d"},
    ]
    text = changed(bundle, keys=[*strange, x509_entry, jwt_entry])
    assert Bundle.parse_spiffe_json(text, bundle.trust_domain) == bundle


def test_a_consumer_takes_the_first_certificate_of_an_entry(bundle: Bundle) -> None:
    """What follows the first in `x5c` is ignored (X509-SVID.md §6.2)."""
    x509_entry, jwt_entry = entries(bundle)
    text = changed(bundle, keys=[x509_entry | {"x5c": [*x509_entry["x5c"], "Z2FyYmFnZQ=="]}, jwt_entry])
    assert Bundle.parse_spiffe_json(text, bundle.trust_domain) == bundle


def test_a_consumer_does_without_hints(bundle: Bundle) -> None:
    """Sequence and refresh hint may be missing; five minutes is what the standard recommends then."""
    document = {"keys": entries(bundle)}
    read = Bundle.parse_spiffe_json(json.dumps(document), bundle.trust_domain)
    assert (read.sequence, read.refresh_hint) == (0, DEFAULT_REFRESH_HINT)


@pytest.mark.parametrize(
    "members,rule",
    [
        ({"keys": None}, "bundle must have a keys array"),
        ({"keys": ["text"]}, "bundle must have a keys array of JWKs"),
        ({"spiffe_sequence": 1.5}, "spiffe_sequence must be an integer"),
        ({"spiffe_refresh_hint": 0}, "spiffe_refresh_hint must be an integer"),
        ({"spiffe_refresh_hint": 10**18}, "spiffe_refresh_hint must be an integer"),
    ],
)
def test_a_consumer_refuses_what_it_cannot_read(members: dict[str, Any], rule: str, bundle: Bundle) -> None:
    """What the standard does not say to ignore is refused by its rule."""
    with pytest.raises(SvidError, match=rule):
        Bundle.parse_spiffe_json(changed(bundle, **members), bundle.trust_domain)


def test_py_spiffe_reads_the_pem(bundle: Bundle) -> None:
    """A foreign library finds the same authorities."""
    foreign = ForeignX509Bundle.parse(ForeignTrustDomain("sandbox.example.org"), bundle.to_pem().encode())
    assert foreign.x509_authorities == set(bundle.authorities)
