"""The cluster's own PKI: two CAs, certificates for loopback and for anyone, the service-account key."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = timedelta(days=30)  # longer than any cluster that someone leaves running over a holiday
SKEW = timedelta(minutes=5)
LOOPBACK = IPv4Address("127.0.0.1")


@dataclass(frozen=True)
class Credential:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes

    def write(self, directory: Path, name: str) -> tuple[Path, Path]:
        """Write `<name>.crt` and `<name>.key`, the key for its owner's eyes only."""
        certificate, key = directory / f"{name}.crt", directory / f"{name}.key"
        certificate.write_bytes(self.certificate)
        write_private(key, self.key)
        return certificate, key


class Authority:
    """A CA that issues for loopback servers and for users.

    Kubernetes reads a client certificate's common name as the user and its organizations as the groups.
    """

    def __init__(self, name: str, now: datetime) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._certificate = (
            self._template(self._name, self._key.public_key(), now)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def credential(self) -> Credential:
        """The CA's own certificate and key."""
        return Credential(_certificate_pem(self._certificate), private_key_pem(self._key))

    @property
    def certificate(self) -> bytes:
        """The CA's certificate, PEM."""
        return self.credential.certificate

    def server(
        self, name: str, dns_names: Sequence[str], addresses: Sequence[IPv4Address], now: datetime
    ) -> Credential:
        """A certificate for a server on loopback; it may be a client too, as etcd is of itself."""
        names = [x509.DNSName(dns) for dns in dns_names]
        places = [x509.IPAddress(address) for address in addresses]
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._leaf(
            subject, key, now, [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        ).add_extension(x509.SubjectAlternativeName([*names, *places]), critical=False)
        return self._sign(builder, key)

    def user(self, name: str, groups: Sequence[str], now: datetime) -> Credential:
        """A client certificate of a person, or of a component."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = user_subject(name, groups)
        return self._sign(self._leaf(subject, key, now, [ExtendedKeyUsageOID.CLIENT_AUTH]), key)

    def _template(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - SKEW)
            .not_valid_after(now + LIFETIME)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        )

    def _leaf(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        now: datetime,
        usages: Sequence[x509.ObjectIdentifier],
    ) -> x509.CertificateBuilder:
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            self._template(subject, key.public_key(), now)
            .add_extension(authority, critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        )

    def _sign(self, builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> Credential:
        signed = builder.sign(self._key, hashes.SHA256())
        return Credential(_certificate_pem(signed), private_key_pem(key))


def user_subject(name: str, groups: Sequence[str]) -> x509.Name:
    """The subject under which Kubernetes knows a user and their groups."""
    organizations = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*organizations, x509.NameAttribute(NameOID.COMMON_NAME, name)])


def certificate_request(name: str, groups: Sequence[str]) -> Credential:
    """A certificate signing request in the certificate's place, for a CA that is not ours."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(user_subject(name, groups))
    signed = request.sign(key, hashes.SHA256())
    return Credential(signed.public_bytes(serialization.Encoding.PEM), private_key_pem(key))


def private_key_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    """PEM in the traditional form, the one that every Kubernetes release reads."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def service_account_key() -> bytes:
    """A new signing key for service-account tokens, PEM; RSA, as nearly every cluster has it."""
    return private_key_pem(rsa.generate_private_key(65537, 2048))


def write_private(path: Path, content: bytes) -> None:
    """Write a file that was never readable by others, not even between its creation and a chmod."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600, exist_ok=False)
    path.write_bytes(content)


def kubeconfig(server: str, authority: bytes, user: str, credential: Credential) -> bytes:
    """A kubeconfig that holds all it needs, so that it can be copied; JSON, which is YAML."""

    def encoded(content: bytes) -> str:
        return base64.b64encode(content).decode()

    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "pilot-identity",
                "cluster": {"server": server, "certificate-authority-data": encoded(authority)},
            }
        ],
        "users": [
            {
                "name": user,
                "user": {
                    "client-certificate-data": encoded(credential.certificate),
                    "client-key-data": encoded(credential.key),
                },
            }
        ],
        "contexts": [{"name": user, "context": {"cluster": "pilot-identity", "user": user}}],
        "current-context": user,
    }
    return json.dumps(document, indent=1).encode()


def _certificate_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
