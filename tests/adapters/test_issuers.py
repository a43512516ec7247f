"""The contract of every issuer in the table."""

from __future__ import annotations

import datetime as dt
import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from pilot_identity.adapters.issuer import ISSUERS, StageKeys
from pilot_identity.adapters.keys import KeySecrets
from pilot_identity.core.audit.entries import Entry
from pilot_identity.core.decisions.key_steps import CLOCK_SKEW
from pilot_identity.core.decisions.plan import CredentialOrder, KeyOrder, Owner, RetireKeys, TokenOrder
from pilot_identity.core.resources.metadata import Key
from pilot_identity.core.spiffe import keys
from pilot_identity.core.spiffe.ids import SpiffeId, TrustDomain
from pilot_identity.ports import Issuer, RevocationOrder, Unavailable
from tests.fakes.clock import START, SetClock
from tests.fakes.server import HOME, FakeApi, FakeServer

MINUTE = dt.timedelta(minutes=1)
ID = SpiffeId.parse("spiffe://sandbox.example.org/ns/team-a/pilot/triage/task/task-1")

pytestmark = pytest.mark.parametrize("name", sorted(ISSUERS))


def issuer(name: str, server: FakeServer) -> Issuer:
    """A row of the table, as a fresh process has it."""
    return ISSUERS[name](KeySecrets(FakeApi(server), HOME), server.clock)


def key_order(stage: str = "sandbox", **other: Any) -> KeyOrder:
    """Keys of a stage for a day."""

    def announce(_: Mapping[str, str]) -> Entry:
        raise AssertionError("an issuer announces nothing itself")

    return KeyOrder(
        Owner(Key("StagePolicy", "", stage), "uid-1"),
        stage,
        TrustDomain.parse(f"{stage}.example.org"),
        START - MINUTE,
        START + dt.timedelta(days=1),
        announce,
        **other,
    )


def order(*tokens: TokenOrder) -> CredentialOrder:
    """A task's credential for a minute."""
    return CredentialOrder("one", "sandbox", ID, 0xABC, START, START + MINUTE, tokens)


def token(file: str, audience: str, token_id: str) -> TokenOrder:
    """One token."""
    return TokenOrder(file, audience, token_id, START + MINUTE, {"authorization_details": []})


async def ready(name: str, server: FakeServer) -> Issuer:
    """An issuer that has the sandbox's keys."""
    made = issuer(name, server)
    made.draw_keys(key_order())
    await made.store_keys(key_order())
    assert await made.facts("sandbox") is not None
    return made


async def test_a_stage_has_no_keys_until_they_are_stored(name: str) -> None:
    """Drawn keys are in memory only; stored, they are what was announced, for any process."""
    server = FakeServer(SetClock())
    made = issuer(name, server)
    assert await made.facts("sandbox") is None
    announced = made.draw_keys(key_order())
    assert await made.facts("sandbox") is None
    await made.store_keys(key_order())
    for process in (made, issuer(name, server)):
        facts = await process.facts("sandbox")
        assert facts is not None
        assert (facts.trust_domain, facts.jwt_key_id) == ("sandbox.example.org", announced["jwtKeyID"])
        assert facts.not_after == START + dt.timedelta(days=1)


async def test_keys_that_another_process_stored_first_win(name: str) -> None:
    """Both go on with the same."""
    server = FakeServer(SetClock())
    one, two = issuer(name, server), issuer(name, server)
    first = one.draw_keys(key_order())
    two.draw_keys(key_order())
    await one.store_keys(key_order())
    await two.store_keys(key_order())
    for process in (one, two):
        facts = await process.facts("sandbox")
        assert facts is not None
        assert facts.jwt_key_id == first["jwtKeyID"]
    assert one.bundle("sandbox") == two.bundle("sandbox")


async def test_stages_share_no_key(name: str) -> None:
    """Promise 5."""
    server = FakeServer(SetClock())
    made = await ready(name, server)
    made.draw_keys(key_order("pilot"))
    await made.store_keys(key_order("pilot"))
    sandbox, pilot = await made.facts("sandbox"), await made.facts("pilot")
    assert sandbox is not None
    assert pilot is not None
    assert sandbox.jwt_key_id != pilot.jwt_key_id
    assert made.bundle("sandbox")["bundle.pem"] != made.bundle("pilot")["bundle.pem"]


async def test_what_is_signed_is_what_was_ordered(name: str) -> None:
    """Certificate, key, token and bundle belong together, and end when they were to end."""
    server = FakeServer(SetClock())
    made = await ready(name, server)
    signed = made.sign(order(token("token.jwt", "https://tickets.example.org", "one.0")))
    certificate = x509.load_pem_x509_certificate(signed.files["tls.crt"])
    private_key = keys.parse_private_key_pem(signed.files["tls.key"])
    assert certificate.public_key() == private_key.public_key()
    assert keys.spki_sha256(private_key.public_key()) == signed.public_key_sha256
    assert (certificate.serial_number, certificate.not_valid_after_utc) == (0xABC, START + MINUTE)
    authority = x509.load_pem_x509_certificate(signed.files["bundle.pem"])
    certificate.verify_directly_issued_by(authority)
    claims = jwt.decode(signed.files["token.jwt"], options={"verify_signature": False})
    assert (claims["sub"], claims["aud"], claims["jti"]) == (ID.uri, "https://tickets.example.org", "one.0")
    assert claims["exp"] == int((START + MINUTE).timestamp())
    assert set(claims["cnf"]) == {"x5t#S256"}
    assert dict(made.bundle("sandbox")) == {
        file: signed.files[file].decode() for file in ("bundle.pem", "bundle.json")
    }


async def test_a_token_that_goes_to_two_files_is_one_token(name: str) -> None:
    """One id, one signature."""
    server = FakeServer(SetClock())
    made = await ready(name, server)
    signed = made.sign(
        order(token("a.jwt", "x", "one.0"), token("b.jwt", "x", "one.0"), token("c.jwt", "y", "one.1"))
    )
    assert signed.files["a.jwt"] == signed.files["b.jwt"] != signed.files["c.jwt"]


async def test_each_credential_has_a_key_of_its_own(name: str) -> None:
    """A renewal is a new key."""
    made = await ready(name, FakeServer(SetClock()))
    assert made.sign(order()).files["tls.key"] != made.sign(order()).files["tls.key"]


async def test_without_keys_nothing_is_signed(name: str) -> None:
    """It is tried again later."""
    with pytest.raises(Unavailable, match="not loaded"):
        issuer(name, FakeServer(SetClock())).sign(order())


async def test_no_key_is_ever_shown(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Neither in a text form nor in the log."""
    server = FakeServer(SetClock())
    with caplog.at_level(logging.DEBUG):
        made = await ready(name, server)
        signed = made.sign(order(token("token.jwt", "x", "one.0")))
        shown = f"{made!r} {signed!r} {signed} {vars(made)!r}"
    for text in (shown, caplog.text):
        assert "PRIVATE" not in text
        assert signed.files["token.jwt"].decode() not in text


async def test_stored_keys_are_read_back_as_they_were(name: str) -> None:
    """Format and parse are inverses, and the Secret is typed and immutable."""
    server = FakeServer(SetClock())
    await ready(name, server)
    (secret,) = server.all("secrets")
    assert (secret["type"], secret["immutable"]) == ("pilotidentity.dev/stage-keys", True)
    files = await KeySecrets(FakeApi(server), HOME).read(secret["metadata"]["name"])
    assert files is not None
    stored = StageKeys.from_files(files)
    assert stored.files() == files
    assert repr(stored) == "StageKeys(sandbox.example.org, 1)"


async def test_over_a_public_key_that_was_brought_the_certificate_is_all_there_is(name: str) -> None:
    """No private key is made, and nothing of the kind is in the files."""
    server = FakeServer(SetClock())
    made = await ready(name, server)
    workloads = ec.generate_private_key(ec.SECP384R1()).public_key()
    signed = made.sign(replace(order(), public_key=workloads))
    assert set(signed.files) == {"tls.crt"}
    certificate = x509.load_pem_x509_certificate(signed.files["tls.crt"])
    assert certificate.public_key() == workloads
    assert certificate.serial_number == order().serial
    assert signed.public_key_sha256 == keys.spki_sha256(workloads)


async def add(made: Issuer, generation: int, **other: Any) -> None:
    """Make and store one more generation."""
    made.draw_keys(key_order(generation=generation, **other))
    await made.store_keys(key_order(generation=generation, **other))


async def test_the_next_generation_is_trusted_before_it_signs(name: str) -> None:
    """Both are in the bundle, whose sequence went on; who signs is what the order says."""
    server = FakeServer(SetClock())
    made = await ready(name, server)
    before = made.bundle("sandbox")
    await add(made, 2, rotate="word", refresh_hint=MINUTE)
    for process in (made, issuer(name, server)):
        known = await process.generations("sandbox")
        assert [(one.number, one.rotate, one.made_at) for one in known] == [
            (1, "", START - MINUTE + CLOCK_SKEW),
            (2, "word", START - MINUTE + CLOCK_SKEW),
        ]
        first, second = await process.facts("sandbox", 1), await process.facts("sandbox", 2)
        assert first == await process.facts("sandbox")
        assert first is not None
        assert second is not None
        assert (first.sequence, second.sequence) == (2, 2)
        assert first.jwt_key_id != second.jwt_key_id
        assert await process.facts("sandbox", 3) is None
        bundle = json.loads(process.bundle("sandbox")["bundle.json"])
        assert (len(bundle["keys"]), bundle["spiffe_sequence"], bundle["spiffe_refresh_hint"]) == (4, 2, 60)
        assert process.bundle("sandbox") != before
        authorities = x509.load_pem_x509_certificates(process.bundle("sandbox")["bundle.pem"].encode())
        signers = set()
        for generation, facts in ((1, first), (2, second)):
            ordered = replace(order(token("token.jwt", "x", "one.0")), generation=generation)
            signed = process.sign(ordered).files
            leaf = x509.load_pem_x509_certificate(signed["tls.crt"])
            (signer,) = (one for one in authorities if one.subject == leaf.issuer)
            leaf.verify_directly_issued_by(signer)
            signers.add(signer)
            assert jwt.get_unverified_header(signed["token.jwt"])["kid"] == facts.jwt_key_id
        assert len(signers) == 2
    with pytest.raises(Unavailable):
        made.sign(replace(order(), generation=3))


async def test_a_retired_generation_is_gone_for_any_process(name: str) -> None:
    """Its Secret is deleted; the others stay, and a later one may take its name."""
    server = FakeServer(SetClock())
    made = await ready(name, server)
    await add(made, 2)
    for _ in range(2):
        await made.delete_keys(RetireKeys("sandbox", 1))
    assert [one.number for one in await made.generations("sandbox")] == [2]
    assert (await made.facts("sandbox", 1), len(server.all("secrets"))) == (None, 1)
    assert json.loads(made.bundle("sandbox")["bundle.json"])["spiffe_sequence"] == 3
    for number in (3, 4):
        await add(made, number)
    await made.delete_keys(RetireKeys("sandbox", 1))
    later = issuer(name, server)
    assert [one.number for one in await later.generations("sandbox")] == [2, 3, 4], "4 is not taken for 1"
    assert len(server.all("secrets")) == 3


async def test_keys_that_somebody_took_away_sign_nothing_more(name: str) -> None:
    """As soon as the stage is looked at again."""
    server = FakeServer(SetClock())
    made = await ready(name, server)
    stored = KeySecrets(FakeApi(server), HOME)
    files = await stored.read("stage-keys-sandbox")
    assert files is not None
    await stored.delete("stage-keys-sandbox", files)
    assert await made.generations("sandbox") == ()
    assert await made.facts("sandbox") is None
    with pytest.raises(Unavailable):
        made.sign(order())
    with pytest.raises(KeyError):
        made.bundle("sandbox")


async def test_lists_are_signed_for_every_generation(name: str) -> None:
    """A CRL of each, with the same on it; the list of tokens by the one that is named."""
    server = FakeServer(SetClock())
    made = await ready(name, server)
    await add(made, 2)
    known = await made.generations("sandbox")
    asked = RevocationOrder("sandbox", ((0xABC, START),), ("one.0",), 7, START, START + MINUTE, generation=2)
    files = made.revocation_lists(asked)
    crls = [
        x509.load_pem_x509_crl(f"{text}-----END X509 CRL-----\n".encode())
        for text in files["revoked.crl"].split("-----END X509 CRL-----\n")[:-1]
    ]
    authorities = x509.load_pem_x509_certificates(made.bundle("sandbox")["bundle.pem"].encode())
    assert {crl.issuer for crl in crls} == {one.subject for one in authorities}
    for crl in crls:
        (signer,) = (one for one in authorities if one.subject == crl.issuer)
        key = signer.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert crl.is_signature_valid(key)
        assert [one.serial_number for one in crl] == [0xABC]
    assert jwt.get_unverified_header(files["revoked-tokens.jws"])["kid"] == known[1].jwt_key_id


async def test_keys_of_an_earlier_version_are_the_first_generation(name: str) -> None:
    """Their Secret says nothing of generations; it is read as it is, and left so."""
    server = FakeServer(SetClock())
    await ready(name, server)
    stored = KeySecrets(FakeApi(server), HOME)
    files = await stored.read("stage-keys-sandbox")
    assert files is not None
    old = {
        file: text
        for file, text in files.items()
        if file not in {"generation", "rotate", "refresh-hint-seconds"}
    }
    await stored.delete("stage-keys-sandbox", files)
    await stored.create("stage-keys-sandbox", "pilotidentity.dev/stage-keys", {**old, "sequence": b"1"})
    (found,) = await issuer(name, server).generations("sandbox")
    assert (found.number, found.rotate, found.refresh_hint) == (1, "", 5 * MINUTE)


async def test_keys_under_another_generations_name_are_not_used(name: str) -> None:
    """A backup that was restored wrongly is told, not taken for another generation."""
    server = FakeServer(SetClock())
    made = await ready(name, server)
    stored = KeySecrets(FakeApi(server), HOME)
    files = await stored.read("stage-keys-sandbox")
    assert files is not None
    await stored.create("stage-keys-sandbox.b", "pilotidentity.dev/stage-keys", files)
    with pytest.raises(Unavailable, match=r"stage-keys-sandbox\.b holds generation 1"):
        await made.generations("sandbox")
