"""The roles that the tests' installation may bind: what an admin would put into `kubernetesAccess.roles`."""

from __future__ import annotations

import json

from e2e.controlplane.cluster import Cluster
from e2e.controlplane.flags import SERVICE_ACCOUNT_ISSUER

NAMESPACE = "bindable"
"""Where the Role is, and where no pilot is."""
CLUSTER_ROLE = "view"
ROLE = "settings-reader"

VALUES = (
    "--set-json",
    "kubernetesAccess.roles="
    + json.dumps(
        [
            {"kind": "ClusterRole", "name": CLUSTER_ROLE},
            {"kind": "Role", "name": ROLE, "namespace": NAMESPACE},
        ]
    ),
    "--set",
    f"kubernetesAccess.audiences={{{SERVICE_ACCOUNT_ISSUER}}}",
)
"""For helm."""


def make(cluster: Cluster) -> None:
    """Make the Role and its namespace."""
    cluster.apply(
        [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "Role",
                "metadata": {"name": ROLE, "namespace": NAMESPACE},
                "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}],
            },
        ]
    )
