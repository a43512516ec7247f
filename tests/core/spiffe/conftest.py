"""A trust domain with fixed keys and times, from which a test says only what matters to it."""

from __future__ import annotations

import datetime as dt

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from pilot_identity.core.spiffe.bundle import Bundle
from pilot_identity.core.spiffe.ids import TrustDomain
from pilot_identity.core.spiffe.keys import key_id
from pilot_identity.core.spiffe.x509_svid import Authority, authority_certificate


@pytest.fixture
def now() -> dt.datetime:
    """The moment at which everything happens; with a fraction, as clocks have."""
    return dt.datetime(2026, 6, 1, 12, 0, 0, 987_654, tzinfo=dt.UTC)


@pytest.fixture
def trust_domain() -> TrustDomain:
    """A stage's trust domain."""
    return TrustDomain.parse("sandbox.example.org")


@pytest.fixture
def authority_key() -> ec.EllipticCurvePrivateKey:
    """The authority's key."""
    return ec.derive_private_key(11, ec.SECP256R1())


@pytest.fixture
def token_key() -> ec.EllipticCurvePrivateKey:
    """The key that signs tokens."""
    return ec.derive_private_key(12, ec.SECP256R1())


@pytest.fixture
def workload_key() -> ec.EllipticCurvePrivateKey:
    """A workload's key."""
    return ec.derive_private_key(13, ec.SECP256R1())


@pytest.fixture
def authority(
    trust_domain: TrustDomain,
    authority_key: ec.EllipticCurvePrivateKey,
    now: dt.datetime,
) -> Authority:
    """An authority in the middle of its life."""
    day = dt.timedelta(days=1)
    certificate = authority_certificate(authority_key, trust_domain, 0xCA, now - day, now + day)
    return Authority(certificate, authority_key, trust_domain)


@pytest.fixture
def bundle(authority: Authority, token_key: ec.EllipticCurvePrivateKey) -> Bundle:
    """The trust domain's bundle."""
    public = token_key.public_key()
    return Bundle(authority.trust_domain, (authority.certificate,), {key_id(public): public}, sequence=1)
