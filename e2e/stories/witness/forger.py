"""The forger: holds the operator's key and can write past every policy, as whoever holds etcd can."""

from __future__ import annotations

import base64

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from e2e import places
from e2e.admin import Admin
from e2e.controlplane.cluster import Cluster
from e2e.installation import NAMESPACE
from e2e.patience import until
from pilot_identity.core.audit.checkpoint import LogSigner
from pilot_identity.core.audit.groups import NAME_PREFIX, Group, extend
from pilot_identity.core.audit.merkle import Frontier

WALLS = ("pilot-identity-audit-log", "pilot-identity-operator-configmaps")


class Forger:
    """Somebody with cluster-admin, the operator's key, and a reason."""

    def __init__(self, cluster: Cluster, admin: Admin) -> None:
        self._cluster = cluster
        self._admin = admin

    def rewrite(self) -> None:
        """Leave out the newest entries, sign the rest anew, and take away what was published of witnesses."""
        self._tear_down()
        signer = self._steal_key()
        path = places.core("configmaps")
        stored = sorted(
            (
                Group.from_data(item["metadata"]["name"], item["data"])
                for item in self._admin.get(path)["items"]
                if item["metadata"]["name"].startswith(NAME_PREFIX)
            ),
            key=lambda group: group.extends,
        )
        entries = [entry for group in stored for entry in group.entries]
        assert stored[0].extends == 0, "the log is too short to be compacted"
        for group in stored:
            self._admin.delete(f"{path}/{group.name}")
        self._admin.delete(f"{path}/audit-cosigned")
        forged, _ = extend(Frontier(), entries[: len(entries) // 2], signer)
        self._admin.create(
            path,
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": forged.name, "labels": {"pilotidentity.dev/audit": "group"}},
                "immutable": True,
                "data": dict(forged.data()),
            },
        )

    def _tear_down(self) -> None:
        """Take the policies away, which whoever writes into etcd need not ask."""
        for wall in WALLS:
            self._cluster.kubectl("delete", "validatingadmissionpolicybinding", wall)
        create = ("create", "configmap", "audit-group-probe", "--dry-run=server")

        def is_open() -> bool:
            return self._cluster.run("kubectl", "-n", NAMESPACE, *create, check=False).returncode == 0

        until(is_open, "the walls are down", seconds=30)

    def _steal_key(self) -> LogSigner:
        data = self._admin.get(places.core("secrets", name="audit-log-key"))["data"]
        key = Ed25519PrivateKey.from_private_bytes(base64.b64decode(data["ed25519.key"]))
        return LogSigner(base64.b64decode(data["origin"]).decode(), key)
