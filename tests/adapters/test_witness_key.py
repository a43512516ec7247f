from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilot_identity.adapters.witness_key import WITNESS_KEY_SECRET, KeyFileError, from_file, from_secret
from pilot_identity.adapters.witness_state import STATE_CONFIG_MAP, ConfigMapState, LostStateError
from pilot_identity.core.audit.checkpoint import CheckpointError
from tests.fakes.clock import SetClock
from tests.fakes.server import WITNESS_HOME as NAMESPACE
from tests.fakes.server import FakeApi, FakeServer, Place


async def test_the_key_is_made_once_and_published() -> None:
    """With the state before it; the name that it was born with stays."""
    server = FakeServer(SetClock())
    first, _ = await from_secret(FakeApi(server), NAMESPACE, "first.example.org")
    second, state = await from_secret(FakeApi(server), NAMESPACE, "second.example.org")
    assert str(first.verifier()) == str(second.verifier())
    kept = server.find("configmaps", STATE_CONFIG_MAP, NAMESPACE)
    assert kept is not None
    assert kept["data"]["vkey"] == f"{first.verifier()}\n"
    secret = server.find("secrets", WITNESS_KEY_SECRET, NAMESPACE)
    assert secret is not None
    assert secret["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "pilot-identity-witness"}
    await state.replace("a", await state.read("a"), "note\n")
    await from_secret(FakeApi(server), NAMESPACE, "third.example.org")
    assert (await state.read("a")).note == "note\n"


async def test_a_key_whose_memory_is_lost_does_not_begin_anew() -> None:
    """Neither at the start nor at work; a new key may."""
    server = FakeServer(SetClock())
    first, state = await from_secret(FakeApi(server), NAMESPACE, "w.example.org")
    server.lose("configmaps", STATE_CONFIG_MAP, NAMESPACE)
    with pytest.raises(LostStateError):
        await state.read("a")
    with pytest.raises(LostStateError, match="restore it, or delete the Secret too"):
        await from_secret(FakeApi(server), NAMESPACE, "w.example.org")
    server.lose("secrets", WITNESS_KEY_SECRET, NAMESPACE)
    another, _ = await from_secret(FakeApi(server), NAMESPACE, "w.example.org")
    assert str(another.verifier()) != str(first.verifier())


async def test_a_crash_between_state_and_key_is_no_loss() -> None:
    """The next start makes the key to the state that is there."""
    server = FakeServer(SetClock())
    await ConfigMapState(FakeApi(server), NAMESPACE).begin()
    await from_secret(FakeApi(server), NAMESPACE, "w.example.org")
    assert Place("secrets", NAMESPACE, WITNESS_KEY_SECRET) in server.objects


def pem(key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    """A private key as openssl writes it."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def test_a_key_is_read_from_a_file(tmp_path: Path) -> None:
    """As `openssl genpkey -algorithm ed25519` writes it."""
    key, path = Ed25519PrivateKey.generate(), tmp_path / "key.pem"
    path.write_bytes(pem(key))
    verifier = from_file(path, "w.example.org").verifier()
    assert (verifier.name, verifier.public_key) == ("w.example.org", key.public_key().public_bytes_raw())


BROKEN = {
    "nothing": b"",
    "no PEM": b"secret words",
    "another kind of key": pem(ec.generate_private_key(ec.SECP256R1())),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_file_that_is_no_key_is_told_without_its_content(tmp_path: Path, content: bytes) -> None:
    """What is in it may be a secret all the same."""
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    with pytest.raises(KeyFileError, match="is no Ed25519 private key") as told:
        from_file(path, "w.example.org")
    assert "secret" not in str(told.value)


def test_a_missing_file_and_an_impossible_name_are_told(tmp_path: Path) -> None:
    """Each as what it is."""
    with pytest.raises(KeyFileError, match="cannot be read"):
        from_file(tmp_path / "none.pem", "w.example.org")
    path = tmp_path / "key.pem"
    path.write_bytes(pem(Ed25519PrivateKey.generate()))
    with pytest.raises(CheckpointError, match="no spaces"):
        from_file(path, "two words")
