from __future__ import annotations

import datetime as dt
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spiffe import SpiffeId as ForeignSpiffeId
from spiffe import X509Svid as ForeignSvid

from pilot_identity.core.spiffe.clauses import SvidError
from pilot_identity.core.spiffe.ids import TrustDomain, task_id
from pilot_identity.core.spiffe.keys import private_key_pem
from pilot_identity.core.spiffe.validation import validate_x509_svid, x509_svid_violations
from pilot_identity.core.spiffe.x509_svid import Authority, authority_certificate, issue_leaf

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography import x509

    from pilot_identity.core.spiffe.bundle import Bundle

MINUTES = dt.timedelta(minutes=10)
Key = ec.EllipticCurvePrivateKey


@pytest.fixture
def leaf(authority: Authority, workload_key: Key, now: dt.datetime) -> x509.Certificate:
    """A task's certificate."""
    identity = task_id(authority.trust_domain, "web", "translator", "t-1")
    return issue_leaf(authority, workload_key.public_key(), identity, 0x1EAF, now, now + MINUTES)


def test_what_is_issued_is_valid(leaf: x509.Certificate, bundle: Bundle, now: dt.datetime) -> None:
    """A leaf that we made is accepted, in PEM and in DER, with its authority sent along or not."""
    pem, der = leaf.public_bytes(Encoding.PEM), leaf.public_bytes(Encoding.DER)
    for chain in (
        pem,
        der,
        pem + bundle.to_pem().encode(),
        der + bundle.authorities[0].public_bytes(Encoding.DER),
    ):
        svid = validate_x509_svid(chain, bundle, now)
        assert (svid.leaf, svid.chain, svid.authority) == (leaf, (leaf,), bundle.authorities[0])
        assert svid.spiffe_id.uri == "spiffe://sandbox.example.org/ns/web/pilot/translator/task/t-1"


def test_equal_arguments_make_equal_certificates(
    authority: Authority, leaf: x509.Certificate, now: dt.datetime
) -> None:
    """Nothing hidden goes into a certificate, neither a clock nor chance."""
    identity = task_id(authority.trust_domain, "web", "translator", "t-1")
    public_key = leaf.public_key()
    assert isinstance(public_key, ec.EllipticCurvePublicKey)
    assert issue_leaf(authority, public_key, identity, 0x1EAF, now, now + MINUTES) == leaf


def test_times_are_never_rounded_up(leaf: x509.Certificate, now: dt.datetime) -> None:
    """X.509 has whole seconds; the end never moves past what was asked for."""
    assert now + MINUTES - dt.timedelta(seconds=1) < leaf.not_valid_after_utc <= now + MINUTES


def test_a_leaf_outliving_its_authority_is_not_issued(
    authority: Authority, workload_key: Key, now: dt.datetime
) -> None:
    """The caller caps the lifetime; what was not capped is refused, never returned."""
    identity = task_id(authority.trust_domain, "web", "translator", "t-1")
    with pytest.raises(SvidError, match="leaf must not outlive its signing certificates"):
        issue_leaf(authority, workload_key.public_key(), identity, 1, now, now + dt.timedelta(days=2))


def test_an_authority_issues_in_its_own_trust_domain(
    authority: Authority, workload_key: Key, now: dt.datetime
) -> None:
    """A stage never speaks for another."""
    identity = task_id(TrustDomain.parse("pilot.example.org"), "web", "translator", "t-1")
    with pytest.raises(SvidError, match="leaf must be of the bundle's trust domain"):
        issue_leaf(authority, workload_key.public_key(), identity, 1, now, now + MINUTES)


def test_the_trust_domain_itself_gets_no_leaf(
    authority: Authority, workload_key: Key, now: dt.datetime
) -> None:
    """An identity without a path is a signing certificate's."""
    with pytest.raises(SvidError, match="leaf's SPIFFE ID must have a path"):
        issue_leaf(authority, workload_key.public_key(), authority.trust_domain.id(), 1, now, now + MINUTES)


@pytest.mark.parametrize("serial", [0, -1, 1 << 159])
def test_serial_numbers_are_positive_and_short(serial: int, authority: Authority, now: dt.datetime) -> None:
    """A serial number outside RFC 5280's range is refused before anything is signed."""
    identity = task_id(authority.trust_domain, "web", "translator", "t-1")
    with pytest.raises(SvidError, match="serial number must"):
        issue_leaf(authority, authority.private_key.public_key(), identity, serial, now, now + MINUTES)


def test_weak_keys_get_no_leaf(authority: Authority, now: dt.datetime) -> None:
    """A certificate request may bring any key; one that can be computed is refused."""
    # What the modulus is made of does not matter to a reader, only its length.
    weak = rsa.RSAPublicNumbers(65537, (1 << 1023) + 1).public_key()
    identity = task_id(authority.trust_domain, "web", "translator", "t-1")
    with pytest.raises(SvidError, match="key must be RSA of 2048"):
        issue_leaf(authority, weak, identity, 1, now, now + MINUTES)


def test_times_without_a_zone_are_refused(authority: Authority, now: dt.datetime) -> None:
    """A naive time means something else on every machine."""
    identity = task_id(authority.trust_domain, "web", "translator", "t-1")
    with pytest.raises(ValueError, match="times must be aware"):
        issue_leaf(authority, authority.private_key.public_key(), identity, 1, now.replace(tzinfo=None), now)


def test_long_trust_domains_have_authorities_too(authority_key: Key, now: dt.datetime) -> None:
    """A common name ends at 64 characters, a trust domain at 255: the SAN holds all of it."""
    trust_domain = TrustDomain.parse("a" * 255)
    certificate = authority_certificate(authority_key, trust_domain, 1, now, now + MINUTES)
    assert Authority(certificate, authority_key, trust_domain).trust_domain == trust_domain


def test_an_authority_never_prints_its_key(authority: Authority) -> None:
    """Its text is its trust domain and serial number."""
    assert repr(authority) == "Authority(sandbox.example.org, serial=ca)"


def test_py_spiffe_reads_it(leaf: x509.Certificate, workload_key: Key) -> None:
    """A foreign library finds the same identity in the certificate and its key."""
    svid = ForeignSvid.parse(leaf.public_bytes(Encoding.PEM), private_key_pem(workload_key))
    assert svid.spiffe_id == ForeignSpiffeId("spiffe://sandbox.example.org/ns/web/pilot/translator/task/t-1")


@pytest.mark.parametrize("purpose", ["sslserver", "sslclient"])
def test_openssl_verifies_it_strictly(
    purpose: str,
    leaf: x509.Certificate,
    bundle: Bundle,
    now: dt.datetime,
    tmp_path: Path,
) -> None:
    """OpenSSL's strictest reading accepts the chain, for both ends of mutual TLS."""
    openssl = shutil.which("openssl")
    assert openssl is not None
    (tmp_path / "leaf.pem").write_bytes(leaf.public_bytes(Encoding.PEM))
    (tmp_path / "bundle.pem").write_text(bundle.to_pem())
    verdict = subprocess.run(  # noqa: S603  # a fixed command on our own files
        [
            *(openssl, "verify", "-x509_strict", "-purpose", purpose),
            *("-attime", str(int(now.timestamp())), "-CAfile", "bundle.pem", "leaf.pem"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (verdict.returncode, verdict.stdout.strip()) == (0, "leaf.pem: OK"), verdict.stderr


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.filterwarnings("ignore:Parsed a serial number:cryptography.utils.CryptographyDeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
@given(at=st.integers(0, 400), to=st.integers(0, 255))
def test_no_changed_octet_goes_unseen(
    leaf: x509.Certificate,
    bundle: Bundle,
    now: dt.datetime,
    at: int,
    to: int,
) -> None:
    """Change any octet of a certificate and it is refused, by a clause and never by a crash."""
    der = bytearray(leaf.public_bytes(serialization.Encoding.DER))
    unchanged = der[at] == to
    der[at] = to
    assert unchanged or x509_svid_violations(bytes(der), bundle, now)
