from __future__ import annotations

from pathlib import Path

import pytest

from e2e.controlplane import flags
from e2e.controlplane.flags import AUDIT_POLICY, Files, Ports, api_features
from e2e.controlplane.ports import free_ports

FILES = Files(Path("/cluster"))
PORTS = Ports(1, 2, 3, 4)
BUNDLES = "ClusterTrustBundle=true,ClusterTrustBundleProjection=true"


@pytest.mark.parametrize(
    "version, expected",
    [
        ((1, 30), []),
        (
            (1, 34),
            [
                f"--feature-gates={BUNDLES},MutatingAdmissionPolicy=true",
                "--runtime-config=certificates.k8s.io/v1beta1=true,admissionregistration.k8s.io/v1beta1=true",
            ],
        ),
        (
            (1, 36),
            [
                f"--feature-gates={BUNDLES},PodCertificateRequest=true",
                "--runtime-config=certificates.k8s.io/v1beta1=true",
            ],
        ),
    ],
)
def test_features_go_by_version(version: tuple[int, int], expected: list[str]) -> None:
    """No server is given a gate or a group that it does not know, nor one that it has by default."""
    assert api_features(version) == expected


def test_only_rbac_authorizes() -> None:
    """A rule that is missing from the chart must show."""
    assert "--authorization-mode=RBAC" in flags.apiserver(FILES, PORTS, (1, 36))


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(flags.etcd(FILES, PORTS), id="etcd"),
        pytest.param(flags.apiserver(FILES, PORTS, (1, 36)), id="kube-apiserver"),
        pytest.param(flags.controller_manager(FILES, PORTS), id="kube-controller-manager"),
    ],
)
def test_everything_is_on_loopback_with_tls(arguments: list[str]) -> None:
    """No listener is reachable from elsewhere, and none speaks in the clear."""
    listeners = [each for each in arguments if each.startswith(("--listen", "--bind-address", "--advertise"))]
    assert listeners
    assert all("127.0.0.1" in each for each in listeners)
    assert "http://" not in " ".join(arguments)


def test_the_audit_log_is_about_service_accounts() -> None:
    """The controllers' own accounts come before, and are left out; people are left out after."""
    groups = [rule.get("userGroups") for rule in AUDIT_POLICY["rules"]]
    assert groups == [["system:serviceaccounts:kube-system"], ["system:serviceaccounts"], None]
    assert [rule["level"] for rule in AUDIT_POLICY["rules"]] == ["None", "Metadata", "None"]


def test_free_ports_are_different() -> None:
    """No two listeners get the same."""
    assert len(set(free_ports(50))) == 50


def test_an_audit_webhook_is_an_option() -> None:
    """By default the API server posts nothing."""
    config = Path("/cluster/webhook.kubeconfig")
    assert f"--audit-webhook-config-file={config}" in flags.audit_webhook(config)
    assert not [flag for flag in flags.apiserver(FILES, PORTS, (1, 36)) if "webhook" in flag]
