"""An agent: what it may reach, and what it does with a grant's Secret."""

from __future__ import annotations

from pathlib import Path
from subprocess import CompletedProcess

from e2e import places, roles
from e2e.admin import Document
from e2e.controlplane.cluster import Cluster
from e2e.patience import until
from e2e.stories.play import Play

PODS = {
    "name": "pods",
    "kubernetes": {"roleRef": {"kind": "ClusterRole", "name": roles.CLUSTER_ROLE}},
    "dataClass": "synthetic",
}
"""An access entry: what the ClusterRole `view` reads, Pods among it."""

DIGEST = "sha256:" + "ab" * 32


def call(number: int) -> Document:
    """A tool call."""
    return {
        "kind": "tool_call",
        "attributes": {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": "tickets.search",
            "gen_ai.tool.call.id": f"call_{number}",
        },
        "digests": {"gen_ai.tool.call.arguments": DIGEST},
    }


class Agent:
    """Who holds a grant's Secret."""

    def __init__(self, play: Play, cluster: Cluster, grant: str, directory: Path) -> None:
        files = play.credential(grant).files
        self._cluster = cluster
        self._kubeconfig = directory / f"{grant}.kubeconfig"
        self._kubeconfig.write_bytes(files.get("kubeconfig", b""))
        self.token = files["token.jwt"].decode()
        self.pair = directory / f"{grant}.crt", directory / f"{grant}.key"
        self.pair[0].write_bytes(files["tls.crt"])
        self.pair[1].write_bytes(files["tls.key"])

    def kubectl(self, *arguments: str) -> CompletedProcess[str]:
        """Run kubectl with nothing but the kubeconfig."""
        return self._cluster.run("kubectl", *arguments, kubeconfig=self._kubeconfig, check=False)


def make_pods(play: Play, *names: str) -> None:
    """Pods that nothing runs: there are no nodes."""
    account = places.core("serviceaccounts", play.namespace, "default")
    until(lambda: play.admin.find(account), "the namespace has its account")
    for name in names:
        containers = [{"name": "main", "image": "registry.example.org/none"}]
        body = {"metadata": {"name": name}, "spec": {"containers": containers}}
        play.admin.create(places.core("pods", play.namespace), body)
