"""The command lines of the three components, and what the API server audits: pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

SERVICE_ACCOUNT_ISSUER = "https://kubernetes.default.svc"
SERVER_NAMES = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
SERVICE_NETWORK = "10.96.0.0/16"
SERVICE_ADDRESS = IPv4Address("10.96.0.1")  # the first of the network: the API server's own Service

# There are no nodes here. Each of these would only wake up to find none.
CONTROLLERS_OF_NODES = (
    "node-ipam-controller",
    "node-lifecycle-controller",
    "persistentvolume-attach-detach-controller",
    "taint-eviction-controller",
    "ttl-controller",
)

# Every request by a service account, for the test that compares RBAC rules with what was used; not those
# of the controller manager's accounts, which would be most of the file.
AUDIT_POLICY: dict[str, Any] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},
        {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
        {"level": "None"},
    ],
}


@dataclass(frozen=True)
class Ports:
    """One free port of loopback for each listener."""

    etcd: int
    etcd_peer: int
    apiserver: int
    controller_manager: int


@dataclass(frozen=True)
class Files:
    """Where everything of one cluster lies; all below one directory."""

    directory: Path

    @property
    def data(self) -> Path:
        """The data of etcd."""
        return self.directory / "etcd"

    @property
    def pki(self) -> Path:
        """Certificates and keys."""
        return self.directory / "pki"

    @property
    def logs(self) -> Path:
        """A log for each component."""
        return self.directory / "logs"

    @property
    def users(self) -> Path:
        """A kubeconfig for each user that was asked for."""
        return self.directory / "users"

    @property
    def programs(self) -> Path:
        """kubectl, helm and the components, for a PATH."""
        return self.directory / "bin"

    @property
    def kubeconfig(self) -> Path:
        """The admin's kubeconfig."""
        return self.directory / "admin.kubeconfig"

    @property
    def controller_manager_kubeconfig(self) -> Path:
        """The controller manager's own."""
        return self.directory / "controller-manager.kubeconfig"

    @property
    def audit_policy(self) -> Path:
        """What the API server audits."""
        return self.directory / "audit-policy.yaml"

    @property
    def audit_log(self) -> Path:
        """What it has audited, an event a line."""
        return self.directory / "audit.log"


def etcd(files: Files, ports: Ports) -> list[str]:
    """One member, and mutual TLS on both ports: loopback is shared with every user of the machine."""
    client, peer = f"https://127.0.0.1:{ports.etcd}", f"https://127.0.0.1:{ports.etcd_peer}"
    authority, certificate, key = _pair(files, "etcd-ca", "etcd")
    return [
        f"--data-dir={files.data}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--client-cert-auth=true",
        f"--trusted-ca-file={authority}",
        f"--cert-file={certificate}",
        f"--key-file={key}",
        "--peer-client-cert-auth=true",
        f"--peer-trusted-ca-file={authority}",
        f"--peer-cert-file={certificate}",
        f"--peer-key-file={key}",
        "--log-level=warn",
    ]


def apiserver(files: Files, ports: Ports, version: tuple[int, int]) -> list[str]:
    """RBAC alone authorizes; otherwise as a production server, but for what needs a node or a network."""
    etcd_authority, etcd_certificate, etcd_key = _pair(files, "etcd-ca", "etcd")
    authority, certificate, key = _pair(files, "ca", "apiserver")
    signing_key = files.pki / "service-accounts.key"
    return [
        f"--etcd-servers=https://127.0.0.1:{ports.etcd}",
        f"--etcd-cafile={etcd_authority}",
        f"--etcd-certfile={etcd_certificate}",
        f"--etcd-keyfile={etcd_key}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={ports.apiserver}",
        "--endpoint-reconciler-type=none",  # it refuses to publish an address of loopback
        f"--tls-cert-file={certificate}",
        f"--tls-private-key-file={key}",
        f"--client-ca-file={authority}",
        # No aggregated API server is here, but the controller manager looks for this CA and complains.
        f"--requestheader-client-ca-file={files.pki / 'front-proxy-ca.crt'}",
        "--requestheader-allowed-names=front-proxy",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--service-account-issuer={SERVICE_ACCOUNT_ISSUER}",
        f"--service-account-key-file={signing_key}",
        f"--service-account-signing-key-file={signing_key}",
        f"--service-cluster-ip-range={SERVICE_NETWORK}",
        "--authorization-mode=RBAC",
        f"--audit-policy-file={files.audit_policy}",
        f"--audit-log-path={files.audit_log}",
        "--audit-log-mode=batch",  # a request does not wait for the log; readers wait a second
        "--audit-log-batch-max-wait=1s",
        "--audit-log-maxsize=4096",  # megabytes; the default, 100, would rotate away a benchmark's beginning
        "--shutdown-watch-termination-grace-period=2s",  # else a stop waits a minute for its watchers
        "--profiling=false",
        *api_features(version),
    ]


def controller_manager(files: Files, ports: Ports) -> list[str]:
    """Every controller but those of nodes, each under its own service account as RBAC has it."""
    authority, certificate, key = _pair(files, "ca", "controller-manager")
    kubeconfig = files.controller_manager_kubeconfig
    return [
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--bind-address=127.0.0.1",
        f"--secure-port={ports.controller_manager}",
        f"--tls-cert-file={certificate}",
        f"--tls-private-key-file={key}",
        f"--service-account-private-key-file={files.pki / 'service-accounts.key'}",
        f"--root-ca-file={authority}",
        f"--cluster-signing-cert-file={authority}",
        f"--cluster-signing-key-file={files.pki / 'ca.key'}",
        "--use-service-account-credentials=true",
        "--controllers=" + ",".join(["*", *(f"-{name}" for name in CONTROLLERS_OF_NODES)]),
        # Each controller first asks for its account and token: at the default, 20/s, a start takes 4 s more.
        "--kube-api-qps=100",
        "--kube-api-burst=150",
        "--leader-elect=false",
        "--profiling=false",
    ]


def audit_webhook(config: Path) -> list[str]:
    """More flags for the API server: it posts what it audits, too, a second late; `config` is a kubeconfig.

    A batch that is not taken is sent again for about 13 s, then dropped, as by default for two minutes.
    """
    return [
        f"--audit-webhook-config-file={config}",
        "--audit-webhook-batch-max-wait=1s",
        "--audit-webhook-initial-backoff=1s",
    ]


def api_features(version: tuple[int, int]) -> list[str]:
    """What this version has but does not serve by default, and the project wants.

    MutatingAdmissionPolicy is served and on by default from 1.36 (GA); 1.34 and 1.35 have it as a beta.
    ClusterTrustBundle is a beta from 1.33, PodCertificateRequest from 1.35; both still are in 1.36.
    """
    gates: list[str] = []
    groups: list[str] = []
    if version >= (1, 33):
        gates += ["ClusterTrustBundle=true", "ClusterTrustBundleProjection=true"]
        groups.append("certificates.k8s.io/v1beta1=true")
    if version >= (1, 35):
        gates.append("PodCertificateRequest=true")
    if (1, 34) <= version < (1, 36):
        gates.append("MutatingAdmissionPolicy=true")
        groups.append("admissionregistration.k8s.io/v1beta1=true")
    return [*_joined("--feature-gates", gates), *_joined("--runtime-config", groups)]


def _joined(flag: str, values: Sequence[str]) -> list[str]:
    return [f"{flag}={','.join(values)}"] if values else []


def _pair(files: Files, authority: str, name: str) -> tuple[Path, Path, Path]:
    return files.pki / f"{authority}.crt", files.pki / f"{name}.crt", files.pki / f"{name}.key"
