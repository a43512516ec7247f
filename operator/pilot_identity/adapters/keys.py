"""The operator's own keys, in Secrets of its own namespace, each read by its name and never listed."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilot_identity.adapters.kubernetes import paths
from pilot_identity.adapters.kubernetes.api import Api, NotFound
from pilot_identity.core.audit.checkpoint import LogSigner
from pilot_identity.core.resources.metadata import GROUP
from pilot_identity.ports import Conflict

LOG_KEY_SECRET = "audit-log-key"  # noqa: S105 - a Secret's name
LOG_KEY_TYPE = f"{GROUP}/audit-key"
VERIFIER_CONFIG_MAP = "audit-verifier"


class LostKeyError(Exception):
    """A key that must be there is gone; nothing is made in its place."""


class KeySecrets:
    """Reads, makes and deletes the Secrets that hold keys, by default the operator's; it changes none."""

    def __init__(self, api: Api, namespace: str, managed_by: str = "pilot-identity") -> None:
        self._api = api
        self._namespace = namespace
        self._managed_by = managed_by

    async def read(self, name: str) -> Mapping[str, bytes] | None:
        """Return a Secret's data, or `None` where there is none."""
        try:
            found = await self._api.get(paths.core(self._namespace, "secrets", name))
        except NotFound:
            return None
        return _decoded(found)

    async def create(self, name: str, secret_type: str, data: Mapping[str, bytes]) -> bool:
        """Create a Secret; returns False where another process was first."""
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": secret_type,
            "immutable": True,
            "metadata": {
                "name": name,
                "namespace": self._namespace,
                "labels": {"app.kubernetes.io/managed-by": self._managed_by},
            },
            "data": {file: base64.b64encode(content).decode() for file, content in data.items()},
        }
        try:
            await self._api.create(paths.core(self._namespace, "secrets"), body)
        except Conflict:
            return False
        return True

    async def delete(self, name: str, expected: Mapping[str, bytes]) -> None:
        """Delete a Secret if it holds exactly what is expected; one that is gone is gone."""
        try:
            found = await self._api.get(paths.core(self._namespace, "secrets", name))
            if _decoded(found) == expected:
                uid = found["metadata"]["uid"]
                await self._api.delete(paths.core(self._namespace, "secrets", name), uid=uid)
        except (NotFound, Conflict):
            return


def _decoded(secret: Mapping[str, Any]) -> dict[str, bytes]:
    return {file: base64.b64decode(content) for file, content in (secret.get("data") or {}).items()}


async def log_signer(api: Api, namespace: str, log_id: str) -> LogSigner:
    """Return the log's signer, made on first need; publishes its verifier key beside it.

    Args:
        api: the API server.
        namespace: the operator's.
        log_id: a random name for a new log; an existing log keeps the one that it was born with.

    Raises:
        LostKeyError: there is a log, but its key is gone.
    """
    secrets = KeySecrets(api, namespace)
    stored = await secrets.read(LOG_KEY_SECRET)
    if stored is None:
        await _require_new(api, namespace)
        data = {
            "origin": f"{GROUP}/log/{log_id}".encode(),
            "ed25519.key": Ed25519PrivateKey.generate().private_bytes_raw(),
        }
        await secrets.create(LOG_KEY_SECRET, LOG_KEY_TYPE, data)
        stored = await secrets.read(LOG_KEY_SECRET) or data
    private_key = Ed25519PrivateKey.from_private_bytes(stored["ed25519.key"])
    signer = LogSigner(stored["origin"].decode(), private_key)
    await _publish_verifier(api, namespace, str(signer.verifier()))
    return signer


async def _require_new(api: Api, namespace: str) -> None:
    """Refuse to begin a second log beside one whose key was lost: what it says would look unsigned."""
    try:
        await api.get(paths.core(namespace, "configmaps", VERIFIER_CONFIG_MAP))
    except NotFound:
        return
    raise LostKeyError(
        f"ConfigMap {VERIFIER_CONFIG_MAP} tells of an audit log, but Secret {LOG_KEY_SECRET} with its key is "
        "gone: restore it from a backup"
    )


async def _publish_verifier(api: Api, namespace: str, vkey: str) -> None:
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": VERIFIER_CONFIG_MAP,
            "namespace": namespace,
            "labels": {f"{GROUP}/audit": "verifier"},
        },
        "immutable": True,
        "data": {"vkey": f"{vkey}\n"},
    }
    try:
        await api.get(paths.core(namespace, "configmaps", VERIFIER_CONFIG_MAP))
    except NotFound:
        try:
            await api.create(paths.core(namespace, "configmaps"), body)
        except Conflict:
            return
