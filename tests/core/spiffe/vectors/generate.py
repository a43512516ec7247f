"""How the vectors beside this file were made; `python generate.py` makes them again, octet for octet.

Keys are derived from small numbers, times are fixed and signatures are deterministic (RFC 6979). All of it is
`index.json` tells for each case how to read it and which one clause it breaks; none for a good one.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import ExtendedKeyUsageOID as Purpose
from cryptography.x509.oid import NameOID

HERE = Path(__file__).parent
TD = "sandbox.example.org"
SUBJECT = f"spiffe://{TD}/ns/web/pilot/translator/task/t-1"
AUDIENCE = "https://tools.example.org"
AT = dt.datetime(2026, 6, 1, 12, 0, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
MINUTE = dt.timedelta(minutes=1)

Key = ec.EllipticCurvePrivateKey


def key(number: int, curve: ec.EllipticCurve | None = None) -> Key:
    """A private key that everybody knows."""
    return ec.derive_private_key(number, curve or ec.SECP256R1())


ROOT, OTHER, LEAF, TOKEN, MIDDLE = (key(number) for number in range(1001, 1006))


def b64(octets: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def compact(value: object) -> str:
    """JSON without spaces, names in the order given."""
    return json.dumps(value, separators=(",", ":"))


# --- certificates


def usage(*allowed: str) -> x509.KeyUsage:
    """A key usage with these bits."""
    every = "digital_signature content_commitment key_encipherment data_encipherment key_agreement "
    every += "key_cert_sign crl_sign encipher_only decipher_only"
    return x509.KeyUsage(**{name: name in allowed for name in every.split()})


def san(*uris: str) -> x509.SubjectAlternativeName:
    """A subject alternative name with these URIs."""
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])


def name(text: str) -> x509.Name:
    """A subject with this common name, or the empty one."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)] if text else [])


Extensions = dict[str, tuple[x509.ExtensionType, bool] | None]


@dataclass(frozen=True)
class Plan:
    """A certificate to be; every broken one is a good one with one thing replaced."""

    subject: str
    issuer: str
    key: Key
    signer: Key
    extensions: Extensions
    serial: int = 0x1234
    begins: dt.datetime = AT - MINUTE
    ends: dt.datetime = AT + 10 * MINUTE
    digest: hashes.SHA256 | hashes.SHA224 = field(default_factory=hashes.SHA256)

    def but(self, **changes: tuple[x509.ExtensionType, bool] | None) -> Plan:
        """The same plan with these extensions replaced, or left out."""
        return replace(self, extensions=self.extensions | changes)

    def sign(self) -> x509.Certificate:
        """The certificate."""
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(self.subject))
            .issuer_name(name(self.issuer))
            .public_key(self.key.public_key())
            .serial_number(self.serial)
            .not_valid_before(self.begins)
            .not_valid_after(self.ends)
        )
        for extension in self.extensions.values():
            if extension is not None:
                builder = builder.add_extension(extension[0], critical=extension[1])
        return builder.sign(self.signer, self.digest, ecdsa_deterministic=True)

    def pem(self) -> str:
        """The certificate in PEM."""
        return self.sign().public_bytes(serialization.Encoding.PEM).decode()

    def pem_with_serial(self, octets: bytes) -> str:
        """The certificate in PEM, with a serial number that no builder would write."""
        tbs = replace(self, serial=1).sign().tbs_certificate_bytes
        body = tbs[4:].replace(b"\x02\x01\x01", der(0x02, octets), 1)
        tbs = der(0x30, body)
        algorithm = bytes.fromhex("300a06082a8648ce3d040302")
        signature = self.signer.sign(tbs, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
        whole = der(0x30, tbs + algorithm + der(0x03, b"\x00" + signature))
        text = base64.encodebytes(whole).decode()
        return f"-----BEGIN CERTIFICATE-----\n{text}-----END CERTIFICATE-----\n"


def der(tag: int, content: bytes) -> bytes:
    """One DER element."""
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes([tag, 0x80 | len(octets)]) + octets + content


def ski(owner: Key) -> x509.SubjectKeyIdentifier:
    """A key's identifier."""
    return x509.SubjectKeyIdentifier.from_public_key(owner.public_key())


def aki(owner: Key) -> x509.AuthorityKeyIdentifier:
    """A key's identifier as its issuer's."""
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(owner.public_key())


AUTHORITY = Plan(
    subject="root",
    issuer="root",
    key=ROOT,
    signer=ROOT,
    begins=AT - DAY,
    ends=AT + DAY,
    extensions={
        "basic": (x509.BasicConstraints(ca=True, path_length=0), True),
        "usage": (usage("key_cert_sign", "crl_sign"), True),
        "san": (san(f"spiffe://{TD}"), False),
        "ski": (ski(ROOT), False),
    },
)
WORKLOAD = Plan(
    subject="",
    issuer="root",
    key=LEAF,
    signer=ROOT,
    extensions={
        "basic": (x509.BasicConstraints(ca=False, path_length=None), True),
        "usage": (usage("digital_signature"), True),
        "purposes": (x509.ExtendedKeyUsage([Purpose.SERVER_AUTH, Purpose.CLIENT_AUTH]), False),
        "san": (san(SUBJECT), True),
        "aki": (aki(ROOT), False),
        "ski": (ski(LEAF), False),
    },
)
# A root that lets one more signing certificate stand between it and a leaf.
DEEP = AUTHORITY.but(basic=(x509.BasicConstraints(ca=True, path_length=1), True))
BETWEEN = replace(
    AUTHORITY.but(ski=(ski(MIDDLE), False), aki=(aki(ROOT), False)),
    subject="middle",
    key=MIDDLE,
)
BELOW = replace(WORKLOAD.but(aki=(aki(MIDDLE), False)), issuer="middle", signer=MIDDLE)

ALIEN = (
    x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00"),
    True,
)
CONSTRAINTS = (
    x509.NameConstraints(permitted_subtrees=[x509.UniformResourceIdentifier(TD)], excluded_subtrees=None),
    False,
)


def with_id(uri: str) -> Plan:
    """A leaf that names this."""
    return WORKLOAD.but(san=(san(uri), True))


IDS = {
    "SPIFFE-ID §2 scheme": "https://sandbox.example.org/ns/web",
    "SPIFFE-ID §2 query": f"{SUBJECT}?stage=production",
    "SPIFFE-ID §2 fragment": f"{SUBJECT}#admin",
    "SPIFFE-ID §2.1 trust-domain-empty": "spiffe:///ns/web",
    "SPIFFE-ID §2.1 userinfo": "spiffe://admin@sandbox.example.org/ns/web",
    "SPIFFE-ID §2.1 port": "spiffe://sandbox.example.org:8443/ns/web",
    "SPIFFE-ID §2.1 trust-domain-percent-encoding": "spiffe://sandbox%2eexample.org/ns/web",
    "SPIFFE-ID §2.1 trust-domain-lowercase": "spiffe://Sandbox.example.org/ns/web",
    "SPIFFE-ID §2.1 trust-domain-characters": "spiffe://sandbox!example.org/ns/web",
    "SPIFFE-ID §2.3 trust-domain-length": f"spiffe://{'a' * 256}/ns/web",
    "SPIFFE-ID §2.3 id-length": f"spiffe://{TD}/{'a' * (2049 - len(TD) - 10)}",
    "SPIFFE-ID §2.2 path-trailing-slash": f"spiffe://{TD}/ns/web/",
    "SPIFFE-ID §2.2 path-empty-segment": f"spiffe://{TD}/ns//web",
    "SPIFFE-ID §2.2 path-dot-segment": f"spiffe://{TD}/ns/../web",
    "SPIFFE-ID §2.2 path-percent-encoding": f"spiffe://{TD}/ns/%77eb",
    "SPIFFE-ID §2.2 path-characters": f"spiffe://{TD}/ns/web:1",
}

# --- the index and its files

INDEX: list[dict[str, Any]] = []


def case(kind: str, title: str, text: str, clause: str | None, **how: Any) -> None:
    """Store a document and its line in the index."""
    ending = {"id": "txt", "jwt": "jwt", "x509": "pem", "authority": "pem"}.get(kind, "json")
    file = f"{kind}/{'good' if clause is None else 'broken'}-{title}.{ending}"
    path = HERE / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    INDEX.append({"file": file, "kind": kind, "clause": clause} | how)


def ids() -> None:
    """SPIFFE IDs."""
    case("id", "task", SUBJECT, None)
    case("id", "trust-domain", f"spiffe://{TD}", None)
    case("id", "longest", f"spiffe://{TD}/{'a' * (2048 - len(TD) - 10)}", None)
    case("id", "path-with-capitals", f"spiffe://{TD}/NS/Web_1.2-3", None)
    for clause, uri in IDS.items():
        case("id", clause.split()[-1], uri, clause)
    case("id", "root-path", f"spiffe://{TD}/", "SPIFFE-ID §2.2 path-trailing-slash")
    case(
        "id",
        "homoglyph",
        "spiffe://s\u0430ndbox.example.org/ns/web",
        "SPIFFE-ID §2.1 trust-domain-characters",
    )


def certificates() -> None:
    """What one certificate says of itself: signing certificates, and leaves of the good one."""
    case("authority", "root", AUTHORITY.pem(), None)
    case("x509", "leaf", WORKLOAD.pem(), None, issued=True)
    case("x509", "leaf-with-authority", WORKLOAD.pem() + AUTHORITY.pem(), None)
    named = replace(WORKLOAD.but(san=(san(SUBJECT), False)), subject="translator")
    case("x509", "leaf-with-subject", named.pem(), None)
    case("x509", "leaf-without-purposes", WORKLOAD.but(purposes=None).pem(), None)
    both: dict[str, tuple[str, Plan]] = {
        "keyUsage-absent": ("X509-SVID §4.3 keyUsage-present", WORKLOAD.but(usage=None)),
        "keyUsage-uncritical": (
            "X509-SVID §4.3 keyUsage-critical",
            WORKLOAD.but(usage=(usage("digital_signature"), False)),
        ),
        "uri-absent": (
            "X509-SVID §2 uri-san-present",
            WORKLOAD.but(san=(x509.SubjectAlternativeName([x509.DNSName("web.example.org")]), True)),
        ),
        "san-absent": ("X509-SVID §2 uri-san-present", WORKLOAD.but(san=None)),
        "two-uris": ("X509-SVID §2 uri-san-single", WORKLOAD.but(san=(san(SUBJECT, SUBJECT + "b"), True))),
        "san-uncritical": ("X509-SVID §3.1 san-critical", WORKLOAD.but(san=(san(SUBJECT), False))),
        "root-path": ("X509-SVID §3.1 leaf-path", with_id(f"spiffe://{TD}")),
        "ca": (
            "X509-SVID §4.1 leaf-cA",
            WORKLOAD.but(basic=(x509.BasicConstraints(ca=True, path_length=None), True)),
        ),
        "no-digitalSignature": (
            "X509-SVID §4.3 leaf-digitalSignature",
            WORKLOAD.but(usage=(usage("key_agreement"), True)),
        ),
        "keyCertSign": (
            "X509-SVID §4.3 leaf-keyCertSign",
            WORKLOAD.but(usage=(usage("digital_signature", "key_cert_sign"), True)),
        ),
        "cRLSign": (
            "X509-SVID §4.3 leaf-cRLSign",
            WORKLOAD.but(usage=(usage("digital_signature", "crl_sign"), True)),
        ),
        "no-serverAuth": (
            "X509-SVID §4.4 leaf-serverAuth",
            WORKLOAD.but(purposes=(x509.ExtendedKeyUsage([Purpose.CLIENT_AUTH]), False)),
        ),
        "no-clientAuth": (
            "X509-SVID §4.4 leaf-clientAuth",
            WORKLOAD.but(purposes=(x509.ExtendedKeyUsage([Purpose.SERVER_AUTH]), False)),
        ),
        "no-authorityKeyIdentifier": (
            "RFC 5280 §4.2.1.1 leaf-authorityKeyIdentifier",
            WORKLOAD.but(aki=None),
        ),
        "alien-critical-extension": ("RFC 5280 §4.2 critical-extension", WORKLOAD.but(alien=ALIEN)),
        "sha224": ("Pilot §x509 signature-hash", replace(WORKLOAD, digest=hashes.SHA224())),
        "secp256k1": ("Pilot §x509 key-strength", replace(WORKLOAD, key=key(7, ec.SECP256K1()))),
    }
    for title, (clause, plan) in both.items():
        case("x509", title, plan.pem(), clause)
    for clause, uri in IDS.items():
        case("x509", "id-" + clause.split()[-1], with_id(uri).pem(), clause)
    case("x509", "serial-zero", WORKLOAD.pem_with_serial(b"\x00"), "RFC 5280 §4.1.2.2 serial-positive")
    case(
        "x509",
        "serial-21-octets",
        WORKLOAD.pem_with_serial(b"\x00" + b"\xff" * 20),
        "RFC 5280 §4.1.2.2 serial-octets",
    )
    case("x509", "truncated", WORKLOAD.pem().replace("MII", "", 1), "RFC 5280 §4.1 encoding")
    case("x509", "empty", "", "RFC 5280 §4.1 encoding")
    authorities: dict[str, tuple[str, Plan]] = {
        "not-a-ca": (
            "X509-SVID §4.1 authority-cA",
            AUTHORITY.but(basic=(x509.BasicConstraints(ca=False, path_length=None), True)),
        ),
        "basicConstraints-uncritical": (
            "RFC 5280 §4.2.1.9 authority-basicConstraints-critical",
            AUTHORITY.but(basic=(x509.BasicConstraints(ca=True, path_length=0), False)),
        ),
        "keyUsage-absent": ("X509-SVID §4.3 keyUsage-present", AUTHORITY.but(usage=None)),
        "keyUsage-uncritical": (
            "X509-SVID §4.3 keyUsage-critical",
            AUTHORITY.but(usage=(usage("key_cert_sign"), False)),
        ),
        "no-keyCertSign": (
            "X509-SVID §4.3 authority-keyCertSign",
            AUTHORITY.but(usage=(usage("crl_sign"), True)),
        ),
        "digitalSignature": (
            "X509-SVID §A authority-leaf-usage",
            AUTHORITY.but(usage=(usage("key_cert_sign", "digital_signature"), True)),
        ),
        "path": ("X509-SVID §3.2 authority-path", AUTHORITY.but(san=(san(f"spiffe://{TD}/ca"), False))),
        "uri-absent": ("X509-SVID §2 uri-san-present", AUTHORITY.but(san=None)),
        "two-uris": (
            "X509-SVID §2 uri-san-single",
            AUTHORITY.but(san=(san(f"spiffe://{TD}", "spiffe://pilot.example.org"), False)),
        ),
        "no-subject": (
            "RFC 5280 §4.1.2.6 authority-subject",
            replace(AUTHORITY.but(san=(san(f"spiffe://{TD}"), True)), subject="", issuer=""),
        ),
        "no-subjectKeyIdentifier": (
            "RFC 5280 §4.2.1.2 authority-subjectKeyIdentifier",
            AUTHORITY.but(ski=None),
        ),
        "name-constraints": ("RFC 5280 §4.2 critical-extension", AUTHORITY.but(constraints=CONSTRAINTS)),
        "uppercase": (
            "SPIFFE-ID §2.1 trust-domain-lowercase",
            AUTHORITY.but(san=(san("spiffe://Sandbox.example.org"), False)),
        ),
    }
    for title, (clause, plan) in authorities.items():
        case("authority", title, plan.pem(), clause)
    root = {"certificate": "authority/good-root.pem", "trust_domain": TD}
    case("pair", "own-key", compact(root | {"private_number": 1001}), None)
    case("pair", "foreign-key", compact(root | {"private_number": 1002}), "Pilot §authority key")
    case(
        "pair",
        "foreign-trust-domain",
        compact(root | {"private_number": 1001, "trust_domain": "pilot.example.org"}),
        "Pilot §authority trust-domain",
    )


def paths() -> None:
    """How a chain hangs together."""
    deep = "bundle/good-deep.json"
    late = "bundle/good-late.json"
    strangers = replace(WORKLOAD.but(aki=(aki(OTHER), False)), signer=OTHER)
    elsewhere = BETWEEN.but(san=(san("spiffe://pilot.example.org"), False))
    case("x509", "leaf-below-intermediate", BELOW.pem() + BETWEEN.pem(), None, bundle=deep)
    case(
        "x509",
        "other-trust-domain",
        with_id(SUBJECT.replace("sandbox", "pilot")).pem(),
        "X509-SVID §5.2 trust-domain",
    )
    case("x509", "strangers-authority", strangers.pem(), "X509-SVID §5.1 signature")
    case(
        "x509",
        "intermediate-of-other-trust-domain",
        BELOW.pem() + elsewhere.pem(),
        "X509-SVID §3.2 authority-trust-domain",
        bundle=deep,
    )
    case(
        "x509", "not-yet-valid", replace(WORKLOAD, begins=AT + MINUTE).pem(), "RFC 5280 §6.1.3 not-yet-valid"
    )
    case("x509", "expired", replace(WORKLOAD, ends=AT - MINUTE / 2).pem(), "RFC 5280 §6.1.3 expired")
    case("x509", "authority-not-yet-valid", WORKLOAD.pem(), "RFC 5280 §6.1.3 authority-validity", bundle=late)
    case(
        "x509",
        "outlives-authority",
        replace(WORKLOAD, ends=AT + 2 * DAY).pem(),
        "Pilot §x509 outlives-authority",
    )
    case("x509", "path-too-long", BELOW.pem() + BETWEEN.pem(), "RFC 5280 §4.2.1.9 path-length")
    case(
        "x509",
        "wrong-authorityKeyIdentifier",
        WORKLOAD.but(aki=(aki(OTHER), False)).pem(),
        "RFC 5280 §4.2.1.1 authorityKeyIdentifier-matches",
    )
    case("x509", "chain-too-large", WORKLOAD.pem(), "Pilot §x509 chain-octets", pad_to=16 * 1024 + 1)
    case("x509", "chain-too-long", WORKLOAD.pem() * 6, "Pilot §x509 chain-length")
    ours = {
        "our-leaf-with-subject": ("Pilot §issued subject-empty", replace(WORKLOAD, subject="translator")),
        "our-leaf-basicConstraints-uncritical": (
            "Pilot §issued basicConstraints-critical",
            WORKLOAD.but(basic=(x509.BasicConstraints(ca=False, path_length=None), False)),
        ),
        "our-leaf-without-purposes": ("Pilot §issued extendedKeyUsage", WORKLOAD.but(purposes=None)),
        "our-leaf-no-subjectKeyIdentifier": ("Pilot §issued subjectKeyIdentifier", WORKLOAD.but(ski=None)),
    }
    for title, (clause, plan) in ours.items():
        case("x509", title, plan.pem(), clause, issued=True)


# --- tokens

HEADER = {"alg": "ES256", "kid": "token-key", "typ": "JWT"}
CLAIMS: dict[str, Any] = {
    "sub": SUBJECT,
    "aud": AUDIENCE,
    "iat": int(AT.timestamp()) - 60,
    "exp": int(AT.timestamp()) + 240,
    "jti": "01JZ0000000000000000000000",
    "https://pilotidentity.dev/claims": {"stage": "sandbox", "task": "t-1"},
}


def without(claims: dict[str, Any], *left_out: str) -> dict[str, Any]:
    """The claims, or headers, without some."""
    return {claim: value for claim, value in claims.items() if claim not in left_out}


def es256(signed: bytes, signer: Key = TOKEN) -> bytes:
    """An ES256 signature as JOSE writes it."""
    signature = signer.sign(signed, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    return b"".join(number.to_bytes(32) for number in decode_dss_signature(signature))


def token(claims: object = CLAIMS, header: object = HEADER, signer: Key = TOKEN) -> str:
    """A token; header and claims may be text, to be written as they stand."""
    parts = (part if isinstance(part, str) else compact(part) for part in (header, claims))
    signed = ".".join(b64(part.encode()) for part in parts)
    return f"{signed}.{b64(es256(signed.encode(), signer))}"


def tokens() -> None:  # noqa: PLR0915  # a list of documents
    """JWT-SVIDs."""
    thumbprint = b64(hashlib.sha256(WORKLOAD.sign().public_bytes(serialization.Encoding.DER)).digest())
    bound = CLAIMS | {"cnf": {"x5t#S256": thumbprint}}
    leaf, other = "x509/good-leaf.pem", "x509/good-leaf-with-subject.pem"
    case("jwt", "token", token(), None, issued=True)
    case("jwt", "bound", token(bound), None, issued=True, client=leaf)
    case("jwt", "no-typ", token(header=without(HEADER, "typ")), None)
    case("jwt", "typ-jose", token(header=HEADER | {"typ": "JOSE"}), None)
    case("jwt", "aud-list", token(CLAIMS | {"aud": ["https://else.example.org", AUDIENCE]}), None)

    headers = "JWT-SVID §2 headers"
    case("jwt", "crit", token(header=HEADER | {"crit": ["exp"]}), headers)
    case("jwt", "jwk-header", token(header=HEADER | {"jwk": {"kty": "EC"}}), headers)
    case("jwt", "private-header", token(header=HEADER | {"stage": "sandbox"}), headers)

    alg = "JWT-SVID §2.1 alg"
    unsigned = f"{b64(compact(HEADER | {'alg': 'none'}).encode())}.{b64(compact(CLAIMS).encode())}."
    confused = f"{b64(compact(HEADER | {'alg': 'HS256'}).encode())}.{b64(compact(CLAIMS).encode())}"
    public = TOKEN.public_key().public_bytes(
        serialization.Encoding.PEM,
        serialization.PublicFormat.SubjectPublicKeyInfo,
    )
    case("jwt", "alg-none", unsigned, alg)
    case("jwt", "alg-hs256", f"{confused}.{b64(hmac.digest(public, confused.encode(), 'sha256'))}", alg)
    case("jwt", "alg-eddsa", token(header=HEADER | {"alg": "EdDSA"}), alg)
    case("jwt", "alg-es256k", token(header=HEADER | {"alg": "ES256K"}), alg)
    case("jwt", "alg-absent", token(header=without(HEADER, "alg")), alg)
    case("jwt", "alg-list", token(header=HEADER | {"alg": ["ES256"]}), alg)
    case("jwt", "alg-of-another-key", token(header=HEADER | {"alg": "RS256"}), "RFC 7518 §3.1 alg-key")
    case("jwt", "alg-of-another-curve", token(header=HEADER | {"alg": "ES384"}), "RFC 7518 §3.1 alg-key")

    case("jwt", "kid-absent", token(header=without(HEADER, "kid")), "JWT-SVID §2.2 kid-present")
    case("jwt", "kid-unknown", token(header=HEADER | {"kid": "older-key"}), "JWT-SVID §6.2 kid-known")
    case("jwt", "typ-at-jwt", token(header=HEADER | {"typ": "at+jwt"}), "JWT-SVID §2.3 typ")
    case("jwt", "strangers-key", token(signer=OTHER), "JWT-SVID §4 signature")
    signed, _, signature = token().rpartition(".")
    forged = f"{signed.split('.')[0]}.{b64(compact(CLAIMS | {'jti': 'forged'}).encode())}.{signature}"
    case("jwt", "changed-after-signing", forged, "JWT-SVID §4 signature")

    case("jwt", "sub-absent", token(without(CLAIMS, "sub")), "JWT-SVID §3.1 sub-present")
    case("jwt", "sub-root-path", token(CLAIMS | {"sub": f"spiffe://{TD}"}), "JWT-SVID §3.1 sub-path")
    case("jwt", "sub-human", token(CLAIMS | {"sub": "alice@example.org"}), "SPIFFE-ID §2 scheme")
    foreign = SUBJECT.replace("sandbox", "pilot")
    case("jwt", "sub-other-trust-domain", token(CLAIMS | {"sub": foreign}), "JWT-SVID §3.1 sub-trust-domain")
    for clause, uri in IDS.items():
        case("jwt", "sub-" + clause.split()[-1], token(CLAIMS | {"sub": uri}), clause)

    case("jwt", "aud-absent", token(without(CLAIMS, "aud")), "JWT-SVID §3.2 aud-present")
    case("jwt", "aud-empty-list", token(CLAIMS | {"aud": []}), "JWT-SVID §3.2 aud-values")
    case("jwt", "aud-number", token(CLAIMS | {"aud": 7}), "JWT-SVID §3.2 aud-values")
    case("jwt", "aud-other", token(CLAIMS | {"aud": "https://else.example.org"}), "JWT-SVID §3.2 aud-matches")
    case("jwt", "exp-absent", token(without(CLAIMS, "exp")), "JWT-SVID §3.3 exp-present")
    for title, value in {"text": "soon", "boolean": True, "negative": -1, "year-10000": 253402300800}.items():
        case("jwt", f"exp-{title}", token(CLAIMS | {"exp": value}), "RFC 7519 §2 numeric-date")
    now = int(AT.timestamp())
    case("jwt", "expired", token(CLAIMS | {"exp": now}), "RFC 7519 §4.1.4 expired")
    case("jwt", "not-before", token(CLAIMS | {"nbf": now + 1}), "RFC 7519 §4.1.5 nbf")
    case("jwt", "issued-in-the-future", token(CLAIMS | {"iat": now + 1}), "RFC 7519 §4.1.6 iat")
    case("jwt", "shown-by-another-client", token(bound), "RFC 8705 §3.1 x5t#S256", client=other)
    case("jwt", "not-bound", token(), "RFC 8705 §3.1 x5t#S256", client=leaf)

    flattened = compact(dict(zip(("protected", "payload", "signature"), token().split("."), strict=True)))
    case("jwt", "json-serialization", flattened, "JWT-SVID §1 compact")
    encoding = "RFC 7519 §7.2 encoding"
    twice = compact(HEADER).replace('"alg":"ES256"', '"alg":"none","alg":"ES256"')
    case("jwt", "header-name-twice", token(header=twice), encoding)
    case("jwt", "claim-twice", token(compact(CLAIMS).replace("{", '{"sub":"spiffe://a/b",', 1)), encoding)
    case("jwt", "padded", token() + "==", encoding)
    case("jwt", "newline", token() + "\n", encoding)
    case("jwt", "payload-list", token([CLAIMS]), encoding)
    case("jwt", "payload-nested", token("[" * 5000), encoding)
    case("jwt", "payload-nan", token(compact(CLAIMS | {"exp": float("nan")})), encoding)
    case("jwt", "too-large", token(), "Pilot §jwt token-octets", pad_to=16 * 1024 + 1)

    ours: dict[str, tuple[str, str]] = {
        "no-typ": ("Pilot §issued header", token(header=without(HEADER, "typ"))),
        "aud-list": ("JWT-SVID §3.2 aud-single-string", token(CLAIMS | {"aud": [AUDIENCE]})),
        "bare-claim": ("JWT-SVID §3 collision-resistant", token(CLAIMS | {"stage": "sandbox"})),
        "no-jti": ("Pilot §issued jti", token(without(CLAIMS, "jti"))),
        "no-iat": ("Pilot §issued iat", token(without(CLAIMS, "iat"))),
        "fraction": ("Pilot §issued integer-dates", token(CLAIMS | {"exp": CLAIMS["exp"] + 0.5})),
    }
    for title, (clause, text) in ours.items():
        case("jwt", f"our-token-{title}", text, clause, issued=True)


# --- bundles


def jwk(owner: Key) -> dict[str, Any]:
    """A public key as a JWK."""
    numbers = owner.public_key().public_numbers()
    return {"kty": "EC", "crv": "P-256", "x": b64(numbers.x.to_bytes(32)), "y": b64(numbers.y.to_bytes(32))}


def authority_entry(plan: Plan) -> dict[str, Any]:
    """A signing certificate in a bundle."""
    octets = plan.sign().public_bytes(serialization.Encoding.DER)
    return {"use": "x509-svid", "x5c": [base64.b64encode(octets).decode()]} | jwk(plan.key)


def bundle_of(authority: dict[str, Any], token_key: dict[str, Any], **members: Any) -> str:
    """A bundle; a member given as None is left out."""
    whole = {"keys": [authority, token_key], "spiffe_sequence": 7, "spiffe_refresh_hint": 300} | members
    return json.dumps({member: value for member, value in whole.items() if value is not None}, indent=1)


def bundles() -> None:
    """SPIFFE bundles as they are published."""
    x, j = authority_entry(AUTHORITY), {"use": "jwt-svid", "kid": "token-key"} | jwk(TOKEN)
    good = bundle_of(x, j)
    case("bundle", "bundle", good, None)
    case("bundle", "deep", bundle_of(authority_entry(DEEP), j), None)
    case("bundle", "late", bundle_of(authority_entry(replace(AUTHORITY, begins=AT + MINUTE)), j), None)
    case("bundle", "empty", bundle_of(x, j, keys=[]), None)
    case("bundle", "updated", bundle_of(x, j, spiffe_sequence=8), None, previous="bundle/good-bundle.json")

    case("bundle", "not-json", "{", "RFC 7517 §5 encoding")
    case("bundle", "name-twice", good.replace("{", '{"keys":[],', 1), "RFC 7517 §5 encoding")
    case("bundle", "too-large", good, "Pilot §bundle octets", pad_to=256 * 1024 + 1)
    case("bundle", "no-keys", bundle_of(x, j, keys=None), "Bundle §4.1.3 keys")
    case("bundle", "keys-object", bundle_of(x, j, keys={}), "Bundle §4.1.3 keys")
    shown = b64(TOKEN.private_numbers().private_value.to_bytes(32))
    case("bundle", "private-key", bundle_of(x, j | {"d": shown}), "Pilot §bundle private-key")
    twice = bundle_of(x, j, keys=[x, j, j | jwk(OTHER)])
    case("bundle", "kid-twice", twice, "RFC 7517 §4.5 kid-unique")

    integer = "Bundle §4.1.1 sequence-integer"
    case("bundle", "sequence-text", bundle_of(x, j, spiffe_sequence="7"), integer)
    case("bundle", "sequence-boolean", bundle_of(x, j, spiffe_sequence=True), integer)
    case("bundle", "no-sequence", bundle_of(x, j, spiffe_sequence=None), "Bundle §4.1.1 sequence-present")
    before = "bundle/good-bundle.json"
    case(
        "bundle",
        "sequence-falls",
        bundle_of(x, j, spiffe_sequence=6),
        "Bundle §4.1.1 sequence-monotonic",
        previous=before,
    )
    case(
        "bundle",
        "sequence-stays",
        bundle_of(x, j, keys=[x]),
        "Bundle §4.1.1 sequence-changes",
        previous=before,
    )
    hint = "Bundle §4.1.2 refresh-hint-integer"
    case("bundle", "refresh-hint-fraction", bundle_of(x, j, spiffe_refresh_hint=0.5), hint)
    case("bundle", "refresh-hint-zero", bundle_of(x, j, spiffe_refresh_hint=0), hint)
    absent = bundle_of(x, j, spiffe_refresh_hint=None)
    case("bundle", "no-refresh-hint", absent, "Bundle §4.1.2 refresh-hint-present")

    case("bundle", "no-kty", bundle_of(x, without(j, "kty")), "Bundle §4.2.1 kty")
    case("bundle", "kty-okp", bundle_of(x, j | {"kty": "OKP"}), "Bundle §4.2.1 kty")
    case("bundle", "no-use", bundle_of(x, without(j, "use")), "Bundle §4.2.2 use")
    case("bundle", "use-sig", bundle_of(x, j | {"use": "sig"}), "Bundle §4.2.2 use")
    case("bundle", "use-list", bundle_of(x, j | {"use": ["jwt-svid"]}), "Bundle §4.2.2 use")
    case("bundle", "authority-kid", bundle_of(x | {"kid": "root"}, j), "X509-SVID §6.1 kid-absent")
    case("bundle", "no-x5c", bundle_of(without(x, "x5c"), j), "X509-SVID §6.1 x5c-single")
    case("bundle", "x5c-of-two", bundle_of(x | {"x5c": x["x5c"] * 2}, j), "X509-SVID §6.1 x5c-single")
    garbage = bundle_of(x | {"x5c": ["Z2FyYmFnZQ=="]}, j)
    case("bundle", "x5c-garbage", garbage, "X509-SVID §6.1 x5c-certificate")
    case(
        "bundle", "x5c-intermediate", bundle_of(authority_entry(BETWEEN), j), "X509-SVID §6.1 x5c-self-signed"
    )
    case("bundle", "x5c-of-another-key", bundle_of(x | jwk(OTHER), j), "RFC 7517 §4.7 x5c-key")
    merged = authority_entry(AUTHORITY.but(san=(san("spiffe://pilot.example.org"), False)))
    case("bundle", "merged", bundle_of(merged, j), "Federation §4.2 trust-domain-merged")
    path = authority_entry(AUTHORITY.but(san=(san(f"spiffe://{TD}/ca"), False)))
    case("bundle", "authority-path", bundle_of(path, j), "X509-SVID §3.2 authority-path")
    case("bundle", "no-kid", bundle_of(x, without(j, "kid")), "JWT-SVID §6.1 kid-present")
    case("bundle", "point-off-curve", bundle_of(x, j | {"y": j["x"]}), "RFC 7518 §6 public-key")


def key_sets() -> None:
    """OIDC key sets, and when keys come into use."""
    entry = {"use": "sig", "kid": "token-key", "alg": "ES256"} | jwk(TOKEN)
    x5c = authority_entry(AUTHORITY)["x5c"]
    jwks: dict[str, tuple[str | None, dict[str, Any]]] = {
        "key-set": (None, entry),
        "use-jwt-svid": ("OIDC §jwks use-sig", entry | {"use": "jwt-svid"}),
        "certificate": ("OIDC §jwks x5c-absent", entry | {"x5c": x5c}),
        "no-kid": ("OIDC §jwks kid-present", without(entry, "kid")),
        "point-off-curve": ("OIDC §jwks public-key", entry | {"y": entry["x"]}),
        "no-alg": ("OIDC §jwks alg", without(entry, "alg")),
        "alg-of-another-key": ("OIDC §jwks alg", entry | {"alg": "RS256"}),
        "private-key": ("Pilot §bundle private-key", entry | {"d": b64(b"\x01" * 32)}),
    }
    for title, (clause, changed) in jwks.items():
        case("jwks", title, compact({"keys": [changed]}), clause)
    times = {"published_at": AT.isoformat(), "refresh_hint_seconds": 300}
    uses = {
        "three-hints-ahead": (None, AT + 15 * MINUTE),
        "two-hints-ahead": ("Federation §4.1 published-ahead", AT + 10 * MINUTE),
        "used-at-once": ("Federation §4.1 published-first", AT),
    }
    for title, (clause, used) in uses.items():
        case("publication", title, compact(times | {"used_from": used.isoformat()}), clause)


def main() -> None:
    """Write every vector and the index."""
    for chapter in (ids, certificates, paths, tokens, bundles, key_sets):
        chapter()
    context = {
        "trust_domain": TD,
        "audience": AUDIENCE,
        "at": AT.isoformat(),
        "bundle": "bundle/good-bundle.json",
    }
    (HERE / "index.json").write_text(
        json.dumps(context | {"cases": INDEX}, indent=1, ensure_ascii=False) + "\n"
    )


if __name__ == "__main__":
    main()
