"""A desk with real grants, certificates of a made-up administrator, and clients that speak real TLS."""

from __future__ import annotations

import datetime as dt
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pilot_identity.clocks import utc_now
from tests.fakes import manifests
from tests.fakes.desk import Desk, desk, issue
from tests.fakes.server import FakeServer


class Pki:
    """An authority that lives for the test, and its certificates as files."""

    def __init__(self, directory: Path, name: str = "admin") -> None:
        self.directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        self.certificate = (
            self._dated(self._name)
            .public_key(self._key.public_key())
            .add_extension(constraints, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.file = directory / f"{name}.crt"
        self.file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        name: str,
        *,
        purpose: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
        valid: dt.timedelta = dt.timedelta(hours=1),
    ) -> tuple[Path, Path]:
        """Make a certificate; returns its file and its key's."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            self._dated(subject, valid)
            .public_key(key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        chain, secret = self.directory / f"{name}.crt", self.directory / f"{name}.key"
        chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        secret.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return chain, secret

    def client(self, chain: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
        """A client that trusts this authority, and shows a certificate where it has one."""
        context = ssl.create_default_context(cafile=str(self.file))
        if chain is not None:
            context.load_cert_chain(chain, key)
        return context

    def _dated(
        self, subject: x509.Name, valid: dt.timedelta = dt.timedelta(hours=1)
    ) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + valid)
        )


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    """An authority."""
    return Pki(tmp_path)


@pytest.fixture
async def here() -> AsyncIterator[Desk]:
    """A desk with one grant that was really issued, by the real clock: TLS knows no other."""
    server = FakeServer(utc_now)
    await issue(server, manifests.grant(duration="30m"))
    async with desk(server, utc_now) as made:
        yield made
