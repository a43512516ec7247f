"""The issuer that keeps its stages' keys in Secrets of the operator's namespace.

`ISSUERS` is the table behind which another issuer (cert-manager, SPIRE, a KMS) is one more row; a contract
suite runs over it.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import secrets
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from pilot_identity.adapters.keys import KeySecrets
from pilot_identity.core.decisions.key_steps import CLOCK_SKEW
from pilot_identity.core.decisions.plan import CredentialOrder, KeyOrder, RetireKeys, TokenOrder
from pilot_identity.core.decisions.stage_keys import (
    OLDEST,
    STANDING_AT_MOST,
    Generation,
    KeyFacts,
    bundle_sequence,
    facts_of,
    refresh_hint,
)
from pilot_identity.core.resources.metadata import GROUP
from pilot_identity.core.spiffe import keys
from pilot_identity.core.spiffe.bundle import DEFAULT_REFRESH_HINT, Bundle
from pilot_identity.core.spiffe.ids import TrustDomain
from pilot_identity.core.spiffe.jwt_svid import certificate_thumbprint, issue_token
from pilot_identity.core.spiffe.revocation import certificate_revocation_list, deny_list
from pilot_identity.core.spiffe.x509_svid import Authority, authority_certificate, issue_leaf
from pilot_identity.ports import Clock, Issuer, RevocationOrder, SignedCredential, Unavailable

STAGE_KEYS_TYPE = f"{GROUP}/stage-keys"
CRL_FILE = "revoked.crl"
DENY_LIST_FILE = "revoked-tokens.jws"
_SERIAL_BITS = 159
_SLOTS = ("", ".b", ".c")
"""What ends the names of a stage's Secrets; generations take them in turn. No stage has a dot in its name."""


@dataclass(frozen=True, slots=True)
class StageKeys:
    """One generation of a stage's keys. The text form shows none of them.

    Attributes:
        rotate: the stage's word that it was made under.
        hint: the refresh hint of the bundle while it is the newest.
    """

    authority: Authority
    jwt_key: ec.EllipticCurvePrivateKey
    number: int = 1
    rotate: str = ""
    hint: dt.timedelta = DEFAULT_REFRESH_HINT

    def __repr__(self) -> str:
        """Name the trust domain and the generation, never a key."""
        return f"StageKeys({self.authority.trust_domain}, {self.number})"

    @property
    def jwt_key_id(self) -> str:
        """The JWT key's id: its RFC 7638 thumbprint."""
        return keys.key_id(self.jwt_key.public_key())

    @property
    def generation(self) -> Generation:
        """What is public of the keys."""
        return Generation(
            number=self.number,
            trust_domain=self.authority.trust_domain.name,
            made_at=self.authority.certificate.not_valid_before_utc + CLOCK_SKEW,
            not_after=self.authority.certificate.not_valid_after_utc,
            jwt_key_id=self.jwt_key_id,
            rotate=self.rotate,
            refresh_hint=self.hint,
            ca_key_sha256=keys.spki_sha256(self.authority.private_key.public_key()),
        )

    def files(self) -> dict[str, bytes]:
        """As stored in the generation's Secret."""
        return {
            "trust-domain": self.authority.trust_domain.name.encode(),
            "ca.crt": self.authority.certificate.public_bytes(Encoding.PEM),
            "ca.key": keys.private_key_pem(self.authority.private_key),
            "jwt.key": keys.private_key_pem(self.jwt_key),
            "generation": str(self.number).encode(),
            "rotate": self.rotate.encode(),
            "refresh-hint-seconds": str(self.hint // dt.timedelta(seconds=1)).encode(),
        }

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> StageKeys:
        """Read what `files` wrote, or an earlier version, which knew the first generation only."""
        authority = Authority(
            x509.load_pem_x509_certificate(files["ca.crt"]),
            keys.parse_private_key_pem(files["ca.key"]),
            TrustDomain.parse(files["trust-domain"].decode()),
        )
        hint = files.get("refresh-hint-seconds")
        return cls(
            authority,
            keys.parse_private_key_pem(files["jwt.key"]),
            int(files.get("generation", b"1")),
            files.get("rotate", b"").decode(),
            dt.timedelta(seconds=int(hint)) if hint is not None else DEFAULT_REFRESH_HINT,
        )


@dataclass(frozen=True, slots=True)
class _Ring:
    """Every generation of one stage that stands, oldest first."""

    standing: tuple[StageKeys, ...] = ()

    @property
    def generations(self) -> tuple[Generation, ...]:
        """What is public of them."""
        return tuple(one.generation for one in self.standing)

    @property
    def bundle(self) -> Bundle:
        """The stage's trust bundle: each of them is trusted, whichever signs."""
        generations = self.generations
        return Bundle(
            self.standing[0].authority.trust_domain,
            tuple(one.authority.certificate for one in self.standing),
            {one.jwt_key_id: one.jwt_key.public_key() for one in self.standing},
            sequence=bundle_sequence(generations),
            refresh_hint=refresh_hint(generations),
        )

    def signer(self, generation: int) -> StageKeys | None:
        """The keys of a generation, if it stands."""
        if generation == OLDEST:
            return self.standing[0] if self.standing else None
        return next((one for one in self.standing if one.number == generation), None)


class SecretIssuer:
    """`ports.Issuer` with each generation of keys in a Secret: `stage-keys-<stage>`, `….b` or `….c`.

    The names go round, so that what stands is found without a list and without any other record: it is the
    Secrets that are there. Only the operator can write any of them.
    """

    def __init__(self, stored: KeySecrets, clock: Clock) -> None:
        self._stored = stored
        self._clock = clock
        self._known: dict[str, _Ring] = {}
        self._bundles: dict[str, tuple[_Ring, Mapping[str, str]]] = {}
        self._drawn: dict[str, StageKeys] = {}
        self._loading: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def facts(self, stage: str, generation: int = OLDEST) -> KeyFacts | None:
        """What is public of a stage's keys, where a generation signs; `None` where that does not stand."""
        known = self._known.get(stage) or await self._load(stage)
        return facts_of(known.generations, generation)

    async def generations(self, stage: str) -> tuple[Generation, ...]:
        """Every generation that stands, as they are stored now."""
        return (await self._load(stage)).generations

    def draw_keys(self, order: KeyOrder) -> Mapping[str, str]:
        """Make a generation of a stage's keys in memory; returns their public fingerprints."""
        private_key = ec.generate_private_key(ec.SECP256R1())
        serial = secrets.randbits(_SERIAL_BITS) | 1
        certificate = authority_certificate(
            private_key, order.trust_domain, serial, order.not_before, order.not_after
        )
        drawn = StageKeys(
            Authority(certificate, private_key, order.trust_domain),
            ec.generate_private_key(ec.SECP256R1()),
            order.generation,
            order.rotate,
            order.refresh_hint,
        )
        self._drawn[order.stage] = drawn
        return {
            "caSerial": f"{serial:x}",
            "caPublicKeySHA256": keys.spki_sha256(private_key.public_key()),
            "caNotAfter": drawn.generation.not_after.isoformat(),
            "jwtKeyID": drawn.jwt_key_id,
        }

    async def store_keys(self, order: KeyOrder) -> None:
        """Store the keys that were drawn; keys that another process stored first win."""
        drawn = self._drawn.pop(order.stage)
        await self._stored.create(_secret_name(order.stage, drawn.number), STAGE_KEYS_TYPE, drawn.files())
        await self._load(order.stage)

    async def delete_keys(self, retired: RetireKeys) -> None:
        """Delete a generation, private keys and all; what stands in its place by now is left."""
        name = _secret_name(retired.stage, retired.generation)
        files = await self._stored.read(name)
        if files is not None and StageKeys.from_files(files).number == retired.generation:
            await self._stored.delete(name, files)
        await self._load(retired.stage)

    def sign(self, order: CredentialOrder) -> SignedCredential:
        """Make a credential in memory: a new key, its X.509-SVID, the JWT-SVIDs, the bundle.

        Over a public key that was brought, the X.509-SVID alone.
        """
        stage = self._require(order.stage, order.generation)
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
        """The stage's trust bundle, of every generation that stands, by file name."""
        ring = self._known[stage]
        known = self._bundles.get(stage)
        if known is None or known[0] is not ring:
            bundle = ring.bundle
            files = {"bundle.pem": bundle.to_pem(), "bundle.json": bundle.to_spiffe_json()}
            known = self._bundles[stage] = (ring, files)
        return known[1]

    def revocation_lists(self, order: RevocationOrder) -> Mapping[str, str]:
        """Sign a stage's revocation lists: CRLs in PEM, and a deny list of token ids as a JWS.

        There is a CRL of each generation that stands, since a CRL speaks for the CA that signed it alone;
        also of the one that is to sign, or its first certificate would have none. Which of them signed a
        certificate is not asked: each names all, and a serial number is drawn but once.
        """
        stage = self._require(order.stage, order.generation)
        crls = [
            certificate_revocation_list(
                one.authority,
                order.certificates,
                number=order.number,
                this_update=order.this_update,
                next_update=order.next_update,
            )
            for one in self._known[order.stage].standing
        ]
        denied = deny_list(
            stage.jwt_key,
            stage.jwt_key_id,
            stage.authority.trust_domain,
            order.token_ids,
            issued_at=order.this_update,
            expires_at=order.next_update,
        )
        text = "".join(crl.public_bytes(Encoding.PEM).decode() for crl in crls)
        return {CRL_FILE: text, DENY_LIST_FILE: denied}

    def _require(self, stage: str, generation: int) -> StageKeys:
        found = self._known.get(stage, _Ring()).signer(generation)
        if found is None:
            raise Unavailable(f"the keys of stage {stage!r} are not loaded")
        return found

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

    async def _load(self, stage: str) -> _Ring:
        """Read what stands, one reading at a time, so that none puts an older answer over a newer one."""
        async with self._loading[stage]:
            standing = await self._read(stage)
            if not standing:
                self._known.pop(stage, None)
                return _Ring()
            known = self._known.get(stage)
            if known is None or known.generations != _Ring(standing).generations:
                known = self._known[stage] = _Ring(standing)
            return known

    async def _read(self, stage: str) -> tuple[StageKeys, ...]:
        found: list[StageKeys] = []
        for slot in range(STANDING_AT_MOST):
            name = _secret_name(stage, slot + 1)
            files = await self._stored.read(name)
            if files is None:
                continue
            keys_in_it = StageKeys.from_files(files)
            if _secret_name(stage, keys_in_it.number) != name:
                raise Unavailable(f"Secret {name} holds generation {keys_in_it.number}, not its own")
            found.append(keys_in_it)
        return tuple(sorted(found, key=lambda one: one.number))


def _leaf(stage: StageKeys, order: CredentialOrder, public_key: keys.VerificationKey) -> x509.Certificate:
    return issue_leaf(
        stage.authority, public_key, order.spiffe_id, order.serial, order.not_before, order.not_after
    )


def _secret_name(stage: str, generation: int) -> str:
    return f"stage-keys-{stage}{_SLOTS[(generation - 1) % STANDING_AT_MOST]}"


ISSUERS: Mapping[str, Callable[[KeySecrets, Clock], Issuer]] = {
    "secret": SecretIssuer,
}
"""Every issuer by the name that `--issuer` takes."""
