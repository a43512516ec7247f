from __future__ import annotations

import datetime as dt
import shutil
import subprocess
from pathlib import Path

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from pilot_identity.core.spiffe.bundle import Bundle
from pilot_identity.core.spiffe.ids import TrustDomain
from pilot_identity.core.spiffe.jwt_profile import jwt_svid_violations
from pilot_identity.core.spiffe.keys import key_id
from pilot_identity.core.spiffe.revocation import (
    DENY_LIST_TYPE,
    Revoked,
    RevokedCertificate,
    RevokedToken,
    certificate_revocation_list,
    deny_list,
)
from pilot_identity.core.spiffe.x509_svid import Authority, issue_leaf

HOUR = dt.timedelta(hours=1)


def crl_of(authority: Authority, now: dt.datetime, *serials: int) -> x509.CertificateRevocationList:
    """The authority's list as of now."""
    return certificate_revocation_list(
        authority, [(serial, now) for serial in serials], number=7, this_update=now, next_update=now + HOUR
    )


def test_a_list_says_what_a_verifier_needs(authority: Authority, now: dt.datetime) -> None:
    """RFC 5280 §5.1 and §5.2: issuer, times, number, the authority's key; and the serial numbers."""
    crl = crl_of(authority, now, 5, 9)
    assert crl.issuer == authority.certificate.subject
    whole = now.replace(microsecond=0)
    assert (crl.last_update_utc, crl.next_update_utc) == (whole, whole + HOUR)
    assert crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 7
    identifier = crl.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    subject = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert identifier.key_identifier == subject.digest
    assert [one.serial_number for one in crl] == [5, 9]


def test_the_same_list_is_the_same_octets(authority: Authority, now: dt.datetime) -> None:
    """Its signature is deterministic, as certificates' are."""
    first, second = (crl_of(authority, now, 5).public_bytes(Encoding.DER) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("is_revoked", [True, False])
def test_openssl_goes_by_the_list(
    authority: Authority,
    workload_key: ec.EllipticCurvePrivateKey,
    trust_domain: TrustDomain,
    tmp_path: Path,
    *,
    is_revoked: bool,
) -> None:
    """A certificate on it is refused, another of the same authority is not."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not on this machine")
    at = authority.certificate.not_valid_before_utc + HOUR
    leaf = issue_leaf(authority, workload_key.public_key(), trust_domain.id("web"), 5, at, at + 9 * HOUR)
    crl = crl_of(authority, at, 5 if is_revoked else 6)
    for name, made in (("ca", authority.certificate), ("leaf", leaf), ("crl", crl)):
        (tmp_path / name).write_bytes(made.public_bytes(Encoding.PEM))
    command = [openssl, "verify", "-x509_strict", "-crl_check", "-attime", str(int(at.timestamp()) + 60)]
    done = subprocess.run(  # noqa: S603 - openssl, on files of our own
        [*command, "-CAfile", "ca", "-CRLfile", "crl", "leaf"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert ("certificate revoked" in done.stdout + done.stderr) is is_revoked
    assert (done.returncode == 0) is not is_revoked


class TestDenyList:
    """The list of token ids."""

    @pytest.fixture
    def signed(
        self, token_key: ec.EllipticCurvePrivateKey, trust_domain: TrustDomain, now: dt.datetime
    ) -> str:
        """A list of two tokens."""
        kid = key_id(token_key.public_key())
        return deny_list(token_key, kid, trust_domain, ["b", "a"], issued_at=now, expires_at=now + HOUR)

    def test_pyjwt_reads_it(
        self, signed: str, token_key: ec.EllipticCurvePrivateKey, now: dt.datetime
    ) -> None:
        """Whose it is, from when to when, and the ids."""
        told = jwt.decode(
            signed,
            token_key.public_key(),
            algorithms=["ES256"],
            issuer="spiffe://sandbox.example.org",
            options={"verify_exp": False, "verify_iat": False},
        )
        start = int(now.timestamp())
        assert (told["iat"], told["exp"], told["revoked"]) == (start, start + 3600, ["a", "b"])
        assert jwt.get_unverified_header(signed)["typ"] == DENY_LIST_TYPE

    def test_it_is_no_token(self, signed: str, bundle: Bundle, now: dt.datetime) -> None:
        """Nobody can present it as a JWT-SVID."""
        assert jwt_svid_violations(signed, bundle, "https://tickets.example.org", now)


def test_what_was_revoked_lapses_with_the_last_of_it(now: dt.datetime) -> None:
    """Certificates and tokens have ends of their own."""
    certificate, token = RevokedCertificate("5", now + HOUR), RevokedToken("t", now + 2 * HOUR)
    assert Revoked("sandbox", "team-a", now, (certificate,), (token,)).lapses_at == now + 2 * HOUR
    assert Revoked("sandbox", "team-a", now, (certificate,)).lapses_at == now + HOUR
    assert Revoked("sandbox", "team-a", now).lapses_at is None
