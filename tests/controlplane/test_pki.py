from __future__ import annotations

import base64
import json
import stat
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store

from e2e.controlplane import pki

NOW = datetime(2026, 11, 21, 8, tzinfo=UTC)


def test_a_users_certificate_says_who_they_are() -> None:
    """Common name and organizations, which Kubernetes reads as user and groups."""
    authority = pki.Authority("ca", NOW)
    certificate = x509.load_pem_x509_certificate(
        authority.user("ada@example.org", ["dev", "qa"], NOW).certificate
    )
    assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "ada@example.org"
    organizations = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    assert [organization.value for organization in organizations] == ["dev", "qa"]


def test_a_server_certificate_is_valid_for_loopback() -> None:
    """A strict verifier, told only the CA, accepts it for its address."""
    authority = pki.Authority("ca", NOW)
    server = authority.server("kube-apiserver", ["localhost"], [pki.LOOPBACK], NOW)
    store = Store([x509.load_pem_x509_certificate(authority.certificate)])
    verifier = PolicyBuilder().store(store).time(NOW).build_server_verifier(x509.IPAddress(pki.LOOPBACK))
    verifier.verify(x509.load_pem_x509_certificate(server.certificate), [])


def test_keys_are_for_their_owners_eyes(tmp_path: Path) -> None:
    """A key file is never readable by others, not even where one was before."""
    path = tmp_path / "some.key"
    path.write_text("old")
    path.chmod(0o644)
    pki.write_private(path, b"new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes() == b"new"


def test_a_kubeconfig_holds_all_it_needs() -> None:
    """It can be copied anywhere: nothing in it is a path."""
    credential = pki.Credential(b"certificate", b"key")
    document = json.loads(pki.kubeconfig("https://127.0.0.1:1", b"authority", "ada", credential))
    assert base64.b64decode(document["clusters"][0]["cluster"]["certificate-authority-data"]) == b"authority"
    assert base64.b64decode(document["users"][0]["user"]["client-key-data"]) == b"key"
    assert document["current-context"] == document["contexts"][0]["name"]
