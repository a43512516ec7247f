"""The issuer that keeps its stages' keys in Secrets of the operator's namespace.

`ISSUERS` is the table behind which another issuer (cert-manager, SPIRE, a KMS) is one more row; a contract
suite runs over it.
"""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from pilot_identity.adapters.keys import KeySecrets
from pilot_identity.core.decisions.plan import CredentialOrder, KeyOrder, TokenOrder
from pilot_identity.core.decisions.stages import KeyFacts
from pilot_identity.core.resources.metadata import GROUP
from pilot_identity.core.spiffe import keys
from pilot_identity.core.spiffe.bundle import Bundle
from pilot_identity.core.spiffe.ids import TrustDomain
from pilot_identity.core.spiffe.jwt_svid import certificate_thumbprint, issue_token
from pilot_identity.core.spiffe.revocation import certificate_revocation_list, deny_list
from pilot_identity.core.spiffe.x509_svid import Authority, authority_certificate, issue_leaf
from pilot_identity.ports import Clock, Issuer, RevocationOrder, SignedCredential, Unavailable

STAGE_KEYS_TYPE = f"{GROUP}/stage-keys"
CRL_FILE = "revoked.crl"
DENY_LIST_FILE = "revoked-tokens.jws"
_SERIAL_BITS = 159
_FIRST_SEQUENCE = 1


@dataclass(frozen=True, slots=True)
class StageKeys:
    """One stage's keys. The text form shows none of them."""

    authority: Authority
    jwt_key: ec.EllipticCurvePrivateKey
    sequence: int

    def __repr__(self) -> str:
        """Name the trust domain, never a key."""
        return f"StageKeys({self.authority.trust_domain})"

    @property
    def jwt_key_id(self) -> str:
        """The JWT key's id: its RFC 7638 thumbprint."""
        return keys.key_id(self.jwt_key.public_key())

    @property
    def facts(self) -> KeyFacts:
        """What is public of the keys."""
        return KeyFacts(
            trust_domain=self.authority.trust_domain.name,
            not_after=self.authority.certificate.not_valid_after_utc,
            jwt_key_id=self.jwt_key_id,
            sequence=self.sequence,
        )

    @property
    def bundle(self) -> Bundle:
        """The stage's trust bundle."""
        return Bundle(
            self.authority.trust_domain,
            (self.authority.certificate,),
            {self.jwt_key_id: self.jwt_key.public_key()},
            sequence=self.sequence,
        )

    def files(self) -> dict[str, bytes]:
        """As stored in the stage's Secret."""
        return {
            "trust-domain": self.authority.trust_domain.name.encode(),
            "ca.crt": self.authority.certificate.public_bytes(Encoding.PEM),
            "ca.key": keys.private_key_pem(self.authority.private_key),
            "jwt.key": keys.private_key_pem(self.jwt_key),
            "sequence": str(self.sequence).encode(),
        }

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> StageKeys:
        """Read what `files` wrote."""
        authority = Authority(
            x509.load_pem_x509_certificate(files["ca.crt"]),
            keys.parse_private_key_pem(files["ca.key"]),
            TrustDomain.parse(files["trust-domain"].decode()),
        )
        return cls(authority, keys.parse_private_key_pem(files["jwt.key"]), int(files["sequence"]))


class SecretIssuer:
    """`ports.Issuer` with keys in Secrets named `stage-keys-<stage>`."""

    def __init__(self, stored: KeySecrets, clock: Clock) -> None:
        self._stored = stored
        self._clock = clock
        self._known: dict[str, StageKeys] = {}
        self._bundles: dict[str, Mapping[str, str]] = {}
        self._drawn: dict[str, StageKeys] = {}

    async def facts(self, stage: str) -> KeyFacts | None:
        """What is public of a stage's keys; `None` where it has none yet."""
        known = self._known.get(stage) or await self._load(stage)
        return known.facts if known is not None else None

    def draw_keys(self, order: KeyOrder) -> Mapping[str, str]:
        """Make a stage's keys in memory; returns their public fingerprints."""
        private_key = ec.generate_private_key(ec.SECP256R1())
        serial = secrets.randbits(_SERIAL_BITS) | 1
        certificate = authority_certificate(
            private_key, order.trust_domain, serial, order.not_before, order.not_after
        )
        drawn = StageKeys(
            Authority(certificate, private_key, order.trust_domain),
            ec.generate_private_key(ec.SECP256R1()),
            _FIRST_SEQUENCE,
        )
        self._drawn[order.stage] = drawn
        return {
            "caSerial": f"{serial:x}",
            "caPublicKeySHA256": keys.spki_sha256(private_key.public_key()),
            "caNotAfter": drawn.facts.not_after.isoformat(),
            "jwtKeyID": drawn.jwt_key_id,
        }

    async def store_keys(self, order: KeyOrder) -> None:
        """Store the keys that were drawn; keys that another process stored first win."""
        drawn = self._drawn.pop(order.stage)
        await self._stored.create(_secret_name(order.stage), STAGE_KEYS_TYPE, drawn.files())

    def sign(self, order: CredentialOrder) -> SignedCredential:
        """Make a credential in memory: a new key, its X.509-SVID, the JWT-SVIDs, the bundle.

        Over a public key that was brought, the X.509-SVID alone.
        """
        stage = self._known.get(order.stage)
        if stage is None:
            raise Unavailable(f"the keys of stage {order.stage!r} are not loaded")
        if order.public_key is not None:
            files = {"tls.crt": _leaf(stage, order, order.public_key).public_bytes(Encoding.PEM)}
            return SignedCredential(order, keys.spki_sha256(order.public_key), files)
        private_key = ec.generate_private_key(ec.SECP256R1())
        public_key = private_key.public_key()
        certificate = _leaf(stage, order, public_key)
        files = {
            "tls.crt": certificate.public_bytes(Encoding.PEM),
            "tls.key": keys.private_key_pem(private_key),
            **{name: text.encode() for name, text in self.bundle(order.stage).items()},
        }
        confirmation = {"cnf": {"x5t#S256": certificate_thumbprint(certificate)}}
        signed: dict[str, bytes] = {}
        for token in order.tokens:
            if token.token_id not in signed:
                signed[token.token_id] = self._token(stage, order, token, confirmation)
            files[token.file] = signed[token.token_id]
        return SignedCredential(order, keys.spki_sha256(public_key), files)

    def bundle(self, stage: str) -> Mapping[str, str]:
        """The stage's trust bundle, by file name."""
        if stage not in self._bundles:
            bundle = self._known[stage].bundle
            self._bundles[stage] = {"bundle.pem": bundle.to_pem(), "bundle.json": bundle.to_spiffe_json()}
        return self._bundles[stage]

    def revocation_lists(self, order: RevocationOrder) -> Mapping[str, str]:
        """Sign a stage's revocation lists: a CRL in PEM, and a deny list of token ids as a JWS."""
        stage = self._known.get(order.stage)
        if stage is None:
            raise Unavailable(f"the keys of stage {order.stage!r} are not loaded")
        crl = certificate_revocation_list(
            stage.authority,
            order.certificates,
            number=order.number,
            this_update=order.this_update,
            next_update=order.next_update,
        )
        denied = deny_list(
            stage.jwt_key,
            stage.jwt_key_id,
            stage.authority.trust_domain,
            order.token_ids,
            issued_at=order.this_update,
            expires_at=order.next_update,
        )
        return {CRL_FILE: crl.public_bytes(Encoding.PEM).decode(), DENY_LIST_FILE: denied}

    def _token(
        self, stage: StageKeys, order: CredentialOrder, token: TokenOrder, confirmation: Mapping[str, object]
    ) -> bytes:
        issued_at = self._clock().replace(microsecond=0)
        return issue_token(
            stage.jwt_key,
            stage.jwt_key_id,
            order.spiffe_id,
            token.audience,
            min(issued_at, token.expires_at - dt.timedelta(seconds=1)),
            token.expires_at,
            token.token_id,
            {**token.claims, **confirmation},
        ).encode()

    async def _load(self, stage: str) -> StageKeys | None:
        files = await self._stored.read(_secret_name(stage))
        if files is None:
            return None
        loaded = self._known[stage] = StageKeys.from_files(files)
        return loaded


def _leaf(stage: StageKeys, order: CredentialOrder, public_key: keys.VerificationKey) -> x509.Certificate:
    return issue_leaf(
        stage.authority, public_key, order.spiffe_id, order.serial, order.not_before, order.not_after
    )


def _secret_name(stage: str) -> str:
    return f"stage-keys-{stage}"


ISSUERS: Mapping[str, Callable[[KeySecrets, Clock], Issuer]] = {
    "secret": SecretIssuer,
}
"""Every issuer by the name that `--issuer` takes."""
