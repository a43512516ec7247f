"""`kubectl get secret/… configmap/… -o json | python -m e2e.demo.verifier`: SVIDs as py-spiffe reads them.

Reads a list of a credential Secret and its stage's bundle ConfigMap. It trusts the ConfigMap's bundle, not
the copy in the Secret: what vouches for a thing must not come with it. No key is ever printed.
"""

from __future__ import annotations

import argparse
import base64
import datetime as dt
import json
import sys
from collections.abc import Mapping
from typing import Any

import jwt
from spiffe import JwtBundle, JwtSvid, SpiffeId, TrustDomain, X509Bundle, X509Svid


def _moment(seconds: float) -> str:
    return f"{dt.datetime.fromtimestamp(seconds, dt.UTC):%H:%M:%SZ}"


def _certificate(files: Mapping[str, bytes], bundle: Mapping[str, str]) -> TrustDomain:
    """Tell of the X.509-SVID; py-spiffe checks the leaf, openssl the chain. Returns its trust domain."""
    svid = X509Svid.parse(files["tls.crt"], files["tls.key"])
    domain = svid.spiffe_id.trust_domain
    authorities = X509Bundle.parse(domain, bundle["bundle.pem"].encode()).x509_authorities
    svid.leaf.verify_directly_issued_by(next(iter(authorities)))
    until = _moment(svid.leaf.not_valid_after_utc.timestamp())
    print(f"X.509-SVID   {svid.spiffe_id}\n             signed by the bundle's CA, until {until}")
    return domain


def _token(token: str, domain: TrustDomain, bundle: Mapping[str, str], audience: str) -> SpiffeId:
    """Tell of a JWT-SVID; py-spiffe checks signature, audience and time. Returns whose it is."""
    keys = json.loads(bundle["bundle.json"])["keys"]
    # py-spiffe wants a kid of every key, also of CA entries, which have none (X509-SVID.md §6.1).
    for_tokens = {"keys": [key for key in keys if key["use"] == "jwt-svid"]}
    authorities = JwtBundle.parse(domain, json.dumps(for_tokens).encode())
    svid = JwtSvid.parse_and_validate(token, authorities, {audience})
    print(f"JWT-SVID     {svid.spiffe_id}")
    print(f"             for {audience}, until {_moment(svid.expiry)}; it claims:")
    claims = jwt.decode(token, options={"verify_signature": False})
    print(json.dumps(claims, indent=2))
    return svid.spiffe_id


def main() -> int:
    """Run the program; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m e2e.demo.verifier", description=__doc__)
    parser.add_argument("--audience", help="verify token.jwt for this audience, too")
    chosen = parser.parse_args()
    listed: dict[str, Any] = json.load(sys.stdin)
    data = {item["kind"]: item["data"] for item in listed["items"]}
    files = {name: base64.b64decode(content) for name, content in data["Secret"].items()}
    domain = _certificate(files, data["ConfigMap"])
    if chosen.audience:
        _token(files["token.jwt"].decode(), domain, data["ConfigMap"], chosen.audience)
    return 0


if __name__ == "__main__":
    sys.exit(main())
