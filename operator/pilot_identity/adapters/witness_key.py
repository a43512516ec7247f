"""A witness's own key: a file that it was given, or a Secret that it makes on first need."""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from pilot_identity.adapters.keys import KeySecrets
from pilot_identity.adapters.kubernetes.api import Api
from pilot_identity.adapters.witness_state import STATE_CONFIG_MAP, ConfigMapState, LostStateError
from pilot_identity.core.audit.cosignature import Cosigner
from pilot_identity.core.resources.metadata import GROUP

WITNESS_KEY_SECRET = "witness-key"  # noqa: S105 - a Secret's name
WITNESS_KEY_TYPE = f"{GROUP}/witness-key"
WITNESS = "pilot-identity-witness"
"""Who manages it, as its label says; what bears the operator's is held against the log."""
_MAX_KEY_BYTES = 4096


class KeyFileError(Exception):
    """A key file cannot be used; the message never holds what is in it."""


def from_file(path: Path, name: str) -> Cosigner:
    """Read the witness's key: an Ed25519 private key in PEM (PKCS #8), not encrypted.

    Raises:
        KeyFileError: it is none, or cannot be read.
        CheckpointError: the name can be no key's.
    """
    try:
        with path.open("rb") as file:
            key = load_pem_private_key(file.read(_MAX_KEY_BYTES), password=None)
    except OSError as error:
        raise KeyFileError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{path} is no Ed25519 private key in PEM (openssl genpkey -algorithm ed25519)")
    return Cosigner(name, key)


async def from_secret(api: Api, namespace: str, name: str) -> tuple[Cosigner, ConfigMapState]:
    """The key in the witness's namespace and what was cosigned with it; both are made on first need.

    Args:
        api: the API server.
        namespace: the witness's own.
        name: for a new key; one that is there keeps the name that it was born with.

    Raises:
        LostStateError: the key is there, but not what was cosigned with it.
    """
    secrets, state = KeySecrets(api, namespace, WITNESS), ConfigMapState(api, namespace)
    stored = await secrets.read(WITNESS_KEY_SECRET)
    if stored is None:
        await state.begin()
        data = {"name": name.encode(), "ed25519.key": Ed25519PrivateKey.generate().private_bytes_raw()}
        await secrets.create(WITNESS_KEY_SECRET, WITNESS_KEY_TYPE, data)
        stored = await secrets.read(WITNESS_KEY_SECRET) or data
    elif not await state.is_there():
        raise LostStateError(
            f"Secret {WITNESS_KEY_SECRET} is there, but ConfigMap {STATE_CONFIG_MAP}, which tells what was "
            "cosigned with it, is not: restore it, or delete the Secret too, for a witness with another key"
        )
    key = Ed25519PrivateKey.from_private_bytes(stored["ed25519.key"])
    cosigner = Cosigner(stored["name"].decode(), key)
    await state.publish(str(cosigner.verifier()))
    return cosigner, state
