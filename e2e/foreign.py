"""Foreign verifiers: py-spiffe and openssl read what the operator made, and our own validator beside them."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from spiffe import JwtBundle, JwtSvid, X509Bundle, X509Svid
from spiffe import TrustDomain as ForeignTrustDomain

from e2e.credential import Credential
from pilot_identity.core.spiffe.bundle import Bundle
from pilot_identity.core.spiffe.ids import TrustDomain
from pilot_identity.core.spiffe.validation import (
    bundle_violations,
    jwt_svid_violations,
    x509_svid_violations,
)


def read_x509_svid(credential: Credential, bundle_pem: str) -> str:
    """Return the SPIFFE ID that py-spiffe reads; the leaf is the bundle's CA's, by its signature."""
    svid = X509Svid.parse(credential.files["tls.crt"], credential.files["tls.key"])
    bundle = X509Bundle.parse(svid.spiffe_id.trust_domain, bundle_pem.encode())
    (authority,) = (one for one in bundle.x509_authorities if one.subject == svid.leaf.issuer)
    svid.leaf.verify_directly_issued_by(authority)
    return str(svid.spiffe_id)


def read_jwt_svid(token: str, trust_domain: str, bundle_json: str, audience: str) -> str:
    """Return the SPIFFE ID of a token that py-spiffe accepts for `audience`."""
    # py-spiffe wants a kid of every key, also of CA entries, which have none (X509-SVID.md §6.1).
    keys = [key for key in json.loads(bundle_json)["keys"] if key["use"] == "jwt-svid"]
    bundle = JwtBundle.parse(ForeignTrustDomain(trust_domain), json.dumps({"keys": keys}).encode())
    svid = JwtSvid.parse_and_validate(token, bundle, {audience})
    return str(svid.spiffe_id)


def openssl_verifies(credential: Credential, bundle_pem: str, scratch: Path) -> str:
    """Let openssl verify the leaf strictly against the bundle; returns what it says."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not on this machine")
    (scratch / "bundle.pem").write_text(bundle_pem)
    (scratch / "tls.crt").write_bytes(credential.files["tls.crt"])
    files = ("-CAfile", str(scratch / "bundle.pem"), str(scratch / "tls.crt"))
    done = subprocess.run(
        [openssl, "verify", "-x509_strict", *files], capture_output=True, text=True, check=False
    )
    return (done.stdout + done.stderr).replace(f"{scratch}/", "").strip()


def violations(
    credential: Credential, trust_domain: str, bundle: Mapping[str, str], tokens: Mapping[str, str]
) -> list[str]:
    """Every clause that our own validator finds broken; `tokens` maps a file to its audience."""
    domain, now = TrustDomain.parse(trust_domain), dt.datetime.now(dt.UTC)
    parsed = Bundle.parse_spiffe_json(bundle["bundle.json"], domain)
    found = [
        *bundle_violations(bundle["bundle.json"], domain),
        *x509_svid_violations(credential.files["tls.crt"], parsed, now),
    ]
    for file, audience in tokens.items():
        found += jwt_svid_violations(
            credential.token(file), parsed, audience, now, client=credential.certificate, issued=True
        )
    return [str(violation) for violation in found]
