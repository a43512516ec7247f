"""A bad manifest: what leads up to it, the defect, and what the person who applied it must be told.

One YAML file each, named for its defect. Comments at its top say what is expected:

    # expect-admission: <part of the API server's answer>
    # expect-condition: <Kind>/<name> <Type>=<Status> <Reason> "<part of the message>"

Documents that begin with the comment `# given` are applied first and are good; the last one is bad.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from e2e import places

FOLDER = Path(__file__).parent / "manifests"
_ADMISSION = re.compile(r"^# expect-admission: (?P<part>.+)$", re.MULTILINE)
_CONDITION = re.compile(
    r"^# expect-condition: (?P<kind>\w+)/(?P<name>\S+) (?P<type>\w+)=(?P<status>\w+) (?P<reason>\w+) "
    r"\"(?P<part>.+)\"$",
    re.MULTILINE,
)
_CLUSTER_SCOPED = {"StagePolicy"}
_COLLECTIONS: dict[str, Callable[[str], str]] = {
    "Approval": places.approvals,
    "PilotIdentity": places.pilots,
    "Secret": places.secrets,
    "ServiceAccount": partial(places.core, "serviceaccounts"),
    "TaskGrant": places.grants,
}
"""The path of each kind that has a namespace, in one."""

Document = dict[str, Any]


@dataclass(frozen=True)
class ExpectedCondition:
    """The condition in which the operator says what to change."""

    kind: str
    name: str
    type: str
    status: str
    reason: str
    part: str


@dataclass(frozen=True)
class BadManifest:
    """One file.

    Attributes:
        name: the defect.
        given: documents that are applied first.
        bad: the document with the defect.
        refusal: part of the API server's answer, where admission tells; else empty.
        condition: where only the operator can tell; else `None`.
    """

    name: str
    given: tuple[Document, ...]
    bad: Document
    refusal: str
    condition: ExpectedCondition | None


def read(path: Path) -> BadManifest:
    """Read one file.

    Raises:
        ValueError: the file does not say exactly one thing that is expected.
    """
    text = path.read_text()
    refusal, condition = _ADMISSION.search(text), _CONDITION.search(text)
    if (refusal is None) == (condition is None):
        raise ValueError(f"{path.name} must have one line '# expect-admission: …' or '# expect-condition: …'")
    *given, bad = re.split(r"^---$", text, flags=re.MULTILINE)
    if not all("# given\n" in document for document in given) or "# given\n" in bad:
        raise ValueError(f"{path.name}: every document but the last begins with the comment '# given'")
    return BadManifest(
        name=path.stem,
        given=tuple(yaml.safe_load(document) for document in given),
        bad=yaml.safe_load(bad),
        refusal=refusal["part"] if refusal else "",
        condition=ExpectedCondition(**condition.groupdict()) if condition else None,
    )


def read_all() -> list[BadManifest]:
    """Read every file, in the order of their names."""
    return [read(path) for path in sorted(FOLDER.glob("*.yaml"))]


def is_cluster_scoped(document: Document) -> bool:
    """Whether the document's kind has no namespace."""
    return document["kind"] in _CLUSTER_SCOPED


def placed(document: Document, namespace: str) -> Document:
    """Put the document into `namespace`, unless it names one or its kind has none."""
    if is_cluster_scoped(document) or "namespace" in document["metadata"]:
        return document
    return {**document, "metadata": {**document["metadata"], "namespace": namespace}}


def collection(document: Document, namespace: str) -> str:
    """The path of the collection that the document, once `placed`, belongs to."""
    if is_cluster_scoped(document):
        return places.stages()
    return _COLLECTIONS[document["kind"]](placed(document, namespace)["metadata"]["namespace"])
