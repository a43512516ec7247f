"""The stored documents, good and broken: each broken one is named by the one clause that it breaks."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from pilot_identity.core.spiffe import validation, x509_profile
from pilot_identity.core.spiffe.bundle import Bundle
from pilot_identity.core.spiffe.clauses import SpiffeIdError, SvidError
from pilot_identity.core.spiffe.ids import SpiffeId, TrustDomain
from pilot_identity.core.spiffe.rotation import Publication
from pilot_identity.core.spiffe.x509_svid import Authority

if TYPE_CHECKING:
    from collections.abc import Callable

    from pilot_identity.core.spiffe.clauses import Violation

VECTORS = Path(__file__).parent / "vectors"
INDEX = json.loads((VECTORS / "index.json").read_text())
CASES: list[dict[str, Any]] = INDEX["cases"]
AT = dt.datetime.fromisoformat(INDEX["at"])
TRUST_DOMAIN = TrustDomain.parse(INDEX["trust_domain"])


def stored(case: dict[str, Any]) -> str:
    """The case's document; those that are broken by their size alone are stored without the padding."""
    size: int = case.get("pad_to", 0)
    return (VECTORS / str(case["file"])).read_bytes().decode().ljust(size)


def bundle_of(case: dict[str, Any]) -> Bundle:
    """The bundle that the case is judged by."""
    return Bundle.parse_spiffe_json((VECTORS / case.get("bundle", INDEX["bundle"])).read_text(), TRUST_DOMAIN)


def read_id(case: dict[str, Any]) -> tuple[Violation, ...]:
    """What the parser says of a SPIFFE ID."""
    try:
        SpiffeId.parse(stored(case))
    except SpiffeIdError as error:
        return (error.violation,)
    return ()


def read_x509(case: dict[str, Any]) -> tuple[Violation, ...]:
    """What the validator says of a chain; of one of our own where the case says so."""
    chain = stored(case).encode()
    if case.get("issued"):
        (leaf,) = x509_profile.read_chain(chain)
        return x509_profile.issued_violations(leaf, bundle_of(case), AT)
    return validation.x509_svid_violations(chain, bundle_of(case), AT)


def read_authority(case: dict[str, Any]) -> tuple[Violation, ...]:
    """What the validator says of a signing certificate."""
    return validation.signing_certificate_violations(x509.load_pem_x509_certificate(stored(case).encode()))


def read_pair(case: dict[str, Any]) -> tuple[Violation, ...]:
    """What an authority says of its parts."""
    pair = json.loads(stored(case))
    certificate = x509.load_pem_x509_certificate((VECTORS / pair["certificate"]).read_bytes())
    key = ec.derive_private_key(pair["private_number"], ec.SECP256R1())
    try:
        Authority(certificate, key, TrustDomain.parse(pair["trust_domain"]))
    except SvidError as error:
        return error.violations
    return ()


def read_jwt(case: dict[str, Any]) -> tuple[Violation, ...]:
    """What the validator says of a token."""
    client = case.get("client")
    return validation.jwt_svid_violations(
        stored(case),
        bundle_of(case),
        INDEX["audience"],
        AT,
        client=x509.load_pem_x509_certificate((VECTORS / client).read_bytes()) if client else None,
        issued=case.get("issued", False),
    )


def read_bundle(case: dict[str, Any]) -> tuple[Violation, ...]:
    """What the validator says of a bundle to be published."""
    previous = (VECTORS / case["previous"]).read_text() if "previous" in case else None
    return validation.bundle_violations(stored(case), TRUST_DOMAIN, previous=previous)


def read_jwks(case: dict[str, Any]) -> tuple[Violation, ...]:
    """What the validator says of a key set to be published."""
    return validation.jwks_violations(stored(case))


def read_publication(case: dict[str, Any]) -> tuple[Violation, ...]:
    """What the validator says of the time at which a key comes into use."""
    document = json.loads(stored(case))
    return validation.publication_violations(
        Publication(
            dt.datetime.fromisoformat(document["published_at"]),
            dt.datetime.fromisoformat(document["used_from"]),
            dt.timedelta(seconds=document["refresh_hint_seconds"]),
        ),
    )


READERS: dict[str, Callable[[dict[str, Any]], tuple[Violation, ...]]] = {
    "id": read_id,
    "x509": read_x509,
    "authority": read_authority,
    "pair": read_pair,
    "jwt": read_jwt,
    "bundle": read_bundle,
    "jwks": read_jwks,
    "publication": read_publication,
}


# The library warns where our validator refuses.
@pytest.mark.filterwarnings("ignore:Parsed a serial number:cryptography.utils.CryptographyDeprecationWarning")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["file"])
def test_each_document_breaks_its_one_clause(case: dict[str, Any]) -> None:
    """A good document breaks nothing; a broken one breaks the clause that the index names, and no other."""
    expected = [] if case["clause"] is None else [case["clause"]]
    assert [violation.clause for violation in READERS[case["kind"]](case)] == expected


def test_each_clause_has_a_broken_document() -> None:
    """A clause that no stored document breaks is a clause that nobody knows to be checked."""
    assert {case["clause"] for case in CASES} - {None} == set(validation.CLAUSES)


def test_no_clause_is_listed_twice() -> None:
    """A clause's name finds one row."""
    assert len(set(validation.CLAUSES)) == len(validation.CLAUSES)


def test_each_stored_document_is_in_the_index() -> None:
    """No vector lies there unread."""
    files = {str(path.relative_to(VECTORS)) for path in VECTORS.glob("*/*") if path.suffix != ".pyc"}
    assert files == {case["file"] for case in CASES}


def raise_for(case: dict[str, Any]) -> None:
    """Call the raising form of the case's validator."""
    client = case.get("client")
    if case["kind"] == "x509":
        validation.validate_x509_svid(stored(case).encode(), bundle_of(case), AT)
    elif case["kind"] == "authority":
        validation.validate_signing_certificate(x509.load_pem_x509_certificate(stored(case).encode()))
    elif case["kind"] == "jwt":
        shown = x509.load_pem_x509_certificate((VECTORS / client).read_bytes()) if client else None
        issued = case.get("issued", False)
        validation.validate_jwt_svid(
            stored(case), bundle_of(case), INDEX["audience"], AT, client=shown, issued=issued
        )
    elif case["kind"] == "jwks":
        validation.validate_jwks(stored(case))
    else:
        previous = (VECTORS / case["previous"]).read_text() if "previous" in case else None
        validation.validate_bundle(stored(case), TRUST_DOMAIN, previous=previous)


RAISING = [
    case
    for case in CASES
    if case["kind"] in {"authority", "jwt", "bundle", "jwks"}
    or (case["kind"] == "x509" and not case.get("issued"))
]


@pytest.mark.filterwarnings("ignore:Parsed a serial number:cryptography.utils.CryptographyDeprecationWarning")
@pytest.mark.parametrize("case", RAISING, ids=lambda case: case["file"])
def test_the_raising_form_says_the_same(case: dict[str, Any]) -> None:
    """`validate_…` accepts what `…_violations` finds nothing in, and raises exactly what it finds."""
    expected = READERS[case["kind"]](case)
    if not expected:
        raise_for(case)
        return
    with pytest.raises(SvidError) as refused:
        raise_for(case)
    assert refused.value.violations == expected
