"""The HTTPS endpoints in the chart: absent unless they are asked for."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pilot_identity.__main__ import _inbound, _parser

CHART = Path(__file__).parents[2] / "charts" / "pilot-identity"
BOTH = (
    "--set=endpoints.tlsSecret=certificate",
    "--set=endpoints.webhook.enabled=true",
    "--set=endpoints.webhook.clientCASecret=signer",
    "--set=endpoints.webhook.clientName=kube-apiserver",
    "--set=endpoints.webhook.tokenSecret=token",
    "--set=endpoints.activity.enabled=true",
)

Document = dict[str, Any]
Render = Callable[..., list[Document]]
Helm = Callable[..., subprocess.CompletedProcess[str]]


def pod(documents: list[Document]) -> Document:
    """The operator's pod."""
    (deployment,) = (document for document in documents if document["kind"] == "Deployment")
    spec: Document = deployment["spec"]["template"]["spec"]
    return spec


def services(documents: list[Document]) -> dict[str, list[str]]:
    """Each Service with its ports' names."""
    found = (document for document in documents if document["kind"] == "Service")
    return {item["metadata"]["name"]: [port["name"] for port in item["spec"]["ports"]] for item in found}


def test_nothing_listens_by_default(render: Render) -> None:
    """No port but that of probes, no volume, no Service."""
    documents = render()
    (container,) = pod(documents)["containers"]
    assert [port["name"] for port in container["ports"]] == ["http"]
    assert "volumes" not in pod(documents)
    assert "volumeMounts" not in container
    assert services(documents) == {}


def test_both_endpoints_get_ports_files_and_a_service(render: Render) -> None:
    """Every file that an argument names is mounted, and the program takes the arguments."""
    documents = render(*BOTH)
    (container,) = pod(documents)["containers"]
    chosen = _parser().parse_args([*container["args"], "--operator-namespace=x"])
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume["secret"]["secretName"] for volume in pod(documents)["volumes"]}
    files = (chosen.tls_certificate, chosen.tls_key, chosen.webhook_client_ca, chosen.webhook_token_file)
    secrets = [volumes[mounts[str(file.parent)]] for file in files]
    assert secrets == ["certificate", "certificate", "signer", "token"]
    assert chosen.webhook_client_name == "kube-apiserver"
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert (ports["webhook"], ports["activity"]) == (chosen.webhook_port, chosen.activity_port)
    assert services(documents) == {"pilot-identity-endpoints": ["webhook", "activity"]}


def test_one_endpoint_comes_without_the_other(render: Render) -> None:
    """The activity endpoint alone needs nothing of the webhook's."""
    documents = render("--set=endpoints.tlsSecret=certificate", "--set=endpoints.activity.enabled=true")
    (container,) = pod(documents)["containers"]
    assert _parser().parse_args([*container["args"], "--operator-namespace=x"]).webhook_port is None
    assert services(documents) == {"pilot-identity-endpoints": ["activity"]}


@pytest.mark.parametrize(
    "values, message",
    [
        (("endpoints.activity.enabled=true",), "set endpoints.tlsSecret"),
        (("endpoints.tlsSecret=x", "endpoints.webhook.enabled=true"), "by what is the API server known"),
    ],
)
def test_half_an_endpoint_is_refused(helm: Helm, values: tuple[str, ...], message: str) -> None:
    """With the value to set."""
    answer = helm("template", "x", str(CHART), *(f"--set={value}" for value in values))
    assert answer.returncode != 0
    assert message in answer.stderr


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--activity-port=1"], "need --tls-certificate"),
        (["--webhook-port=1", "--tls-certificate=x", "--tls-key=y"], "a client CA, a token file, or both"),
    ],
)
def test_the_program_refuses_half_an_endpoint_too(arguments: list[str], message: str) -> None:
    """Before it does anything."""
    chosen = _parser().parse_args(["run", "--cluster-wide", *arguments])
    with pytest.raises(ValueError, match=message):
        _inbound(chosen)
