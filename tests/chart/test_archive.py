"""The archive in the chart: absent unless it is asked for."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pilot_identity.__main__ import _archiving, _parser
from pilot_identity.core.resources.durations import Duration

CHART = Path(__file__).parents[2] / "charts" / "pilot-identity"
CLAIM = {"persistentVolumeClaim": {"claimName": "kept"}}
ON = (
    "--set=audit.archive.enabled=true",
    "--set=audit.archive.olderThan=720h",
    "--set=audit.archive.volume.persistentVolumeClaim.claimName=kept",
)
ENDPOINTS = (
    "--set=endpoints.tlsSecret=certificate",
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


def deletable(documents: list[Document]) -> str:
    """The policy that says which ConfigMaps the operator may delete at home."""
    (policy,) = (
        document
        for document in documents
        if document["kind"] == "ValidatingAdmissionPolicy"
        and document["metadata"]["name"] == "pilot-identity-operator-configmaps"
    )
    return str(policy["spec"]["validations"][0])


def test_by_default_nothing_leaves(render: Render) -> None:
    """No volume, no argument, and no right to delete a bundle."""
    documents = render()
    assert not {"volumes", "volumeMounts"} & pod(documents).keys()
    assert "archive" not in yaml.safe_dump(pod(documents))
    assert "fsGroup" not in pod(documents)["securityContext"]
    assert "audit-group-" in deletable(documents)
    assert "audit-tile-" not in deletable(documents)
    assert "audit-archived-" not in deletable(documents)


@pytest.mark.parametrize("others", [(), ENDPOINTS], ids=["alone", "with endpoints"])
def test_the_volume_is_mounted_where_the_operator_writes(render: Render, others: tuple[str, ...]) -> None:
    """The operator reads its own arguments; the account may delete what it archived."""
    documents = render(*ON, *others)
    spec = pod(documents)
    (container,) = spec["containers"]
    archiving = _archiving(_parser().parse_args(container["args"]))
    assert archiving is not None
    assert archiving.older_than == Duration.parse("720h")
    (mount,) = (one for one in container["volumeMounts"] if one["name"] == "archive")
    assert f"--archive-directory={mount['mountPath']}" in container["args"]
    assert not mount.get("readOnly")
    assert {"name": "archive", **CLAIM} in spec["volumes"]
    assert len(spec["volumes"]) == len(container["volumeMounts"]) == 1 + bool(others)
    assert spec["securityContext"]["fsGroup"] == 65532
    assert "audit-tile-" in deletable(documents)
    assert "audit-archived-" in deletable(documents)


@pytest.mark.parametrize(
    "values",
    [
        ("--set=audit.archive.enabled=true",),
        (*ON, "--set=audit.archive.olderThan=soon"),
        (*ON, "--set=audit.archive.olderThan="),
        (*ON, "--set=audit.archive.forever=true"),
    ],
    ids=["no volume", "no duration", "an empty duration", "no such value"],
)
def test_what_could_not_work_is_refused(helm: Helm, values: tuple[str, ...]) -> None:
    """Before anything is installed."""
    assert helm("template", "x", str(CHART), *values).returncode != 0
