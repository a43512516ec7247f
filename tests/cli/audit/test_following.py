"""A log in a cluster, looked at more than once: what was there must still be there."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from pilot_identity.cli.audit import following, reconciling
from pilot_identity.core.audit.compacted import compact
from pilot_identity.core.audit.groups import Group, extend
from pilot_identity.core.audit.recollection import ANNOTATION, annotated
from pilot_identity.core.audit.tiles import WIDTH
from tests.cli.api import FakeApi, Object, serving
from tests.cli.audit.conftest import Run
from tests.cli.audit.logs import SIGNER
from tests.cli.audit.test_commands import entry
from tests.cli.audit.test_reconciling import HELPER

NAMESPACE = "pilot-identity-system"
BUNDLE = "audit-tile-0000000000000000"
LABEL = "pilotidentity.dev/audit"
Ask = Callable[..., Result]


class Cluster(FakeApi):
    """Lists by the log's label, and changes before it lists again.

    Attributes:
        changes: made one by one, each before a list of the log after the first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.changes: list[Callable[[], object]] = []
        self._lists = 0
        self.put("configmaps", made("audit-verifier", "", {"vkey": str(SIGNER.verifier())}))
        bundle = compact(0, (), [entry(number) for number in range(WIDTH)], SIGNER)
        ((name, data, binary),) = bundle.config_maps()
        stored = made(str(name), "tile", data, binary)
        stored["metadata"]["annotations"] = annotated(0, bundle.entries, SIGNER)
        self.put("configmaps", stored)
        self.groups: list[Group] = []
        frontier = bundle.frontier()
        for first in (WIDTH, WIDTH + 3, WIDTH + 6):
            group, frontier = extend(frontier, [entry(first + at) for at in range(3)], SIGNER)
            self.groups.append(group)
            self.put("configmaps", made(group.name, "group", group.data()))

    def stored(self, name: str) -> Object:
        """One of the log's ConfigMaps."""
        return self.objects["configmaps", NAMESPACE, name]

    def lose(self, name: str) -> Callable[[], object]:
        """Take one away, when it is called."""
        return lambda: self.objects.pop(("configmaps", NAMESPACE, name))

    def _list(self, plural: str, namespace: str, query: dict[str, str]) -> tuple[int, Any]:
        if " in (" not in query.get("labelSelector", ""):
            return super()._list(plural, namespace, query)
        self._lists += 1
        if self._lists > 1 and self.changes:
            self.changes.pop(0)()
        code, page = super()._list(plural, namespace, query)
        page["items"] = [each for each in page["items"] if LABEL in each["metadata"]["labels"]]
        return code, page


def made(name: str, kind: str, data: Any, binary: Any = None) -> Object:
    """A ConfigMap."""
    labels = {LABEL: kind} if kind else {}
    metadata = {"name": name, "namespace": NAMESPACE, "labels": labels, "resourceVersion": "8"}
    return {"metadata": metadata, "data": dict(data), "binaryData": dict(binary or {})}


@pytest.fixture
def cluster() -> Cluster:
    """A cluster with a log of one bundle and three groups."""
    return Cluster()


@pytest.fixture
def ask(cluster: Cluster, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ask]:
    """A verb on the log in the cluster; nobody waits between two looks."""
    monkeypatch.setattr(following, "AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(reconciling, "BETWEEN_SECONDS", 0.0)
    with serving(cluster) as url:
        config = {
            "current-context": "it",
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it", "namespace": "team-a"}}],
            "clusters": [{"name": "it", "cluster": {"server": url}}],
            "users": [{"name": "it", "user": {"token": "t"}}],
        }
        path = tmp_path / "kubeconfig"
        path.write_text(json.dumps(config))
        monkeypatch.setenv("KUBECONFIG", str(path))
        yield run


FORGOTTEN = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}


@pytest.mark.parametrize(
    "name, flaw",
    [("audit-group-0000000000000262", "tail-truncated"), (BUNDLE, "gap")],
    ids=["newest", "bundle"],
)
def test_what_was_deleted_while_nobody_watched_is_missed(
    ask: Ask, cluster: Cluster, name: str, flaw: str
) -> None:
    """The server forgot where the watch was: all is listed again, and held to the head so far."""
    cluster.scripts.put(FORGOTTEN)
    cluster.changes.append(cluster.lose(name))
    done = ask("tail", "-f", "--lines", "2", "-o", "json")
    assert [json.loads(line)["index"] for line in done.stdout.splitlines()] == [263, 264]
    assert (done.exit_code, "the log does not verify any more" in done.stderr) == (1, True)
    assert flaw in done.stderr


def test_what_came_while_nobody_watched_is_shown_once(ask: Ask, cluster: Cluster) -> None:
    """And nothing of what was shown before."""
    newest = cluster.groups.pop()
    taken = cluster.objects.pop(("configmaps", NAMESPACE, newest.name))
    cluster.scripts.put(FORGOTTEN)
    cluster.scripts.put({"type": "DELETED", "object": cluster.stored(cluster.groups[0].name)})
    cluster.changes.append(lambda: cluster.put("configmaps", taken))
    done = ask("tail", "-f", "--lines", "1", "-o", "json")
    assert [json.loads(line)["index"] for line in done.stdout.splitlines()] == [261, 262, 263, 264]
    assert f"{cluster.groups[0].name} was deleted" in done.stderr


def test_a_group_that_is_cut_is_noticed_though_all_of_it_is_known(ask: Ask, cluster: Cluster) -> None:
    """Its head says how many entries it had."""
    group = copy.deepcopy(cluster.stored(cluster.groups[1].name))
    group["data"]["entries"] = group["data"]["entries"].split("\n")[0]
    cluster.scripts.put({"type": "MODIFIED", "object": group})
    done = ask("tail", "-f")
    assert (done.exit_code, f"entry-dropped: {cluster.groups[1].name}" in done.stderr) == (1, True)


def test_a_bundle_that_goes_without_a_record_is_noticed(ask: Ask, cluster: Cluster) -> None:
    """It leaves only after the cluster says that it is archived."""
    cluster.scripts.put({"type": "DELETED", "object": cluster.stored(BUNDLE)})
    done = ask("tail", "-f")
    assert (done.exit_code, f"{BUNDLE} was deleted, and is not archived" in done.stderr) == (1, True)


def test_a_bundle_that_changes_is_read_again(ask: Ask, cluster: Cluster) -> None:
    """Its metadata can be changed; the operator would forget what it revoked."""
    tile = cluster.stored(BUNDLE)
    cluster.scripts.put({"type": "MODIFIED", "object": tile})
    cluster.changes.append(lambda: tile["metadata"]["annotations"].update({ANNOTATION: "forged"}))
    done = ask("tail", "-f")
    assert (done.exit_code, f"recollection-replaced: {BUNDLE}" in done.stderr) == (1, True)


def test_reconcile_misses_what_was_deleted_between_its_looks(ask: Ask, cluster: Cluster) -> None:
    """Nothing that it says is held against a log that shrank."""
    cluster.put("serviceaccounts", copy.deepcopy(HELPER))
    cluster.changes.append(cluster.lose(cluster.groups[-1].name))
    done = ask("reconcile")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "tail-truncated" in done.stderr


def test_a_group_that_is_hidden_is_found_by_its_name(ask: Ask, cluster: Cluster) -> None:
    """Taking the label off the newest shows a shorter log to whoever saw none before."""
    hidden = cluster.groups[-1].name
    cluster.stored(hidden)["metadata"]["labels"].clear()
    told = json.loads(ask("verify", "-o", "json").stdout)
    assert [(each["flaw"], each["where"]) for each in told["findings"]] == [("unlisted", hidden)]
    cluster.stored(hidden)["metadata"]["labels"][LABEL] = "group"
    assert ask("verify").exit_code == 0
