"""Objects as the API server would show them, and what leaks of them."""

from __future__ import annotations

import base64
import datetime as dt
import json
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pilot_identity.core.audit.entries import Entry, EntryType, encode_entry
from pilot_identity.core.spiffe.jwt_svid import NAMESPACE

NOW = dt.datetime.now(dt.UTC)
UID = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
API = "pilotidentity.dev/v1alpha1"

Object = dict[str, Any]


def at(**ahead: float) -> str:
    """A time from now, as the API writes it."""
    return (NOW + dt.timedelta(**ahead)).isoformat(timespec="seconds").replace("+00:00", "Z")


def pilot(name: str = "triage", namespace: str = "team-a", **spec: Any) -> Object:
    """A ready pilot in the sandbox."""
    tool = {
        "audience": "https://tickets.example.org",
        "actions": ["read", "comment"],
        "resources": ["projects/**"],
    }
    return {
        "apiVersion": API,
        "kind": "PilotIdentity",
        "metadata": {"name": name, "namespace": namespace, "uid": f"uid-{name}", "generation": 2},
        "spec": {
            "workflow": "triage",
            "purpose": "Sorts tickets",
            "owners": {"business": "bea@example.org", "technical": "tom@example.org"},
            "stage": "sandbox",
            "access": [{"name": "tickets", "dataClass": "internal", "sensitivity": "high", "tool": tool}],
            **spec,
        },
        "status": {
            "stage": "sandbox",
            "conditions": [
                {"type": "Ready", "status": "True", "reason": "IdentityIssued", "observedGeneration": 2}
            ],
        },
    }


def stage(name: str = "sandbox") -> Object:
    """The stage's policy."""
    return {
        "apiVersion": API,
        "kind": "StagePolicy",
        "metadata": {"name": name, "uid": f"uid-{name}"},
        "spec": {
            "rank": 1,
            "trustDomain": f"{name}.example.org",
            "credentials": {"x509TTL": "1h", "jwtTTL": "5m", "maxTaskDuration": "1h"},
            "dataClasses": ["internal"],
        },
    }


def grant(name: str = "task", phase: str = "Active", *, uid: str = UID, **more: Any) -> Object:
    """A grant with a credential where its phase has one; `spec` and `status` add to it."""
    body: Object = {
        "apiVersion": API,
        "kind": "TaskGrant",
        "metadata": {
            "name": name,
            "namespace": more.pop("namespace", "team-a"),
            "uid": uid,
            "creationTimestamp": at(minutes=-5),
            "managedFields": [{"manager": "noise"}],
        },
        "spec": {
            "pilot": "triage",
            "task": {"id": "TASK-1", "description": "Sort the morning's tickets"},
            "access": [{"name": "tickets", "actions": ["read"]}],
            "requestedBy": "alice@example.org",
            "duration": "15m",
            **more.pop("spec", {}),
        },
        "status": {"phase": phase, "stage": "sandbox", "expiresAt": at(minutes=10)},
    }
    if phase not in {"Pending", "AwaitingApproval", "Denied"}:
        body["status"]["credential"] = credential(name)
    body["status"] |= more.pop("status", {})
    return body


def credential(name: str, serial: str = "a1b2c3", jti: str = "0123456789abcdef.0") -> Object:
    """What a status says of a credential."""
    return {
        "id": f"{name}/1",
        "issuance": 1,
        "spiffeID": f"spiffe://sandbox.example.org/ns/team-a/pilot/triage/task/{name}",
        "serial": serial,
        "notBefore": at(minutes=-1),
        "notAfter": at(minutes=4),
        "renewAt": at(minutes=2),
        "secretName": name,
        "secretUID": "uid-secret",
        "auditIndex": 41,
        "tokens": [{"audience": "https://tickets.example.org", "jti": jti}],
    }


def account_token(uid: str = UID, jti: str = "5f0e3c1a-0000-4000-8000-000000000001") -> str:
    """A Kubernetes token of a grant's own account."""
    account = {"name": f"pilot-grant-{uid.replace('-', '')[:20]}", "uid": "uid-account"}
    bound = {"namespace": "team-a", "serviceaccount": account}
    return jwt.encode({"jti": jti, "exp": 4102444800, "kubernetes.io": bound}, "x" * 32, algorithm="HS256")


def svid(jti: str, *, uid: str = UID, key: ec.EllipticCurvePrivateKey | None = None, kid: str = "k1") -> str:
    """A JWT-SVID of the grant, by the stage's key or by anybody's."""
    claims = {
        "sub": "spiffe://sandbox.example.org/ns/team-a/pilot/triage/task/task",
        "jti": jti,
        "exp": int((NOW + dt.timedelta(minutes=4)).timestamp()),
        NAMESPACE: {"grant": {"namespace": "team-a", "name": "task", "uid": uid}},
    }
    return jwt.encode(claims, key or ec.generate_private_key(ec.SECP256R1()), "ES256", headers={"kid": kid})


def certificate(key: ec.EllipticCurvePrivateKey, serial: int, uri: str = "") -> bytes:
    """A certificate in PEM, by nobody in particular."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "found")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(NOW)
        .not_valid_after(NOW + dt.timedelta(minutes=5))
    )
    if uri:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def kubeconfig(token: str) -> str:
    """A kubeconfig whose user has that token."""
    return json.dumps({"kind": "Config", "users": [{"name": "grant", "user": {"token": token}}]})


def group(*data: Object, extends: int = 40, uid: str = UID) -> Object:
    """A group of the audit log with issuing entries of these data."""
    entries = [
        Entry(f"{uid}/{number}", EntryType.GRANT_ISSUED, "TaskGrant team-a/task", uid, NOW, each)
        for number, each in enumerate(data)
    ]
    lines = b"\n".join(encode_entry(entry, "log.example.org") for entry in entries).decode()
    return {
        "metadata": {
            "name": f"audit-group-{extends:016d}",
            "namespace": "pilot-identity-system",
            "labels": {"pilotidentity.dev/audit": "group"},
        },
        "data": {"entries": lines, "checkpoint": "signed"},
    }


def encoded(content: bytes) -> str:
    """As a Secret's data has it."""
    return base64.b64encode(content).decode()
