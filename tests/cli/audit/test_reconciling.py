"""`reconcile` on a small API server and a log in a directory; e2e has the real ones."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from pilot_identity.cli.audit import reconciling
from pilot_identity.cli.session import Session
from pilot_identity.core.audit.entries import Entry, EntryType, encode_entry
from tests.cli.api import FakeApi, serving
from tests.cli.audit.conftest import Run
from tests.cli.audit.logs import NAME, write
from tests.core import builders
from tests.core.audit.worlds import plain

HELPER = {
    "metadata": {
        "name": "pilot-grant-helper",
        "namespace": "team-a",
        "uid": "helper-uid",
        "labels": {"app.kubernetes.io/managed-by": "pilot-identity"},
    }
}


def entry(number: int) -> bytes:
    """An entry that says nothing of what is out."""
    text = (
        f'{{"data":{{}},"datacontenttype":"application/json","id":"{number}","source":"{NAME}",'
        '"specversion":"1.0","subject":"TaskGrant team-a/t","subjectuid":"uid",'
        '"time":"2026-06-01T12:00:00Z","type":"dev.pilotidentity.grant.emergency.v1"}'
    )
    return text.encode()


@pytest.fixture
def api() -> FakeApi:
    """The API server."""
    return FakeApi()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of ten entries that announce nothing."""
    return write(tmp_path / "log", [entry(number) for number in range(10)])


def swap(log: Path, *entries: bytes) -> None:
    """Put another log in its place, before anybody saw it."""
    shutil.rmtree(log)
    write(log, list(entries))


@pytest.fixture
def reconcile(
    api: FakeApi, run: Run, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """Run the verb over the log; nobody waits between looks."""
    monkeypatch.setattr(reconciling, "BETWEEN_SECONDS", 0.0)
    with serving(api) as url:
        config = {
            "kind": "Config",
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "team-a"}}],
            "clusters": [{"name": "c", "cluster": {"server": url}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
        }
        path = tmp_path / "kubeconfig"
        path.write_text(json.dumps(config))
        monkeypatch.setenv("KUBECONFIG", str(path))

        def run_it(*arguments: str) -> Result:
            return run("reconcile", "--from", str(log), *arguments)

        yield run_it


def test_nothing_to_find_is_complete(reconcile: Any) -> None:
    """And says what was looked at, and what was not."""
    done = reconcile()
    assert done.exit_code == 0
    assert "10 entries, sound" in done.stdout
    assert "verdict  complete" in done.stdout
    assert "  - other namespaces than team-a: -A looks into all" in done.stdout
    assert "other namespaces" not in reconcile("-A").stdout


def test_a_finding_is_a_row_and_an_exit_code(reconcile: Any, api: FakeApi) -> None:
    """For people and for programs."""
    api.put("serviceaccounts", HELPER)
    done = reconcile()
    assert done.exit_code == 1
    assert "verdict  NOT COMPLETE: 1 found" in done.stdout
    assert "stranger   ServiceAccount team-a/pilot-grant-helper   -" in done.stdout
    told = json.loads(reconcile("-A", "-o", "json").stdout)
    assert told["complete"] is False
    assert told["findings"] == [
        {
            "finding": "stranger",
            "kind": "ServiceAccount",
            "namespace": "team-a",
            "name": "pilot-grant-helper",
            "entry": None,
            "owner": None,
            "message": "is no account that an entry announces (UID helper-uid)",
        }
    ]


def test_what_is_over_at_the_next_look_is_not_told(
    reconcile: Any, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was being made or ended while it was looked at."""
    api.put("serviceaccounts", HELPER)
    monkeypatch.setattr(time, "sleep", lambda _: api.objects.clear())
    assert reconcile().exit_code == 0


def test_what_may_not_be_listed_is_told(reconcile: Any, api: FakeApi) -> None:
    """It is neither complete nor a finding."""
    api.forbidden = "secrets|clusterrolebindings"
    done = reconcile()
    assert done.exit_code == 4
    assert "verdict  nothing found in what could be listed; not everything could" in done.stdout
    assert "  - Secrets: you may not list them: /api/v1/namespaces/team-a/secrets is forbidden" in done.stdout
    assert json.loads(reconcile("-o", "json").stdout)["complete"] is None


def bound(kind: str, name: str, *subjects: dict[str, str]) -> dict[str, Any]:
    """A binding of ClusterRole edit."""
    metadata = {"name": name, "uid": name} | ({"namespace": "team-a"} if kind == "rolebindings" else {})
    return {"metadata": metadata, "roleRef": {"kind": "ClusterRole", "name": "edit"}, "subjects": [*subjects]}


def test_what_gives_access_beside_the_record_is_named(reconcile: Any, api: FakeApi) -> None:
    """Groups that a grant's account may come into, and what a pilot's own account has; neither is counted."""
    group = {"kind": "Group", "name": "system:serviceaccounts:team-a"}
    everybody = {"kind": "Group", "name": "system:authenticated"}
    own = {"kind": "ServiceAccount", "namespace": "team-a", "name": "pilot-workload-triage"}
    api.put("rolebindings", bound("rolebindings", "crowd", group))
    api.put("rolebindings", bound("rolebindings", "own", own))
    api.put("clusterrolebindings", bound("clusterrolebindings", "all", everybody))
    api.put("pilotidentities", plain(builders.pilot()))
    token = {"kubernetes.io/service-account.name": "pilot-workload-triage"}
    metadata = {"name": "lasting", "namespace": "team-a", "uid": "t", "annotations": token}
    api.put("secrets", {"metadata": metadata, "type": "kubernetes.io/service-account-token"})
    done = reconcile()
    assert done.exit_code == 0, done.stdout
    assert "0 RoleBindings, 0 ClusterRoleBindings" in done.stdout
    named = done.stdout.partition("Not checked:")[2]
    assert "RoleBinding team-a/crowd (ClusterRole edit to Group system:serviceaccounts:team-a): a gr" in named
    assert (
        "ClusterRoleBinding all (ClusterRole edit to Group system:authenticated): everybody has it" in named
    )
    assert "RoleBinding team-a/own (ClusterRole edit to ServiceAccount team-a/pilot-workload-triage)" in named
    assert "1 lasting tokens of pilots' own accounts, such as Secret team-a/lasting" in named


def issued(uid: str) -> bytes:
    """The entry that issued a grant long ago what holds for long; nothing but the certificate."""
    credential = {
        "id": "one",
        "issuance": 1,
        "spiffeID": "spiffe://d/ns/team-a/pilot/p/task/odd",
        "serial": "1",
        "notBefore": "2026-01-01T00:00:00Z",
        "notAfter": "2999-01-01T00:00:00Z",
        "renewAt": "2998-01-01T00:00:00Z",
        "secretName": "",
    }
    data = {
        "grantDigest": "d",
        "decision": {},
        "stage": "s",
        "expiresAt": "2999-01-01T00:00:00Z",
        "credential": credential,
    }
    at = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    return encode_entry(Entry("e", EntryType.GRANT_ISSUED, "TaskGrant team-a/odd", uid, at, data), NAME)


def test_what_vanished_is_missed(reconcile: Any, log: Path) -> None:
    """A grant with something out, of which there is no object and no end."""
    swap(log, issued("u"))
    done = reconcile()
    assert done.exit_code == 1
    assert "missing   TaskGrant team-a/odd   0       is not there (UID u)" in done.stdout


def test_an_object_that_cannot_be_read_is_told(reconcile: Any, log: Path, api: FakeApi) -> None:
    """It is there, and so it is not missed; and it hides nothing of the others."""
    swap(log, issued("u"))
    body = {"metadata": {"name": "odd", "namespace": "team-a", "uid": "u"}, "spec": {}, "status": 7}
    api.put("taskgrants", body)
    done = reconcile()
    assert done.exit_code == 4
    assert "verdict  nothing found in what could be read; not everything could" in done.stdout
    assert "  - TaskGrant team-a/odd: " in done.stdout
    assert json.loads(reconcile("-o", "json").stdout)["complete"] is None


def test_an_entry_that_cannot_be_read_leaves_it_open(reconcile: Any, log: Path) -> None:
    """What it announces is not known, so nothing is called complete."""
    swap(log, entry(0).replace(b"grant.emergency", b"grant.issued"))
    done = reconcile()
    assert done.exit_code == 4
    assert "verdict  nothing found in what could be read; not everything could" in done.stdout
    assert "  - 1 entries that this kubectl-pilot cannot read, such as 0" in done.stdout
    assert json.loads(reconcile("-o", "json").stdout)["complete"] is None


def test_of_secrets_only_metadata_is_asked_for(reconcile: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key leaves the API server."""
    asked: list[str] = []
    call = Session.call

    def noted(self: Session, method: str, path: str, *rest: Any, **options: Any) -> Any:
        if path.endswith("/secrets"):
            asked.append(options["accept"])
        return call(self, method, path, *rest, **options)

    monkeypatch.setattr(Session, "call", noted)
    reconcile("-A")
    assert asked == [reconciling.METADATA_LIST] * 3


def test_all_namespaces_and_one_cannot_be_meant(reconcile: Any) -> None:
    """The command line is wrong."""
    done = reconcile("-A", "-n", "team-a")
    assert done.exit_code == 2
    assert "leave out -n" in done.stderr


def test_a_broken_log_says_nothing(reconcile: Any, tmp_path: Path) -> None:
    """Completeness is held against a log that verifies, or not at all."""
    (tmp_path / "log" / "checkpoint").write_text("x\n0\nAA==\n\n")
    done = reconcile()
    assert done.exit_code == 1
    assert "the log does not verify" in done.stderr
