"""`kubectl pilot audit` against a real API server, on groups as the operator writes them."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from e2e.admin import Admin
from e2e.audit_format.conftest import PROGRAM, Audit
from e2e.audit_format.judges import Judges
from e2e.audit_format.logs import Writer
from e2e.controlplane.cluster import Cluster
from pilot_identity.core.audit.compacted import Compacted, compact
from pilot_identity.core.audit.groups import Group
from pilot_identity.core.audit.recollection import ANNOTATION, annotated
from pilot_identity.core.resources.metadata import GROUP

SECONDS = 30.0


Store = Callable[..., "Stored"]


class Stored:
    """A log in a namespace of the test's own.

    Attributes:
        where: the options that name it.
    """

    def __init__(self, admin: Admin, namespace: str, kubeconfig: Path, size: int, *, of: int) -> None:
        self.admin, self.namespace = admin, namespace
        self.where = ("-n", namespace, "--kubeconfig", str(kubeconfig))
        self.path = f"/api/v1/namespaces/{namespace}/configmaps"
        self.writer = Writer.new()
        self.groups = list(self.writer.groups(size, of=of))
        admin.create(self.path, self.writer.key_map(namespace))

    def write(self, *groups: Group) -> None:
        """Commit groups."""
        for group in groups:
            self.admin.create(self.path, self.writer.config_map(group, self.namespace))

    def remove(self, name: str) -> None:
        """Delete a ConfigMap, as one who holds etcd could."""
        self.admin.delete(f"{self.path}/{name}")

    def compact(self, first: int, edge: tuple[bytes, ...]) -> Compacted:
        """Write the bundle of the 256 entries from `first` on; its groups stay."""
        entries = [entry for group in self.groups for entry in group.entries][first : first + 256]
        bundle = compact(first, edge, entries, self.writer.signer)
        for name, data, binary in bundle.config_maps():
            metadata = {
                "name": str(name),
                "namespace": self.namespace,
                "labels": {f"{GROUP}/audit": "tile"},
                "annotations": annotated(first, entries, self.writer.signer),
            }
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "immutable": True}
            self.admin.create(self.path, {**body, "data": dict(data), "binaryData": dict(binary)})
        return bundle


@pytest.fixture
def store(cluster: Cluster, admin: Admin, namespace: str) -> Store:
    """Makes a log of so many entries, so many in a group; nothing of it is written yet."""
    return partial(Stored, admin, namespace, cluster.kubeconfig)


def found(done: subprocess.CompletedProcess[str]) -> list[tuple[str, str]]:
    """The flaws that `verify -o json` names, and where."""
    return [(each["flaw"], each["where"]) for each in json.loads(done.stdout)["findings"]]


def test_a_log_is_verified_told_and_taken_along(
    store: Store, audit: Audit, tmp_path: Path, foreign: Judges
) -> None:
    """Verified in the cluster, searched, exported for fsck, and one entry proven offline."""
    stored = store(1200, of=20)
    stored.write(*stored.groups)

    done = audit("verify", *stored.where)
    assert done.returncode == 0, done.stderr
    assert "verdict  sound" in done.stdout
    assert "whether everything that happened was logged" in done.stdout

    about = audit("for", "grant", "team-a/task-7", *stored.where, "-o", "json")
    assert [json.loads(line)["index"] for line in about.stdout.splitlines()] == [7, 1007]
    shown = audit("show", "1007", *stored.where)
    assert json.loads(shown.stdout)["subject"] == "TaskGrant team-a/task-7"
    newest = audit("tail", "--lines", "3", *stored.where, "-o", "json")
    assert [json.loads(line)["index"] for line in newest.stdout.splitlines()] == [1197, 1198, 1199]
    absent = audit("for", "grant", "team-b/task-7", *stored.where)
    assert (absent.returncode, absent.stdout) == (1, "")
    beyond = audit("show", "1200", *stored.where)
    assert (beyond.returncode, "the last is 1199" in beyond.stderr) == (1, True)

    directory = tmp_path / "export"
    assert audit("export", str(directory), *stored.where).returncode == 0
    assert foreign.fsck_objection(directory) == ""

    receipt = tmp_path / "7.tlog-proof"
    receipt.write_text(audit("receipt", "7", *stored.where).stdout, encoding="utf-8")
    offline = {"KUBECONFIG": "/nowhere", "XDG_STATE_HOME": str(tmp_path / "nobody")}
    key = str(stored.writer.signer.verifier())
    valid = audit("check-receipt", str(receipt), "--vkey", key, **offline)
    assert valid.returncode == 0, valid.stderr
    assert "valid: entry 7" in valid.stdout
    other = audit("check-receipt", str(receipt), "--vkey", str(Writer.new().signer.verifier()), **offline)
    assert (other.returncode, "no valid signature" in other.stderr) == (1, True)
    unknown = audit("check-receipt", str(receipt), **offline)
    assert (unknown.returncode, "--vkey" in unknown.stderr) == (2, True)
    assert audit("check-receipt", str(receipt)).returncode == 0  # the key was seen when it was verified


def test_what_was_done_to_the_log_is_found_and_located(store: Store, audit: Audit) -> None:
    """A changed byte, a missing group, a cut tail and another log in its place, by whoever holds etcd."""
    stored = store(40, of=4)
    stored.write(*stored.groups)
    assert audit("verify", *stored.where).returncode == 0
    third = stored.groups[2]

    stored.remove(third.name)
    assert found(audit("verify", *stored.where, "-o", "json")) == [("gap", stored.groups[3].name)]

    forged = list(third.entries)
    forged[1] = forged[1].replace(b"alice", b"mallo")
    stored.write(Group(third.extends, tuple(forged), third.note))
    told = audit("verify", *stored.where, "-o", "json")
    assert found(told) == [("entry-changed", third.name)]
    assert audit("receipt", "30", *stored.where).stdout == ""

    stored.remove(third.name)
    stored.write(third)
    assert audit("verify", *stored.where).returncode == 0

    last = stored.groups[-1]
    stored.remove(last.name)
    assert found(audit("verify", *stored.where, "-o", "json")) == [
        ("tail-truncated", "the head that was seen before")
    ]
    stored.write(last)

    rewritten = Writer(stored.writer.signer)
    for group in stored.groups:
        stored.remove(group.name)
    groups = list(rewritten.groups(41, of=41))
    stored.write(groups[0])
    assert audit("verify", *stored.where).returncode == 0  # the same entries, committed otherwise

    usurper = Writer.new()
    stored.remove(groups[0].name)
    stored.remove("audit-verifier")
    stored.admin.create(stored.path, usurper.key_map(stored.namespace))
    for group in usurper.groups(45, of=5):
        stored.admin.create(stored.path, usurper.config_map(group, stored.namespace))
    replaced = audit("verify", *stored.where, "-o", "json")
    assert replaced.returncode == 1
    assert {flaw for flaw, _ in found(replaced)} >= {"foreign-key"}
    assert "warning: the key published" in replaced.stderr


def test_a_compacted_log_is_the_same_log(store: Store, audit: Audit) -> None:
    """Before, in the middle of and after compaction."""
    stored = store(600, of=50)
    stored.write(*stored.groups)
    assert audit("verify", *stored.where).returncode == 0
    first = stored.compact(0, ())
    assert audit("verify", *stored.where).returncode == 0
    stored.compact(256, first.edge)
    for group in stored.groups:
        if group.size <= 512:
            stored.remove(group.name)
    done = audit("verify", *stored.where)
    assert done.returncode == 0, done.stderr
    assert "begins with the 600 entries whose head was seen before" in done.stdout


def test_metadata_of_what_is_immutable_can_be_changed_and_that_is_found(store: Store, audit: Audit) -> None:
    """What a start believes is an annotation, what is listed has a label: an admin can change both."""
    stored = store(300, of=50)
    stored.write(*stored.groups)
    stored.compact(0, ())
    newest = stored.groups[-1].name
    stored.admin.patch(f"{stored.path}/{newest}", {"metadata": {"labels": {f"{GROUP}/audit": None}}})
    assert found(audit("verify", *stored.where, "-o", "json")) == [("unlisted", newest)]
    stored.admin.patch(f"{stored.path}/{newest}", {"metadata": {"labels": {f"{GROUP}/audit": "group"}}})
    assert audit("verify", *stored.where).returncode == 0
    tile = "audit-tile-0000000000000000"
    stored.admin.patch(f"{stored.path}/{tile}", {"metadata": {"annotations": {ANNOTATION: "forged"}}})
    assert found(audit("verify", *stored.where, "-o", "json")) == [("recollection-replaced", tile)]


class Tail:
    """`tail -f`, and the lines that it prints as they come."""

    def __init__(self, where: tuple[str, ...], state: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "tail", "-f", "-o", "json", *where],
            env={**os.environ, "XDG_STATE_HOME": str(state)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)

    def index(self) -> int:
        """The index of the next entry."""
        return int(json.loads(self._lines.get(timeout=SECONDS))["index"])

    def last_words(self) -> str:
        """What it says on stderr in the end."""
        assert self.process.stderr is not None
        told = self.process.stderr.read()
        self.process.wait(SECONDS)
        return told

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self._reader.join()
        self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


def test_tail_follows_and_stops_at_what_is_broken(store: Store, tmp_path: Path) -> None:
    """Each entry is shown once it verified; a group that does not is never shown, and the exit code tells."""
    stored = store(12, of=3)
    stored.write(*stored.groups[:2])
    tail = Tail(stored.where, tmp_path / "state")
    try:
        assert [tail.index() for _ in range(6)] == list(range(6))
        stored.write(stored.groups[2])
        assert [tail.index() for _ in range(3)] == [6, 7, 8]
        broken = stored.groups[3]
        stored.write(Group(broken.extends, broken.entries[:2], broken.note))
        assert "entry-dropped" in tail.last_words()
        assert tail.process.returncode == 1
    finally:
        tail.close()


def test_tail_notices_that_a_group_was_deleted(store: Store, tmp_path: Path) -> None:
    """Unless its entries are in a bundle, a group stays for good."""
    stored = store(300, of=50)
    stored.write(*stored.groups)
    tail = Tail(stored.where, tmp_path / "state")
    try:
        assert [tail.index() for _ in range(10)] == list(range(290, 300))
        stored.compact(0, ())
        stored.remove(stored.groups[0].name)
        more = list(stored.writer.groups(301, of=50))[-1]
        stored.write(more)
        assert tail.index() == 300
        stored.remove(stored.groups[5].name)
        assert f"{stored.groups[5].name} was deleted" in tail.last_words()
    finally:
        tail.close()
